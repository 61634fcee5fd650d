"""A setfl file small enough to see what is wrong with it."""

from __future__ import annotations

from pathlib import Path

# Two elements, five points each
SMALL = """first comment
second # comment
third
2 Ni Al
6 0.5 5 1.0 4.0
1 58.71 3.52 fcc
 -0.1D+00 -1.0  -2.0
 -3.0 -4.0 -5.0
4 3 2
1 0
13 26.98 4.05 FCC fitted by hand
-0.2 -1 -2 -3
-4

-5
8 6 4 2 0   # densities of Al
10 1.1e+1 12 13 0
20 21 22 23 0
30 31 32 33 0
"""


def small(tmp_path: Path, text: str = SMALL, name: str = "small.eam.alloy") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path
