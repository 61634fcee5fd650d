"""Is a potential what it says it is? Checks of its code, not of its physics, for any ASE calculator."""
