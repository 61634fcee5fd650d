"""Validated settings: the base of every group of options, and how YAML and ``key.sub=value`` become one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pretrain_mlip.errors import InputError


class Settings(BaseModel):
    """A group of options: every field has a default or is required, and a description; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)
    aliases: ClassVar[dict[str, str]] = {}  # other names of keys


S = TypeVar("S", bound=Settings)


def read_settings(kind: type[S], path: str | os.PathLike[str] | None = None, overrides: Iterable[str] = ()) -> S:
    """Settings of one kind from a YAML file (or from nothing) with ``key.sub=value`` overrides on top.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown (the nearest is suggested) or a value is wrong.
    """
    content = read_content(path, overrides, kind.aliases)
    return validate(kind, content, str(path) if path is not None else "settings")


def read_content(
    path: str | os.PathLike[str] | None = None, overrides: Iterable[str] = (), aliases: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a YAML file and overrides say, before it is known what kind of settings it is; aliases become their keys.

    Raises:
        InputError: the file is missing or not YAML, an override is malformed, or a key is there under two names.
    """
    aliases = aliases or {}
    content = {} if path is None else renamed(_read_yaml(Path(path)), aliases, str(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        _apply_override(content, f"{aliases.get(key.strip(), key)}{equals}{text}")
    return content


def renamed(content: Mapping[str, Any], aliases: Mapping[str, str], source: str) -> dict[str, Any]:
    """Settings with aliases replaced by their keys.

    Raises:
        InputError: a key is there under both names.
    """
    for alias, key in aliases.items():
        if alias in content and key in content:
            raise InputError(f"{source}: '{alias}' and '{key}' are the same; give one of them")
    return {aliases.get(key, key): value for key, value in content.items()}


def validate(kind: type[S], content: Mapping[str, Any], source: str = "settings") -> S:
    """Settings from a mapping.

    Raises:
        InputError: names each key at fault.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = "; ".join(_explain(kind, detail) for detail in error.errors())
        raise InputError(f"{source}: {lines}") from None


def to_yaml(settings: Settings) -> str:
    """Every value, defaults included, in the order of the fields."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def changes(then: Mapping[str, Any], now: Mapping[str, Any], shown: int = 8) -> str:
    """What differs between two mappings, key by key, for messages; empty where nothing does."""
    names = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    told = [f"{key} was {then.get(key)}, is {now.get(key)}" for key in names[:shown]]
    return "; ".join([*told, f"and {len(names) - shown} more"] if len(names) > shown else told)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: a mapping of keys to values is expected at the top, not a {type(content).__name__}")
    return content


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"'{override}': an override is written key=value or key.sub=value")
    *groups, last = key.strip().split(".")
    place = content
    for group in groups:
        inner = place.setdefault(group, {})
        if not isinstance(inner, dict):
            raise InputError(f"'{override}': '{group}' is a value, not a group of settings")
        place = inner
    try:
        place[last] = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise InputError(f"'{override}': not a valid value ({' '.join(str(error).split())})") from error


def _explain(kind: type[BaseModel], detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    name = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(kind, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"unknown key '{name}'; {hint}"
    if detail["type"] == "missing":
        return f"'{name}' is required"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = detail.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"'{name}': {message}{shown}" if name else message


def _fields_at(kind: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field = kind.model_fields.get(part)
        if field is None:
            continue
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                kind = candidate
                break
    return list(kind.model_fields)


def flattened(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups as ``group.sub.key`` and values."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    return {
        key: value
        for name, inner in content.items()
        for key, value in flattened(inner, f"{prefix}.{name}".strip(".")).items()
    }
