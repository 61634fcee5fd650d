"""Potentials for other programs: exported files, and everything that LAMMPS needs."""
