import gzip
import logging

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.io import LabelKeys, labels_of, name_of, read_structures, set_labels, write_structures
from pretrain_mlip.structures.readers import extxyz_spans, read_part

FULL = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])  # Voigt 1 2 3 4 5 6
VOIGT = np.arange(1.0, 7.0)


def labelled(seed=0, n=1):
    frames = []
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, rng=rng)
        atoms.info["config_type"] = "rattled"
        set_labels(atoms, rng.normal() * 1e4, rng.normal(size=(4, 3)), rng.normal(size=6))
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.extxyz.gz"])
def test_round_trip(tmp_path, name):
    frames = labelled(n=3)
    frames[1].info.update(split="val", parent="p", structure_id="300", config_weight=0.5, extra=[1, 2])
    write_structures(tmp_path / name, frames)
    for old, new in zip(frames, read_structures(tmp_path / name), strict=True):
        a, b = labels_of(old), labels_of(new)
        assert a.energy == b.energy
        np.testing.assert_array_equal(a.stress, b.stress)
        np.testing.assert_array_equal(old.cell.array, new.cell.array)
        # ASE writes per-atom numbers with eight decimals.
        np.testing.assert_allclose(a.forces, b.forces, rtol=0, atol=5.001e-9)
        np.testing.assert_allclose(old.positions, new.positions, rtol=0, atol=5.001e-9)
        assert {k: v for k, v in new.info.items() if k not in ("_source", "extra")} == {
            k: v for k, v in old.info.items() if k != "extra"
        }
    assert new.info["_source"] == f"{name} frame 2"


def test_equal_frames_make_equal_files(tmp_path):
    write_structures(tmp_path / "a.extxyz.gz", labelled())
    write_structures(tmp_path / "b.extxyz.gz", labelled())
    assert (tmp_path / "a.extxyz.gz").read_bytes() == (tmp_path / "b.extxyz.gz").read_bytes()


def test_line_break_in_info_does_not_break_the_file(tmp_path):
    (atoms,) = labelled()
    atoms.info["comment"] = "two\nlines"
    write_structures(tmp_path / "a.extxyz", [atoms])
    assert read_structures(tmp_path / "a.extxyz")[0].info["comment"] == "two lines"


def three_sources():
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(REF_energy=1.0, dft_energy=2.0, REF_stress=FULL.ravel(), dft_stress=2 * FULL.ravel())
    atoms.arrays.update(REF_forces=np.full((4, 3), 1.0), dft_forces=np.full((4, 3), 2.0))
    atoms.calc = SinglePointCalculator(atoms, energy=3.0, forces=np.full((4, 3), 3.0), stress=3 * VOIGT)
    return atoms


KEYS = LabelKeys(energy_key="dft_energy", forces_key="dft_forces", stress_key="dft_stress")


@pytest.mark.parametrize("through_file", [True, False])
@pytest.mark.parametrize(("removed", "expected"), [((), 1.0), (("REF",), 2.0), (("REF", "dft"), 3.0)])
def test_order_of_labels(tmp_path, removed, expected, through_file):
    atoms = three_sources()
    for place in (atoms.info, atoms.arrays):
        for key in [k for k in place if k.startswith(removed or ("none",))]:
            del place[key]
    source = atoms
    if through_file:
        source = tmp_path / "a.extxyz"
        ase.io.write(source, atoms)
    (read,) = read_structures(source, keys=None if "dft" in removed else KEYS)
    labels = labels_of(read)
    assert labels.energy == expected
    np.testing.assert_array_equal(labels.forces, np.full((4, 3), expected))
    np.testing.assert_allclose(labels.stress, expected * VOIGT, rtol=1e-12)  # symmetrising rounds
    assert not [k for k in (*read.info, *read.arrays) if "energy" in k or "forces" in k or "stress" in k]


def test_virials_become_minus_stress_times_volume():
    atoms = bulk("Cu", cubic=True)
    atoms.info["REF_virials"] = FULL
    (read,) = read_structures(atoms, require=())
    np.testing.assert_allclose(labels_of(read).stress, -VOIGT / atoms.get_volume(), rtol=1e-14)
    atoms.info = {"v": FULL}
    (read,) = read_structures(atoms, require=(), keys=LabelKeys(virials_key="v"))
    np.testing.assert_allclose(labels_of(read).stress, -VOIGT / atoms.get_volume(), rtol=1e-14)


def test_stress_of_ase_equals_stress_read_from_extxyz(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1)
    atoms.calc = EMT()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    ase.io.write(tmp_path / "a.extxyz", atoms)
    labels = labels_of(read_structures(tmp_path / "a.extxyz")[0])
    assert labels.energy == energy
    np.testing.assert_allclose(labels.forces, forces, atol=5.001e-9)  # eight decimals
    np.testing.assert_allclose(labels.stress, stress, rtol=1e-14)


def test_structures_are_copied_and_never_changed():
    atoms = three_sources()
    atoms.set_constraint(FixAtoms([0]))
    before, calc = atoms.copy(), atoms.calc
    (read,) = read_structures([atoms], keys=KEYS)
    read.positions += 1
    read.info["REF_stress"] = 0
    assert atoms.calc is calc
    assert list(atoms.info) == list(before.info)
    np.testing.assert_array_equal(atoms.positions, before.positions)


def test_results_of_a_shared_calculator_do_not_count_for_other_positions():
    first = bulk("Cu", cubic=True)
    first.calc = EMT()
    second = first.copy()
    second.rattle(0.1)
    second.calc = first.calc
    second.get_forces()
    with pytest.raises(InputError, match=r"structure 0: no energy label .1 of 2"):
        read_structures([first, second])


def test_labels_in_some_frames_only_are_fine_when_not_required():
    first, second = labelled(n=2)
    set_labels(second, 1.0, np.zeros((4, 3)))
    read = read_structures([first, second])
    assert labels_of(read[0]).stress is not None
    assert labels_of(read[1]).stress is None
    with pytest.raises(InputError, match=r"structure 1: no stress label .1 of 2"):
        read_structures([first, second], require=("stress",))


def test_unlabelled_frames_have_no_calculator():
    (read,) = read_structures(bulk("Cu"), require=())
    assert read.calc is None
    assert labels_of(read) == (None, None, None)


def test_isolated_atom_needs_an_energy_only():
    atom = Atoms("Cu", info={"config_type": "isolated_atom", "energy": -1.0})
    (read,) = read_structures(atom)
    assert read.info == {"config_type": "IsolatedAtom"}
    assert labels_of(read).energy == -1.0


def test_nan_stress_of_a_molecule_counts_as_none():
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=1.0, forces=np.zeros((3, 3)), stress=np.full(6, np.nan))
    assert labels_of(read_structures(water)[0]).stress is None
    set_labels(water, 1.0, np.zeros((3, 3)), np.full(6, np.nan))
    assert labels_of(water).stress is None


def test_other_formats_databases_and_several_files(tmp_path):
    frames = labelled(n=2)
    write_structures(tmp_path / "a.extxyz", frames)
    ase.io.write(tmp_path / "b.traj", frames)
    with ase.db.connect(tmp_path / "c.db") as database:
        for atoms in frames:
            database.write(atoms, key_value_pairs={"split": "val"}, data={"REF_stress": VOIGT})
    read = read_structures([tmp_path / name for name in ("a.extxyz", "b.traj", "c.db")])
    assert [name_of(atoms, 0) for atoms in read[1:5]] == [
        "a.extxyz frame 1",
        "b.traj frame 0",
        "b.traj frame 1",
        "c.db frame 0",
    ]
    for k in (0, 2, 4):
        assert labels_of(read[k]).energy == labels_of(frames[0]).energy
    np.testing.assert_array_equal(labels_of(read[4]).stress, VOIGT)
    assert read[4].info["split"] == "val"


@pytest.mark.parametrize(("index", "expected"), [("-1", [4]), ("::2", [0, 2, 4]), ("1:3", [1, 2])])
def test_index_keeps_frame_numbers(tmp_path, index, expected):
    write_structures(tmp_path / "a.extxyz", labelled(n=5))
    read = read_structures(tmp_path / "a.extxyz", index=index)
    assert [name_of(atoms, 0) for atoms in read] == [f"a.extxyz frame {n}" for n in expected]


def test_blank_lines_do_not_end_a_file(tmp_path):
    write_structures(tmp_path / "a.extxyz", labelled(n=1))
    text = (tmp_path / "a.extxyz").read_text()
    (tmp_path / "b.extxyz").write_text(text + "\n\n" + text + "\n")
    assert len(read_structures(tmp_path / "b.extxyz")) == 2


@pytest.mark.parametrize("name", ["a.extxyz", "a.extxyz.gz"])
def test_line_ends_of_other_systems(tmp_path, name):
    write_structures(tmp_path / "a.extxyz", labelled())
    content = (tmp_path / "a.extxyz").read_bytes().replace(b"\n", b"\r\n")
    frames = read_structures(tmp_path / "a.extxyz")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for one, other in zip(read_structures(tmp_path / name), frames, strict=True):
        assert one.info | {"_source": ""} == other.info | {"_source": ""}
        assert (one.positions == other.positions).all()
        assert labels_of(one).energy == labels_of(other).energy


def test_parts_of_a_file_are_its_frames(tmp_path):
    path = tmp_path / "a.extxyz"
    write_structures(path, labelled(n=5))
    path.write_bytes(b"\n" + path.read_bytes() + b"\n\n")
    with path.open("rb") as stream:
        spans = list(extxyz_spans(path, stream))
    part = spans[1]._replace(stop=spans[3].stop)
    found = list(read_part(path, part, 1))
    assert [number for number, _ in found] == [1, 2, 3]
    for (_, atoms), frame in zip(found, read_structures(path)[1:4], strict=True):
        assert (atoms.positions == frame.positions).all()
    lines = path.read_bytes().splitlines()
    assert [int(lines[span.line - 1]) for span in spans] == [len(frame) for frame in labelled(n=5)]
    lines[spans[2].line + 1] = b"Si and no numbers"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with path.open("rb") as stream:
        spans = list(extxyz_spans(path, stream))
    with pytest.raises(InputError, match=rf"a\.extxyz frame 2 \(line {spans[2].line}\)"):
        list(read_part(path, spans[1]._replace(stop=spans[3].stop), 1))


def test_labels_of_several_origins_are_reported(caplog):
    first, second = labelled(n=2)
    second.info["REF_energy"] = 1.0
    with caplog.at_level(logging.WARNING):
        read_structures([first, second])
    assert "energy: labels come from several keys: energy (1), REF_energy (1)" in caplog.text


def spoilt(change):
    first, second = labelled(n=2)
    change(second)
    return [first, second]


def put(key, value):
    return lambda atoms: atoms.info.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("REF_energy", np.nan), r"structure 1: 'REF_energy' is not finite"),
        (put("REF_energy", "low"), r"structure 1: 'REF_energy' holds 'low', which is not numeric"),
        (put("REF_energy", np.zeros(3)), r"'REF_energy' has shape \(3,\), expected one number"),
        (put("REF_stress", np.zeros(5)), r"'REF_stress' has shape \(5,\), expected \(6,\) or \(9,\) or \(3, 3\)"),
        (put("config_weight", -1.0), r"structure 1: config_weight is -1.0"),
        (put("config_weight", "heavy"), r"structure 1: config_weight is 'heavy'"),
        (lambda atoms: atoms.new_array("REF_forces", np.zeros((4, 2))), r"has shape \(4, 2\), expected \(4, 3\)"),
        (lambda atoms: atoms.new_array("REF_forces", np.full((4, 3), np.inf)), r"'REF_forces' is not finite"),
        (lambda atoms: setattr(atoms, "calc", None), r"structure 1: no energy label \(1 of 2 frames"),
        (lambda atoms: atoms.__delitem__(slice(None)), r"structure 1: no atoms"),
        (lambda atoms: atoms.positions.__setitem__(0, np.nan), r"structure 1: positions are not finite"),
    ],
)
def test_bad_labels_are_refused_by_name(change, message):
    with pytest.raises(InputError, match=message) as caught:
        read_structures(spoilt(change))
    assert "\n" not in str(caught.value)


def test_missing_label_suggests_a_key():
    atoms = Atoms("Cu", info={"config_type": "x", "dft_energy": 1.0})
    with pytest.raises(InputError, match=r"does 'dft_energy' hold it. Then name it: --keys energy_key=dft_energy"):
        read_structures(atoms)


def test_virials_without_volume_are_refused():
    atoms = Atoms("Cu", info={"REF_virials": FULL})
    with pytest.raises(InputError, match="without a three-dimensional cell"):
        read_structures(atoms, require=())


def test_unknown_key_and_label_names_are_refused():
    with pytest.raises(InputError, match=r"forces_key 'f_dft': not in structure 0 .* keys found: config_type, energy"):
        read_structures(labelled(), keys=LabelKeys(forces_key="f_dft"))
    with pytest.raises(InputError, match="'force' is not a label"):
        read_structures(labelled(), require=("force",))
    with pytest.raises(InputError, match="no structures"):
        read_structures([])
    with pytest.raises(InputError, match="not a int"):
        read_structures([1])  # type: ignore[list-item]


def test_bad_files_are_refused_by_name(tmp_path):
    write_structures(tmp_path / "good.extxyz", labelled(n=3))
    text = (tmp_path / "good.extxyz").read_text()
    lines = text.splitlines(keepends=True)
    packed = gzip.compress(text.encode())
    bad = {
        "empty.extxyz": (b"", r"empty \(0 bytes\)"),
        "blank.extxyz": (b"\n\n", "no frame in this file"),
        "cut.extxyz.gz": (packed[:-40], "cut off"),
        "plain.extxyz.gz": (text.encode(), "cannot be read"),
        "binary.extxyz": (b"\xff\xfe\x00", "not a text file"),
        "short.extxyz": ("".join(lines[:-2]).encode(), "frame 2: 4 atoms announced, but the file ends"),
        "missing.extxyz": ("".join(lines[:7] + lines[8:]).encode(), "frame 2|frame 1"),
        "number.extxyz": (text.replace("Cu ", "Qq ", 1).encode(), r"frame 0 \(line 1\)"),
        "word.extxyz": (b"hello\nworld\n", r"frame 0 \(line 1\): a number of atoms is expected, found 'hello'"),
        "negative.extxyz": (b"-2\n\n", "number of atoms"),
        "tiny.db": (b"x", "not a readable ASE database"),
        "broken.db": (b"SQLite format 3\0rubbish", "not a readable ASE database"),
        "rubbish.db": (b"rubbish", "not a readable ASE database"),
        "rubbish.cif": (b"rubbish", "cannot read this file|no frame"),
        "rubbish.unknown": (b"rubbish", "ASE cannot read this file"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            read_structures(tmp_path / name)
        assert name in str(caught.value)
        assert (tmp_path / name).read_bytes() == content
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"absent.extxyz: no such file"):
        read_structures(tmp_path / "absent.extxyz")
    with pytest.raises(InputError, match="no frame '7'; the file has 3"):
        read_structures(tmp_path / "good.extxyz", index="7")
    with pytest.raises(InputError, match="not an index"):
        read_structures(tmp_path / "good.extxyz", index="first")
    with pytest.raises(InputError, match="no structures"):
        write_structures(tmp_path / "none.extxyz", [])
    with pytest.raises(InputError, match=str(tmp_path.name)):
        read_structures(tmp_path)
