"""One process for each program that is timed; see networks.py."""
