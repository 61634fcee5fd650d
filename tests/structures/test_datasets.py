import gzip
import json
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.structures.checks import check_structures
from pretrain_mlip.structures.datasets import (
    DATASETS,
    dataset_info,
    fetch_public,
    get_dataset,
    list_datasets,
    load_dataset,
    read_mptrj,
)
from pretrain_mlip.structures.io import labels_of, read_structures, set_labels, write_structures

EMBEDDED = [name for name, info in DATASETS.items() if info.embedded]


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_are_whole_and_clean(name):
    frames = load_dataset(name)
    assert all(label is not None for atoms in frames for label in labels_of(atoms))
    assert {atoms.info["split"] for atoms in frames} == {"train", "val", "test"}
    assert len({atoms.info["structure_id"] for atoms in frames}) == len(frames)
    findings = check_structures(frames)
    # NN10 smoothing leaves net forces of about 0.1 eV/Å in silica; nothing else may be wrong.
    assert {f.check for f in findings if f.severity != "note"} <= {"net force"}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_are_copied(tmp_path, name):
    path = get_dataset(name, tmp_path / "new")
    assert path == tmp_path / "new" / f"{name}.extxyz"
    assert len(read_structures(path)) == len(load_dataset(name))


def test_every_set_is_described():
    assert [info.name for info in list_datasets()] == list(DATASETS)
    assert all(all(field != "" for field in info) for info in list_datasets())
    with pytest.raises(InputError, match="'quartz' is unknown; known: silica_mini"):
        dataset_info("quartz")
    with pytest.raises(InputError, match="pretrain-mlip datasets get P-GAP-20"):
        load_dataset("P-GAP-20")


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    rng = np.random.default_rng(0)
    atoms.rattle(0.1, rng=rng)
    return atoms, rng.normal(size=(8, 3)), rng.normal(size=6)


def test_load_atoms_path_with_a_local_file(tmp_path):
    pytest.importorskip("load_atoms")
    atoms, forces, stress = salt()
    set_labels(atoms, -1.0, forces, stress)
    write_structures(tmp_path / "a.extxyz", [atoms])
    (fetched,) = fetch_public(tmp_path / "a.extxyz", tmp_path)
    assert labels_of(fetched).energy == -1.0
    np.testing.assert_allclose(labels_of(fetched).stress, stress, rtol=1e-12)
    np.testing.assert_allclose(labels_of(fetched).forces, forces, atol=5.001e-9)  # eight decimals


def test_virials_of_gap_sets_become_stress(tmp_path):
    pytest.importorskip("load_atoms")
    atoms, forces, _ = salt()
    set_labels(atoms, -1.0, forces)
    atoms.info["virial"] = np.diag([1.0, 2.0, 3.0])
    write_structures(tmp_path / "a.extxyz", [atoms])
    (fetched,) = fetch_public(tmp_path / "a.extxyz", tmp_path)
    np.testing.assert_allclose(labels_of(fetched).stress[:3], -np.array([1, 2, 3]) / atoms.get_volume(), rtol=1e-12)


def test_absent_package_and_absent_network_are_explained(tmp_path, monkeypatch):
    pytest.importorskip("load_atoms")
    requests = pytest.importorskip("requests")

    def refuse(*_, **__):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(ComputationError, match=r"'P-GAP-20' could not be fetched .ConnectionError: no route to host"):
        get_dataset("P-GAP-20", tmp_path)
    monkeypatch.setitem(sys.modules, "load_atoms", None)
    with pytest.raises(InputError, match=r"pip install pretrain-mlip\[public\]"):
        get_dataset("P-GAP-20", tmp_path)


def mptrj_content():
    core = pytest.importorskip("pymatgen.core")
    atoms, forces, stress = salt()
    structure = core.Structure(
        atoms.cell.array, atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True
    )
    xx, yy, zz, yz, xz, xy = stress
    full = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    frame = {
        "structure": structure.as_dict(),
        "corrected_total_energy": -30.0,
        "uncorrected_total_energy": -29.0,
        "energy_per_atom": -3.75,
        "force": forces.tolist(),
        "stress": (full * -1602.1766208).tolist(),  # kbar per eV/Å³, and VASP's sign
        "magmom": None,
        "bandgap": 5.0,
    }
    return {"mp-1": {"mp-1-0-0": frame, "mp-1-0-1": frame}, "mp-2": {"mp-2-0-0": dict(frame)}}


@pytest.mark.parametrize("name", ["mptrj.json", "mptrj.json.gz"])
def test_mptrj(tmp_path, name):
    text = json.dumps(mptrj_content()).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    frames = read_mptrj(tmp_path / name)
    assert [(a.info["parent"], a.info["structure_id"]) for a in frames] == [
        ("mp-1", "mp-1-0-0"),
        ("mp-1", "mp-1-0-1"),
        ("mp-2", "mp-2-0-0"),
    ]
    atoms, forces, stress = salt()
    labels = labels_of(frames[0])
    assert labels.energy == -30.0
    np.testing.assert_allclose(labels.forces, forces, rtol=1e-12)
    np.testing.assert_allclose(labels.stress, stress, rtol=1e-12)
    np.testing.assert_allclose(frames[0].positions, atoms.positions, atol=1e-12)
    np.testing.assert_array_equal(frames[0].numbers, atoms.numbers)


def test_what_is_not_mptrj_is_refused(tmp_path):
    content = mptrj_content()
    del content["mp-2"]["mp-2-0-0"]["force"]
    for text, message in [
        ("[]", "not in the format of MPtrj"),
        (json.dumps(content), "mp-2, frame mp-2-0-0: no 'force' in it"),
        ("{", "not a readable JSON file"),
    ]:
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_mptrj(tmp_path / "m.json")
    (tmp_path / "m.json.gz").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="not a readable gzipped JSON file"):
        read_mptrj(tmp_path / "m.json.gz")


def test_a_file_written_by_plain_ase_is_read_the_same(tmp_path):
    path = get_dataset("phosphorus_mini", tmp_path)
    (ours,), theirs = read_structures(path, index="0"), read(path, index=0)
    np.testing.assert_array_equal(labels_of(ours).forces, theirs.get_forces())
    np.testing.assert_array_equal(labels_of(ours).stress, theirs.get_stress())
