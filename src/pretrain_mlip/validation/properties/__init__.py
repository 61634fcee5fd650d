"""Properties of crystals by any ASE calculator: one file each, a function that returns plain types."""
