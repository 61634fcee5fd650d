"""Structures and their labels: reading, checking, splitting, perturbing."""
