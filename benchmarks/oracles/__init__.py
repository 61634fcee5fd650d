"""Reference numbers from other programs, each run in an environment of its own."""
