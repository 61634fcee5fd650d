"""Potentials: torch modules that return atomic energies for a graph, and their sums."""
