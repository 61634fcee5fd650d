"""Exported files give the numbers of their potential, and say what they are."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from tests.conftest import STRUCTURES
from tests.export_potentials import network, potential_named
from torch import Tensor

from pretrain_mlip import PretrainedMLIP, keys
from pretrain_mlip.deploy import exports
from pretrain_mlip.deploy.exports import write_export
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.ensemble import Ensemble
from pretrain_mlip.potentials.exported import Exported, evaluate, load_exported
from pretrain_mlip.potentials.ghosts import exchanging
from pretrain_mlip.potentials.networks import available_models
from pretrain_mlip.potentials.tracing import trace

# Number of exchanges, features of an atom in one, and how many cutoffs away the energy of an atom depends on others
EXCHANGES = {"cgcnn": (2, 16, 3), "m3gnet": (1, 16, 2), "torchmd_net": (3, 48, 3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def exported(folder: Path, name: str, suffix: str = ".ts.pt", dtype: str | None = None) -> Path:
    path = folder / f"{name.replace(' ', '')}-{dtype}{suffix}"
    if not path.exists():
        write_export(potential_named(name), path, {".ts.pt": "torchscript", ".pt2": "pt2"}[suffix], dtype=dtype)
    return path


def check(path: Path, potential: Potential, structures: dict[str, Atoms]) -> None:
    ours, found = PretrainedMLIP(potential), PretrainedMLIP.load(path)
    for name, atoms in structures.items():
        results = []
        for calculator in (ours, found):
            calculator.calculate(atoms.copy())
            results.append(calculator.results)
        for key, expected in results[0].items():
            if key.endswith("_std"):
                assert key not in results[1]
                continue
            # the same operations in float64, in another order; energies are of some hundred eV
            np.testing.assert_allclose(results[1][key], expected, rtol=1e-12, atol=1e-11, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", ["e0", "eam", "ensemble", *available_models(), "eam + m3gnet"])
def test_torchscript(folder: Path, name: str) -> None:
    check(exported(folder, name), potential_named(name), STRUCTURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eam", "torchmd_net", "eam + m3gnet"])
def test_compiled_packages(folder: Path, name: str) -> None:
    check(exported(folder, name, ".pt2"), potential_named(name), STRUCTURES)


@pytest.mark.slow
def test_a_package_for_two_threads(tmp_path: Path) -> None:
    """Whose sums are an operator of ours; those that torch 2.13 makes are wrong there."""
    potential = network("torchmd_net")
    write_export(potential, tmp_path / "two.pt2", "pt2", threads=2)
    check(tmp_path / "two.pt2", potential, STRUCTURES)


@pytest.mark.parametrize("name", available_models())
def test_single_precision(folder: Path, name: str) -> None:
    path = exported(folder, name, dtype="float32")
    assert load_exported(path).info.dtype == "float32"
    atoms = STRUCTURES["triclinic"]
    expected, found = PretrainedMLIP(potential_named(name)), PretrainedMLIP.load(path)
    expected.calculate(atoms)
    found.calculate(atoms)
    # rounding to 24 bits of numbers of order one to ten
    np.testing.assert_allclose(found.results["forces"], expected.results["forces"], atol=1e-4)
    assert abs(found.results["energy"] - expected.results["energy"]) < 1e-4 * len(atoms)
    assert next(potential_named(name).parameters()).dtype == torch.float64  # the potential is not changed


def with_images(atoms: Atoms, cutoff: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edges of the atoms of a cell to ghosts, one for each image within reach, and the atom that each row is of."""
    graph = make_graph(atoms, cutoff)
    neighbour, centre = graph[keys.EDGE_INDEX]
    image = torch.cat([neighbour[:, None], graph[keys.CELL_SHIFTS].to(torch.int64)], dim=1)
    home = torch.cat([torch.arange(len(atoms))[:, None], torch.zeros(len(atoms), 3, dtype=torch.int64)], dim=1)
    ghosts = torch.unique(image[(image[:, 1:] != 0).any(1)], dim=0)
    row_of = {tuple(key): row for row, key in enumerate(torch.cat([home, ghosts]).tolist())}
    rows = torch.tensor([row_of[tuple(key)] for key in image.tolist()])
    return torch.stack([rows, centre]), edge_vectors(graph), torch.cat([home, ghosts])[:, 0], graph[keys.EDGE_INDEX]


@pytest.mark.parametrize("name", ["eam", *available_models(), "eam + m3gnet"])
def test_features_of_ghosts_come_from_their_owners(folder: Path, name: str) -> None:
    """Every periodic image is a ghost here, as in a simulation code; each edge of an own atom is there, no other."""
    potential = potential_named(name)
    atoms = STRUCTURES["triclinic"]
    edge_index, vectors, owner, folded = with_images(atoms, potential.cutoff)
    types = potential.types(torch.from_numpy(atoms.numbers))
    calls: list[tuple[int, int]] = []

    def from_owners(features: Tensor) -> Tensor:
        calls.append(tuple(features.shape))  # type: ignore[arg-type]
        return features[owner]

    def to_owners(gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient).index_add(0, owner, gradient)

    expected = potential.energies_and_gradient(types, folded, vectors)
    file = load_exported(exported(folder, name))
    with exchanging(from_owners, to_owners):
        energies, gradient = evaluate(file.function, file.cutoff, types[owner], edge_index, vectors, len(atoms))
    torch.testing.assert_close(energies[: len(atoms)], expected[0], rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-12, atol=1e-11)
    assert float(energies[len(atoms) :].abs().sum()) == 0.0
    number, width, layers = EXCHANGES.get(name.removeprefix("eam + "), (0, 0, 1))
    assert (int(file.info.layers), int(file.info.exchange_width)) == (layers, width)
    assert len(calls) == number
    assert all(shape[0] == len(owner) for shape in calls)
    if number:  # without it the numbers would be others
        wrong, _ = evaluate(file.function, file.cutoff, types[owner], edge_index, vectors, len(atoms))
        assert float((wrong[: len(atoms)] - expected[0]).abs().max()) > 1e-3


def test_what_a_file_says_of_itself(folder: Path) -> None:
    info = load_exported(exported(folder, "m3gnet")).info
    assert (info.elements, info.cutoff, info.dtype, info.units) == ("O Si", "4.5", "float64", "eV, Å")
    assert info.torch == torch.__version__


@pytest.mark.slow
def test_packages_of_other_versions_of_torch_are_not_run(folder: Path, tmp_path: Path) -> None:
    """Its metadata is changed; the code inside is never loaded."""
    path = tmp_path / "other.pt2"
    with zipfile.ZipFile(exported(folder, "eam", ".pt2")) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("_metadata.json"):
                texts = json.loads(content) | {"pretrain_mlip_torch": "2.0.1"}
                content = json.dumps(texts).encode()
            elif name.endswith(".so"):
                content = b"not a library"
            new.writestr(name, content)
    with pytest.raises(InputError, match=r"other\.pt2: made with torch 2\.0\.1, and this is .*; export it again"):
        load_potential(path)


def test_damaged_and_foreign_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.pt2: no such file"):
        load_potential(tmp_path / "no.pt2")
    content = exported(folder, "eam").read_bytes()
    for size in (0, 1000, len(content) // 2, len(content) - 10):
        (tmp_path / "cut.ts.pt").write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut\.ts\.pt: truncated or damaged"):
            load_potential(tmp_path / "cut.ts.pt")
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    (tmp_path / "flipped.ts.pt").write_bytes(flipped)
    with pytest.raises(InputError, match=r"flipped\.ts\.pt: truncated or damaged \(.*\); export it again"):
        load_potential(tmp_path / "flipped.ts.pt")
    save_potential(tmp_path / "checkpoint.ts.pt", potential_named("cgcnn"))
    with pytest.raises(InputError, match=r"checkpoint\.ts\.pt: not a readable export"):
        load_potential(tmp_path / "checkpoint.ts.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "theirs.ts.pt"))
    with pytest.raises(InputError, match=r"theirs\.ts\.pt: not exported by pretrain-mlip"):
        load_potential(tmp_path / "theirs.ts.pt")


def test_code_that_gives_other_numbers_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = network("cgcnn", seed=5)

    monkeypatch.setattr(exports, "trace", lambda _, **options: trace(other, **options))
    with pytest.raises(
        ComputationError, match=r"x\.ts\.pt: not written, since the exported code is wrong: energies differ by \d"
    ):
        write_export(network("cgcnn"), tmp_path / "x.ts.pt", "torchscript")
    assert not list(tmp_path.iterdir())


def test_a_small_fault_beside_large_reference_energies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 µeV an atom, which a tolerance relative to energies of -400 eV would let pass."""

    def raised(energy: float) -> SumPotential:
        network_and_references = ReferenceEnergies({"O": -430.0 + energy, "Si": -160.0})
        return SumPotential([network_and_references, network("cgcnn")])

    monkeypatch.setattr(exports, "trace", lambda _, **options: trace(raised(1e-5), **options))
    with pytest.raises(ComputationError, match=r"energies differ by 1\.0e-05"):
        write_export(raised(0.0), tmp_path / "x.ts.pt", "torchscript")


def test_what_cannot_be_exported(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    potential = potential_named("cgcnn")
    with pytest.raises(InputError, match=r"model\.pt: a file of format torchscript is to end in \.ts\.pt"):
        write_export(potential, tmp_path / "model.pt", "torchscript")
    with pytest.raises(InputError, match="format 'onnx': expected one of torchscript, pt2"):
        write_export(potential, tmp_path / "model.onnx", "onnx")
    with pytest.raises(InputError, match="dtype 'half'"):
        write_export(potential, tmp_path / "model.ts.pt", "torchscript", dtype="half")
    with pytest.raises(InputError, match="threads 0"):
        write_export(potential, tmp_path / "model.pt2", "pt2", threads=0)
    with pytest.raises(InputError, match="threads are for format pt2"):
        write_export(potential, tmp_path / "model.ts.pt", "torchscript", threads=2)
    again = load_potential(exported(folder, "cgcnn"))
    with pytest.raises(InputError, match=r"an exported file, which holds code .* give the checkpoint"):
        write_export(again, tmp_path / "model.ts.pt", "torchscript")
    with pytest.raises(InputError, match="holds code"):
        save_potential(tmp_path / "model.pt", again)
    mixed = Ensemble([network("cgcnn"), network("cgcnn", cutoff=5.0)])
    with pytest.raises(InputError, match="differ in their cutoff"):
        write_export(mixed, tmp_path / "model.ts.pt", "torchscript")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        write_export(potential, tmp_path / "model.pt2", "pt2")
    assert not list(tmp_path.iterdir())


def test_exported_files_have_one_precision_and_no_training(folder: Path) -> None:
    path = exported(folder, "cgcnn")
    assert isinstance(load_potential(path), Exported)
    PretrainedMLIP.load(path, dtype="float64")
    with pytest.raises(InputError, match=r"exported in float64; export it in the precision"):
        PretrainedMLIP.load(path, dtype="float32")
    potential = load_potential(path)
    with pytest.raises(InputError, match="cannot be trained"):
        potential(make_graph(STRUCTURES["quartz"], potential.cutoff), create_graph=True)


@pytest.mark.parametrize("what", ["gradients", "energies"])
def test_every_number_is_compared(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, and energies of structures of every size."""

    def spoiled(path: Path) -> Exported:
        found = load_exported(path)

        def function(types: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            energies, gradient = found.function(types, *rest)
            if what == "gradients":
                gradient = gradient * 1.001
            elif len(types) > 8:
                energies = energies + 1e-3
            return energies, gradient

        return Exported(found.path, found.info, function)

    monkeypatch.setattr(exports, "load_exported", spoiled)
    with pytest.raises(ComputationError, match=f"{what} differ by"):
        write_export(network("cgcnn"), tmp_path / "x.ts.pt", "torchscript")
