import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.checks import check_structures, findings_table, raise_on_errors, summarise
from pretrain_mlip.structures.io import set_labels


def crystal(seed=0, symbol="Cu", **labels):
    rng = np.random.default_rng(seed)
    atoms = bulk(symbol, cubic=True, crystalstructure="fcc", a=3.6)
    atoms.rattle(0.1, rng=rng)
    forces = rng.normal(size=(4, 3))
    forces -= forces.mean(axis=0)
    set_labels(atoms, **{"energy": -4.0, "forces": forces, "stress": np.ones(6), **labels})
    return atoms


def found(frames):
    return {finding.check: finding for finding in check_structures(frames)}


def test_a_clean_set_has_a_note_on_its_elements_only():
    findings = check_structures([crystal(k) for k in range(3)])
    assert [(f.severity, f.check) for f in findings] == [("note", "elements")]
    raise_on_errors(findings)


@pytest.mark.parametrize(
    ("change", "check", "severity"),
    [
        ({"forces": np.array([[200.0, 0, 0], [-200, 0, 0], [0, 0, 0], [0, 0, 0]])}, "force units", "warning"),
        ({"stress": np.array([0, 0, 0, 0, 0, -6.0])}, "stress units", "warning"),
        ({"forces": np.full((4, 3), 0.1)}, "net force", "warning"),
        ({"energy": 30.0}, "energy spread", "note"),
        ({"energy": np.nan}, "not finite", "error"),
        ({"energy": None}, "energy labels", "warning"),
        ({"forces": None}, "forces labels", "warning"),
        ({"stress": None}, "stress labels", "warning"),
    ],
)
def test_labels_that_look_wrong(change, check, severity):
    finding = found([crystal(0), crystal(1, **change), crystal(2)])[check]
    assert finding.severity == severity
    assert finding.frames[0].startswith("structure 1") or check == "energy spread"


def test_forces_that_are_all_zero():
    assert "zero forces" in found([crystal(k, forces=np.zeros((4, 3))) for k in range(2)])


def test_geometry_that_looks_wrong():
    close, flat = crystal(1), crystal(2)
    close.positions[1] = close.positions[0] + [0.3, 0, 0]
    flat.cell[2] = flat.cell[1]
    findings = found([crystal(0), close, flat])
    assert findings["close pairs"].frames == ("structure 1 (0.30 Å)",)
    assert findings["cell"].severity == "error"
    with pytest.raises(InputError, match=r"without volume.*\(1 frames; structure 2\)"):
        raise_on_errors(findings.values())


def test_molecules_and_slabs_are_fine():
    water, slab = molecule("H2O"), crystal(0)
    slab.pbc = [True, True, False]
    slab.cell[2] = 0
    assert not {"cell", "close pairs"} & set(found([water, slab]))


def test_a_rare_element_is_named():
    assert found([crystal(0), crystal(1), crystal(2, "Ni")])["rare element"].message == "Ni occurs in one frame only"
    assert "rare element" not in found([crystal(0), crystal(1), Atoms("Ni", info={"config_type": "IsolatedAtom"})])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.lists(st.integers(0, 19), max_size=12), st.integers(0, 1000))
def test_duplicates_are_counted_once_each(n, copied, seed):
    rng = np.random.default_rng(seed)
    frames = [crystal(k) for k in range(n)]
    extra = [frames[k % n].copy() for k in copied]
    for atoms in extra:
        atoms.positions += rng.uniform(-4e-7, 4e-7, size=(4, 3))  # two copies still differ by less than 1e-6 Å
    everything = frames + extra
    everything = [everything[k] for k in rng.permutation(len(everything))]
    finding = found(everything).get("duplicates")
    assert (finding.count if finding else 0) == len(copied)


def test_frames_that_differ_are_no_duplicates():
    first, second, third = crystal(0), crystal(0), crystal(0)
    second.positions[0, 0] += 1e-5
    third.cell[0, 0] += 1e-5
    assert "duplicates" not in found([first, second, third])


def test_summary_is_json_with_the_right_numbers():
    frames = [crystal(0), crystal(1, energy=-8.0, stress=None), molecule("H2O")]
    frames[0].info.update(config_type="a", split="train")
    summary = json.loads(json.dumps(summarise(frames), allow_nan=False))
    assert summary["frames"] == 3
    assert summary["atoms"] == {"min": 3, "max": 4, "total": 11}
    assert summary["elements"] == {"Cu": 8, "H": 2, "O": 1}
    assert summary["config_types"] == {"a": 1}
    assert summary["labels"] == {"energy": 2, "forces": 2, "stress": 1}
    assert summary["energy_per_atom"] == {"min": -2.0, "max": -1.0}
    assert summary["volume_per_atom"]["min"] == pytest.approx(3.6**3 / 4, rel=1e-12)
    assert json.dumps(summarise([]), allow_nan=False)


def test_the_table_has_a_row_per_finding():
    findings = check_structures([crystal(0), crystal(0)])
    assert findings_table(findings).row_count == len(findings)
