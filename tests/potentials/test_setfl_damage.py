"""Damaged setfl files: each an error that says where."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.setfl_files import SMALL, small

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.checkpoint import load_potential

FUNCFL = "Cu functions\n29 63.55 3.615 FCC\n500 5e-4 500 1e-2 4.95\n-0.1 -0.2 -0.3\n-0.4 -0.5\n"
DAMAGED = {
    "empty": (lambda _: " \n", "is empty"),
    "binary": (lambda text: text[:80] + "\0\1\2" + text[80:], "is a binary file"),
    "comments only": (lambda _: "a\nb\nc\n", "line 4: the file ends before its elements"),
    "prose": (lambda _: "a\nb\nc\nonce upon a time\n", "line 4: the number of elements"),
    "funcfl": (lambda _: FUNCFL, "funcfl"),
    "number of elements": (lambda text: text.replace("2 Ni Al", "3 Ni Al"), "line 4: the number of elements"),
    "elements twice": (lambda text: text.replace("2 Ni Al", "2 Ni Ni"), "line 4: an element is named twice"),
    "no elements": (lambda text: text.replace("2 Ni Al", "0"), "line 4: the number of elements"),
    "strange element": (lambda text: text.replace("2 Ni Al", "2 Ni Qq"), "distinct chemical symbols"),
    "grid of four": (lambda text: text.replace(" 4.0\n", "\n"), "line 5: five numbers"),
    "grid of text": (lambda text: text.replace("6 0.5", "six 0.5"), "line 5: five numbers"),
    "no grid": (lambda text: text[: text.index("6 0.5")], "five numbers"),
    "fractional size": (lambda text: text.replace("6 0.5", "6.5 0.5"), "line 5: Nrho is 6.5"),
    "tiny size": (lambda text: text.replace("5 1.0 4.0", "4 1.0 3.0"), "line 5: Nr is 4"),
    "infinite step": (lambda text: text.replace("6 0.5", "6 inf"), "line 5: five numbers"),
    "zero step": (lambda text: text.replace("6 0.5", "6 0.0"), "line 5: drho is 0; it must be positive"),
    "negative step": (lambda text: text.replace("5 1.0 4.0", "5 -1.0 4.0"), "line 5: dr is -1; it must be"),
    "negative cutoff": (lambda text: text.replace("1.0 4.0", "1.0 -4.0"), "line 5: the cutoff is -4"),
    "short of the cutoff": (lambda text: text.replace("1.0 4.0", "1.0 7.0"), "line 5: the tables end at 4 Å"),
    "element line": (lambda text: text.replace("1 58.71 3.52 fcc\n", ""), "line 6: number, mass"),
    "mass": (lambda text: text.replace("58.71", "-58.71"), "line 6: number, mass"),
    "text": (lambda text: text.replace("-3.0 -4.0", "-3.0 four"), "line 8: 'four' is not a number"),
    "underscore": (lambda text: text.replace("-3.0 -4.0", "-3.0 1_0"), "line 8: '1_0' is not a number"),
    "glued": (lambda text: text.replace("-3.0 -4.0", "-3.0-4.0"), "line 8: '-3.0-4.0' is not a number"),
    "nan": (lambda text: text.replace("4 3 2\n", "4 nan 2\n"), "line 9: 'nan' is not finite .density of Ni"),
    "infinity": (
        lambda text: text.replace("20 21", "20 -inf"),
        "line 18: '-inf' is not finite .pair function",
    ),
    "overflow": (lambda text: text.replace("20 21", "20 1e999"), "line 18: '1e999' is not finite"),
    "a value too many": (
        lambda text: text.replace("1 0\n", "1 0 7\n"),
        "line 10: the density of Ni ends within",
    ),
    "a value too few": (
        lambda text: text.replace("20 21", "20"),
        "line 19: the pair function of Al-Ni ends within",
    ),
    "a value after the end": (lambda text: text + "0.0\n", "line 20: '0.0' follows the last table"),
    "truncated": (lambda text: text[:-20], "the file ends in the pair function of Al-"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files(damage: str, tmp_path: Path) -> None:
    change, message = DAMAGED[damage]
    path = tmp_path / "damaged.eam.alloy"
    path.write_text(change(SMALL))
    assert change(SMALL) != SMALL
    with pytest.raises(InputError, match=message) as caught:
        load_potential(path)
    assert str(caught.value).startswith(str(path))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_potential(tmp_path / "a.eam.alloy")
    (tmp_path / "b.eam.alloy").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_potential(tmp_path / "b.eam.alloy")


@given(
    place=st.integers(0, len(SMALL) - 1), cut=st.integers(0, 6), new=st.text("0123456789.-+eEdD# \n\tnaifx", max_size=4)
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_in_a_file_it_is_read_or_refused(place: int, cut: int, new: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = small(Path(folder), SMALL[:place] + new + SMALL[place + cut :])
        try:
            eam = load_potential(path)
        except InputError as error:
            assert str(error).startswith(str(path))  # noqa: PT017  # both outcomes are right
        else:
            assert all(torch.isfinite(value).all() for value in eam.state_dict().values())
