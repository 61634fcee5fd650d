"""Finetuning from weights that come from elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms

from pretrain_mlip import build_model
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.config import RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.foundation import read_foundation, reconciled, references_of, with_elements
from pretrain_mlip.pipeline.run import resume_pipeline, run_pipeline
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.zbl import ZBL
from pretrain_mlip.report.results import Results
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import labels_of
from pretrain_mlip.structures.labels import set_labels

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = {
    "cgcnn": {"width": 8, "convolutions": 2, "gaussians": 8},
    "m3gnet": {"width": 8, "edge_width": 8, "hidden_width": 8, "blocks": 1},
    "torchmd_net": {"width": 8, "layers": 1, "heads": 2, "radial": 8},
}
RUN = """
data: {source: silica_mini, split: {n_train: 6, n_val: 3, n_test: 3}}
eam: {starts: 1, screening_iterations: 5, max_iterations: 15}
perturbation: {rounds: 1, copies: 1}
training: {epochs: 2, batch_size: 4}
stability: null
rdf: null
verification: null
workers: 1
"""


def network(name: str, elements: list[str]) -> Potential:
    return build_model(name, elements, seed=1, **SMALL[name])


@pytest.mark.parametrize("name", list(SMALL))
def test_weights_go_with_their_element(name: str) -> None:
    wide = network(name, ["H", "O", "Al", "Si"])
    narrow = with_elements(wide, ["Si", "O"], "subset", "wide")
    frames = load_dataset("silica_mini")[:3]
    assert narrow.elements == ("Si", "O")
    for one, other in zip(predict(wide, frames), predict(narrow, frames), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-4)  # float32, other orders of sums
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-5)


@pytest.mark.parametrize("name", list(SMALL))
def test_added_elements_have_finite_energies_and_the_others_keep_theirs(name: str) -> None:
    before = network(name, ["O", "Si"])
    after = with_elements(before, ["O", "Al", "Si"], "any", "before")
    frames = load_dataset("silica_mini")[:2]
    for one, other in zip(predict(before, frames), predict(after, frames), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-4)
    (alloy,) = predict(after, [Atoms("AlO", positions=[[0, 0, 0], [0, 0, 1.7]])])
    assert np.isfinite(alloy.forces).all()


@pytest.mark.parametrize(
    ("elements", "match", "words"),
    [
        (["O"], "same", "1 elements that the data lack .Si."),
        (["O", "Si", "Al"], "same", "knows nothing of Al"),
        (["O", "Al"], "subset", "knows nothing of Al"),
    ],
)
def test_other_elements_are_refused_unless_asked_for(elements: list[str], match: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        with_elements(network("cgcnn", ["O", "Si"]), elements, match, "weights.pt")


def test_reference_energies_take_up_the_difference_of_the_sources() -> None:
    model = network("cgcnn", ["O", "Si"])
    rng = np.random.default_rng(0)
    frames = []
    for count in range(1, 7):
        atoms = Atoms(f"O{count}Si2", positions=rng.uniform(0, 6, (count + 2, 3)), cell=[9, 9, 9], pbc=True)
        (found,) = predict(model, [atoms])
        set_labels(atoms, found.energy - 432.0 * count - 108.0 * 2, None)
        frames.append(atoms)
    potential = reconciled(model, frames)
    for atoms, found in zip(frames, predict(potential, frames), strict=True):
        assert found.energy == pytest.approx(labels_of(atoms).energy, abs=1e-3)
    assert references_of(potential).energies() == pytest.approx({"O": -432.0, "Si": -108.0}, abs=1e-3)
    given = reconciled(model, frames, {"Si": -100.0, "H": -13.6})
    (alone,) = predict(given, [Atoms("Si")])
    assert alone.energy == pytest.approx(-100.0, abs=1e-5)


def test_a_potential_with_other_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sum.pt"
    model = network("cgcnn", ["O", "Si"])
    save_potential(path, SumPotential([ZBL(["O", "Si"]), model]))
    with pytest.raises(InputError, match="one network beside reference energies, and this is zbl, cgcnn"):
        read_foundation(path)


@pytest.mark.parametrize(("path", "kind"), [("m3gnet", "m3gnet"), ("torchmd_net", "torchmd_net")])
def test_reads_what_others_wrote(path: str, kind: str) -> None:
    (source,) = list((FIXTURES / path).glob("*.ckpt"))[:1] or [next((FIXTURES / path).glob("*/model.json")).parent]
    assert read_foundation(source).kind == kind


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation")
    start = folder / "start.pt"
    model = network("m3gnet", ["H", "O", "Si"])
    save_potential(start, SumPotential([ReferenceEnergies({"H": -1.0, "O": -2.0, "Si": -3.0}), model]))
    content = yaml.safe_load(RUN) | {
        "output": str(folder / "run"),
        "strategies": ["vanilla", "finetune", "replay", "delta"],
        "finetuning": {"start": str(start), "elements": "subset"},
    }
    run_pipeline(RunConfig.model_validate(content))
    start.unlink()
    return folder / "run"


def test_a_run_takes_its_network_and_its_start_from_the_checkpoint(run: Path) -> None:
    results = Results.read(run)
    assert list(results.errors or {}) == ["eam", "foundation", "vanilla", "finetune", "replay", "delta"]
    assert (results.config or {})["model"]["name"] == "m3gnet"
    assert not (run / "models" / "pretrain").exists()
    log = (run / "log.txt").read_text()
    assert "finetune starts from a pretrained network; errors on the validation set before training" in log
    foundation, finetuned = (load_potential(RunFolder(run).potential(name)) for name in ("foundation", "finetune"))
    assert references_of(foundation).energies() == references_of(finetuned).energies()
    # Within two epochs weights have moved, but not far from where they were
    start, end = (dict(part.named_parameters())["parts.1.embedding.weight"] for part in (foundation, finetuned))
    assert 0 < float((start - end).norm()) < 0.2 * float(start.norm())


def test_goes_on_without_the_file(run: Path) -> None:
    before = Results.read(run).errors
    shutil.rmtree(run / "models" / "finetune")
    (run / "results.json").unlink()
    resume_pipeline(run)
    assert Results.read(run).errors == before


def test_another_network_than_that_of_the_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.pt"
    shutil.copy(RunFolder(run).foundation, start)
    content = yaml.safe_load(RUN) | {"output": str(tmp_path / "run"), "finetuning": {"start": str(start)}}
    for model in ({"name": "cgcnn"}, {"hyperparameters": {"width": 16}}):
        with pytest.raises(InputError, match="leave out 'model'"):
            run_pipeline(RunConfig.model_validate(content | {"model": model}))
    with pytest.raises(InputError, match="no such file"):
        run_pipeline(RunConfig.model_validate(content | {"finetuning": {"start": str(tmp_path / "none.pt")}}))
