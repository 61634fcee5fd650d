"""LAMMPS: which one is there, a pair style for it, runs, and comparisons with ASE."""
