"""Configuration of Sphinx. The reference pages are written from the code by _ext/generated_reference.py."""

import sys
from pathlib import Path

import pretrain_mlip
from pretrain_mlip.potentials.eam import fit, form

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pretrain-mlip"
author = "The pretrain-mlip authors"
project_copyright = author
release = version = pretrain_mlip.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "generated_reference",
]
exclude_patterns = ["_build", "_ext", "reference/study_tables.md"]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "fieldlist"]
myst_heading_anchors = 3

# Constants of the EAM in method.md, from the code
myst_enable_extensions += ["substitution"]
myst_substitutions = {
    "taper": form.TAPER_START,
    "wall_start": form.WALL[0],
    "wall_end": form.WALL[1],
    "flat_start": form.FLAT[0],
    "flat_end": form.FLAT[1],
    "morse_start": form.MORSE_START,
    "shell": form.SHELL,
    "stiffness": fit.STIFFNESS,
    "delta": form.DELTA,
    "kappa": form.KAPPA,
}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"pretrain-mlip {release}"
html_show_sourcelink = False
