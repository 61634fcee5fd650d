"""Periodic neighbour lists and the graphs that potentials take."""
