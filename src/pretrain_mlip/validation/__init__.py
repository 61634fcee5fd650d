"""Checks of a potential against reference data and against physics: error tables and dimer scans."""
