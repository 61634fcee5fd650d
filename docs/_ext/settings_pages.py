"""Pages of the configuration, strategies, networks' hyperparameters and results.json, from the models in the code."""

from __future__ import annotations

import inspect
import sys
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from markdown import code, page, table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pretrain_mlip.config import RunConfig
from pretrain_mlip.potentials.networks import available_models, model_class
from pretrain_mlip.report.results import Results
from pretrain_mlip.report.study import StudyResults
from pretrain_mlip.settings import to_yaml
from pretrain_mlip.training import stages

SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
MINIMAL = {"data": "my_dft.extxyz"}  # what has no default
INTRODUCTION = """A configuration is a YAML file; what it leaves out keeps the default below. `key.sub=value` on the
command line changes a single setting. An unknown key is an error that suggests the nearest known one. Every run writes
the whole of it, defaults included, into its `config.yaml`."""
WHOLE = """## All defaults

What the one line `data: my_dft.extxyz` stands for (a run fills in the hyperparameters of the network as well):"""
RESULTS = """`results.json` holds everything that a run found out; `report.html` is drawn from it and from nothing else.
Sections that a run did not make are absent. Numbers that are not finite are `null`. A *model* is the name of a strategy
or `eam`; a *pair* is two sorted symbols, such as `O-Si`. Units are eV, Å, ps and K unless a line says otherwise."""


def configuration_page() -> str:
    """Every setting of a run: key, type, default, description."""
    config = RunConfig.model_validate(MINIMAL)
    sections = [_settings_section("", config), *_groups("", config)]
    return page("# Configuration\n", INTRODUCTION + "\n", *sections, WHOLE + "\n", code(to_yaml(config), "yaml"))


def strategies_page() -> str:
    """Every strategy: labels, baseline, starting weights, and the words of its module."""
    labels = {"dft": "DFT", "eam": "EAM, of perturbed structures"}
    baselines = {"e0": "reference energies", "eam": "the EAM"}
    rows = [
        [f"`{name}`", labels[s.labels], baselines[s.baseline], f"`{s.start}`" if s.start else "random weights"]
        for name, s in stages.STRATEGIES.items()
    ]
    headings = ["strategy", "labels", "added to the network", "starts from"]
    return page("# Strategies\n", table(headings, rows), code(inspect.getdoc(stages) or "", "text"))


def networks_page() -> str:
    """Every network: what its file says, and its hyperparameters."""
    blocks = []
    for name in available_models():
        network = model_class(name)
        text = inspect.getdoc(sys.modules[network.__module__]) or ""
        rates = (
            f"Learning rates where `learning_rate` is null: {network.learning_rate:g} from fresh weights, "
            f"{network.finetuning_rate:g} in finetuning.\n\n"
        )
        blocks.append(f"## {name}\n\n{code(text, 'text')}\n{rates}" + _settings_table("", network.settings_class()))
    introduction = "`model.name` chooses one of these, `model.hyperparameters` sets what its table lists.\n"
    return page("# Networks\n", introduction, *blocks)


def results_page() -> str:
    """The schema of results.json."""
    schemas: dict[str, type[BaseModel]] = {}
    _collect(Results, schemas)
    _collect(StudyResults, schemas)
    blocks = []
    for name, model in schemas.items():
        rows = [
            [f"`{key}`", _schema_type(field.annotation), _sentence(field.description)]
            for key, field in model.model_fields.items()
        ]
        title = {Results: "The file", StudyResults: "The file of a study"}.get(model, name)
        blocks.append(
            f"(results-{name.lower()})=\n## {title}\n\n{inspect.getdoc(model) or ''}\n\n"
            + table(["key", "type", "what"], rows)
        )
    return page("# results.json\n", RESULTS + "\n", *blocks)


def _groups(prefix: str, settings: BaseModel) -> list[str]:
    sections = []
    for key in type(settings).model_fields:
        value = _group(settings, key)
        if value is not None:
            path = f"{prefix}{key}"
            sections += [_settings_section(path, value), *_groups(path + ".", value)]
    return sections


def _group(settings: BaseModel, key: str) -> BaseModel | None:
    """A group of settings in a field; one that is null by default with what it would hold."""
    value = getattr(settings, key)
    if isinstance(value, BaseModel):
        return value
    kinds = get_args(type(settings).model_fields[key].annotation)
    kind = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    if kind is None:
        return None
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    return kind.model_construct(**dict.fromkeys(required))


def _settings_section(path: str, settings: BaseModel) -> str:
    anchor = path.replace(".", "-") or "top-level"
    title = f"`{path}`" if path else "Top level"
    prefix = f"{path}." if path else ""
    words = inspect.getdoc(type(settings))
    return f"(settings-{anchor})=\n## {title}\n\n{words}\n\n{_settings_table(prefix, settings)}"


def _settings_table(prefix: str, settings: BaseModel) -> str:
    rows = []
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if _group(settings, key) is not None:
            anchor = f"settings-{(prefix + key).replace('.', '-')}"
            shown, default = "group" + (" or null" if _optional(field) else ""), f"[see below](#{anchor})"
            if value is None:
                default = f"`null`; [the group](#{anchor})"
        else:
            shown = _type(field.annotation) + _limits(field)
            default = "required" if field.is_required() else f"`{_yaml(value)}`"
        rows.append([f"`{prefix}{key}`", shown, default, _sentence(field.description)])
    return table(["key", "type", "default", "what"], rows)


def _type(annotation: Any) -> str:
    """The type of a setting, as a person who writes YAML thinks of it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _type(part) for part in inner)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return "mapping"
    names = {float: "number", int: "whole number", bool: "true or false", str: "text"}
    return names.get(annotation, "any")


def _limits(field: FieldInfo) -> str:
    parts = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in SIGNS.items()
        if getattr(limit, name, None) is not None
    ]
    return ", " + ", ".join(parts) if parts else ""


def _optional(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def _yaml(value: Any) -> str:
    """A value as it is written in YAML, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...", "").strip()


def _sentence(text: str | None) -> str:
    """With a capital, unless it begins with a value: "cpu, cuda, or auto", "given: by info 'split'"."""
    text = (text or "").strip().rstrip(".")
    begins_with_value = text.startswith("cpu,") or text.split(" ")[0].endswith(":")
    return text if begins_with_value else text[:1].upper() + text[1:]


def _collect(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> None:
    found[model.__name__] = model
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part.__name__ not in found:
                _collect(part, found)


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(inner for part in get_args(annotation) for inner in _parts(part))]


def _schema_type(annotation: Any) -> str:
    """The type of a key of results.json, with links to the sections that it is made of."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#results-{annotation.__name__.lower()})"
    if origin is dict:
        return f"{{{_schema_type(inner[0])}: {_schema_type(inner[1])}}}"
    if origin is list:
        return f"[{_schema_type(inner[0])}, ...]" if inner[0] is not Any else "[...]"
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _schema_type(part) for part in inner)
    if annotation is Any:
        return "any"
    return _type(annotation)
