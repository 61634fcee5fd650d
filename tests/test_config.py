"""Settings: files, overrides, and messages for what is wrong."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from pretrain_mlip.config import RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.pipeline.run import resolved
from pretrain_mlip.settings import read_settings, to_yaml
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.splits import split_structures
from pretrain_mlip.training.settings import TermSettings


def test_partial_override_keeps_the_other_defaults_of_its_group() -> None:
    config = read_settings(RunConfig, None, ["data=a.extxyz", "rdf.md.duration_ps=0.5", "training.loss.energy=3"])
    default = RunConfig.model_validate({"data": "a.extxyz"})
    assert config.rdf is not None
    assert default.rdf is not None
    assert config.rdf.md == default.rdf.md.model_copy(update={"duration_ps": 0.5})
    assert config.training.loss == default.training.loss.model_copy(update={"energy": TermSettings(weight=3.0)})
    part = read_settings(RunConfig, None, ["data=a.extxyz", "training.loss.stress.kind=l1"]).training.loss.stress
    assert (part.kind, part.weight) == ("l1", default.training.loss.stress.weight)


def test_ten_lines_are_enough(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "examples" / "own-data.yaml"
    assert len(path.read_text().splitlines()) <= 10
    config = read_settings(RunConfig, path)
    assert config.data.source == ["my_dft.extxyz"]
    (tmp_path / "resolved.yaml").write_text(to_yaml(config))
    assert read_settings(RunConfig, tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize("name", ["nickel", "zeolites"])
def test_examples_are_valid(name: str) -> None:
    config = read_settings(RunConfig, Path(__file__).parents[1] / "examples" / f"{name}.yaml")
    assert config.data.split.n_train == 300


def test_the_demonstration_trains_on_nothing_hotter_than_2000_kelvin_or_strained() -> None:
    with as_file(files("pretrain_mlip") / "data" / "demo.yaml") as path:
        config = read_settings(RunConfig, path, ["training.epochs=7"])
    assert config.training.epochs == 7
    assert config.data.source == ["silica_mini"]
    splits = split_structures(load_dataset("silica_mini"), config.data.split)
    trained = {str(atoms.info["config_type"]) for atoms in [*splits.train, *splits.val]}
    assert trained == {f"cristobalite_{kelvin}K" for kelvin in (300, 1000, 2000)} | {"glass_500K", "melt_2000K"}
    assert len(splits.test) > len(splits.train)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=a", "trainign.epochs=3"], "unknown key 'trainign'; did you mean 'training'?"),
        (["data=a", "training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (["data=a", "training.loss.force=3"], "did you mean 'forces'?"),
        (["data=a", "data.split.n_trian=3"], "'data' is a value, not a group"),
        (["data.source=a", "data.split.n_trian=3"], "did you mean 'n_train'?"),
        (["data=a", "training.epochs=many"], "'training.epochs': input should be a valid integer"),
        (["data=a", "training.epochs=0"], "greater than or equal to 1"),
        (["data=a", "training.learning_rate=.inf"], "finite number"),
        (["data=a", "strategies=[vanila]"], "strategies.0"),
        (["training.epochs=3"], "'data' is required"),
        (["data=a", "epochs"], "written key=value"),
        (["data=a", "=3"], "written key=value"),
        (["data=a", "output=[a"], "not a valid value"),
    ],
)
def test_messages(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_settings(RunConfig, None, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- a", "a mapping"), ("data: {sorce: a}", "source")]
)
def test_files_that_are_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_settings(RunConfig, tmp_path / "c.yaml")
    with pytest.raises(InputError, match="no such file"):
        read_settings(RunConfig, tmp_path / "absent.yaml")


def test_descriptions_are_written_alike() -> None:
    """Half a sentence: no capital at the start but of names, no full stop at the end; references print them in rows."""
    names = ("DFT", "Langevin", "E0", "L-BFGS")

    def check(kind: type[BaseModel], place: str) -> None:
        for name, field in kind.model_fields.items():
            words = field.description
            assert words, f"{place}.{name}: no description"
            assert words.startswith(names) or not words[0].isupper(), f"{place}.{name}: {words}"
            assert not words.endswith("."), f"{place}.{name}: {words}"
            for candidate in (field.annotation, *get_args(field.annotation)):
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    check(candidate, f"{place}.{name}")

    check(RunConfig, "run")


def test_parts_to_freeze_are_checked_before_anything_is_computed() -> None:
    config = RunConfig.model_validate({"data": "silica_mini", "finetuning": {"freeze": ["readuot"]}})
    with pytest.raises(InputError, match="'readuot' is no part of cgcnn; its parts are embedding"):
        resolved(config)
