"""Molecular dynamics, detection of failures, survival statistics and radial distribution functions."""
