"""Training, validation and test sets in which copies of one structure never end on two sides."""

from __future__ import annotations

import fnmatch
import hashlib
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field
from scipy.cluster.hierarchy import DisjointSet

from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, ISOLATED_ATOM, PARENT, SPLIT, SPLITS, STRUCTURE_ID
from pretrain_mlip.settings import Settings
from pretrain_mlip.structures.io import SOURCE, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

logger = logging.getLogger(__name__)
_OTHER_NAMES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


class SplitSettings(Settings):
    """How frames are divided into training, validation and test sets."""

    method: Literal["auto", "given", "random", "group"] = Field(
        default="auto",
        description="given: by info 'split'; group: by group_key; random: by frame, but copies of one parent together; "
        "auto: given where every frame has a split, else group where a frame has the key, else random",
    )
    group_key: str = Field(default=PARENT, description="info key whose equal values stay together (group)")
    train: float = Field(default=0.8, gt=0, description="share of training frames; shares are divided by their sum")
    val: float = Field(default=0.1, gt=0, description="share of validation frames")
    test: float = Field(default=0.1, ge=0, description="share of test frames")
    seed: int = Field(default=0, ge=0, description="seed of the choice; it does not depend on the order of the frames")
    hold_out: list[str] = Field(
        default=[],
        description="kinds (config_type, with * and ?) that are only tested on, whatever the method: what a potential "
        "makes of structures unlike those it was trained on",
    )
    n_train: int | None = Field(default=None, ge=1, description="at most this many training frames, chosen by the seed")
    n_val: int | None = Field(default=None, ge=1, description="at most this many validation frames")
    n_test: int | None = Field(default=None, ge=0, description="at most this many test frames")


class Splits(NamedTuple):
    """Disjoint lists of structures, each in the order in which they came, with info 'split' set."""

    train: list[Atoms]
    val: list[Atoms]
    test: list[Atoms]


def split_structures(frames: Sequence[Atoms], settings: SplitSettings | None = None) -> Splits:
    """Divide frames into training, validation and test sets.

    Isolated atoms always go to the training set. A given split without validation frames gives up some of its training
    frames for it, as many as the shares say. Frames without a place after a limit (n_train and the like) are left out.

    Raises:
        InputError: no frame is left for training or validation, copies of one parent are given on two sides, or an
            element is missing from the training set.
    """
    settings = settings or SplitSettings()
    isolated = [n for n, atoms in enumerate(frames) if atoms.info.get(CONFIG_TYPE) == ISOLATED_ATOM]
    held_out = _held_out(frames, settings.hold_out)
    places = [n for n in range(len(frames)) if n not in {*isolated, *held_out}]
    if not places:
        raise InputError("no frame to split; isolated atoms or kinds held out cannot train or validate a potential")
    method = _method(frames, places, settings)
    logger.info("split of %d frames: %s", len(places), method)
    ranks = {n: _rank(frames[n], settings.seed) for n in [*places, *held_out]}
    _refuse_divided(frames, places, held_out, ranks)
    sides = _given(frames, places, ranks, settings) if method == "given" else {}
    if method != "given":
        key = settings.group_key if method == "group" else None
        shares = {"train": settings.train, "val": settings.val, "test": settings.test}
        sides = _divide(frames, _families(frames, places, key, ranks), shares, ranks)
    chosen = {side: sorted(n for n in places if sides[n] == side) for side in SPLITS}
    chosen["test"] = sorted([*chosen["test"], *held_out])
    limits = {"train": settings.n_train, "val": settings.n_val, "test": settings.n_test}
    for side, limit in limits.items():
        if limit is not None:
            chosen[side] = sorted(sorted(chosen[side], key=ranks.__getitem__)[:limit])
    for side in ("train", "val"):
        if not chosen[side]:
            raise InputError(
                f"no frame is left for '{side}' ({len(places)} frames in all); add frames or change the split"
            )
    if settings.test > 0 and not chosen["test"]:
        logger.warning("too few frames or groups for a test set; errors will be known on validation frames only")
    chosen["train"] = sorted(chosen["train"] + isolated)
    _check_elements(frames, chosen)
    return Splits(*([_marked(frames[n], side) for n in chosen[side]] for side in SPLITS))


def _held_out(frames: Sequence[Atoms], patterns: Sequence[str]) -> list[int]:
    kinds = {str(atoms.info.get(CONFIG_TYPE, "")) for atoms in frames} - {ISOLATED_ATOM}
    matched = {pattern: set(fnmatch.filter(kinds, pattern)) for pattern in patterns}
    for pattern, found in matched.items():
        if not found:
            raise InputError(
                f"hold_out: no frame has a config_type like '{pattern}'; there are {', '.join(sorted(kinds))}"
            )
    held = set().union(*matched.values())
    return [n for n, atoms in enumerate(frames) if str(atoms.info.get(CONFIG_TYPE, "")) in held]


def _refuse_divided(frames: Sequence[Atoms], places: list[int], held_out: list[int], ranks: dict[int, str]) -> None:
    """Copies of one parent must not be trained on while others are held out."""
    held = set(held_out)
    for family in _families(frames, [*places, *held_out], None, ranks) if held else ():
        out = [n for n in family if n in held]
        if 0 < len(out) < len(family):
            raise InputError(
                f"{name_of(frames[out[0]], out[0])}: hold_out separates it from its parent or other copies; "
                "hold out their kinds as well"
            )


def _method(frames: Sequence[Atoms], places: list[int], settings: SplitSettings) -> str:
    if settings.method != "auto":
        return settings.method
    if all(SPLIT in frames[n].info for n in places):
        return "given"
    marked = [n for n in places if SPLIT in frames[n].info]
    if marked:
        bare = next(n for n in places if SPLIT not in frames[n].info)
        raise InputError(
            f"{name_of(frames[bare], bare)}: no info 'split', but {len(marked)} of {len(places)} frames have one; "
            "complete it, or choose method=random or method=group"
        )
    return "group" if any(settings.group_key in frames[n].info for n in places) else "random"


def _given(
    frames: Sequence[Atoms], places: list[int], ranks: dict[int, str], settings: SplitSettings
) -> dict[int, str]:
    sides: dict[int, str] = {}
    for n in places:
        value = frames[n].info.get(SPLIT)
        if value is None:
            count = sum(SPLIT not in frames[m].info for m in places)
            raise InputError(f"{name_of(frames[n], n)}: no info 'split' ({count} frames have none); use another method")
        sides[n] = _OTHER_NAMES.get(str(value).lower(), str(value).lower())
        if sides[n] not in SPLITS:
            raise InputError(f"{name_of(frames[n], n)}: split '{value}' is unknown; it can be {', '.join(SPLITS)}")
    families = _families(frames, places, None, {})
    for family in families:
        both = sorted({sides[n] for n in family})
        if len(both) > 1:
            parent = next(frames[n].info[PARENT] for n in family if PARENT in frames[n].info)
            raise InputError(
                f"copies of parent '{parent}' are given on two sides ({', '.join(both)}): "
                f"{name_of(frames[family[0]], family[0])} and others; put them on one, or use method=group"
            )
    if "val" not in sides.values():
        logger.warning("the given split has no validation frames: they are taken from the training frames")
        training = [n for n in places if sides[n] == "train"]
        shares = {"train": settings.train, "val": settings.val}
        sides.update(_divide(frames, _families(frames, training, None, ranks), shares, ranks))
    return sides


def _families(frames: Sequence[Atoms], places: list[int], key: str | None, ranks: dict[int, str]) -> list[list[int]]:
    """Frames that have to stay together: same parent, parent and copy, same group, or equal positions."""
    parents = {str(frames[n].info[PARENT]) for n in places if PARENT in frames[n].info}
    links: DisjointSet = DisjointSet(places)
    first: dict[tuple[str, str], int] = {}
    for n in places:
        info = frames[n].info
        names = [str(info[k]) for k in (PARENT, STRUCTURE_ID, SOURCE) if k in info]
        tokens = [("name", name) for name in names if name in parents]
        if n in ranks:
            tokens.append(("content", ranks[n]))
        if key is not None and key in info:
            tokens.append(("group", str(info[key])))
        elif key is not None and key != PARENT:
            raise InputError(f"{name_of(frames[n], n)}: no info '{key}' to group by; use another group_key or method")
        for token in tokens:
            links.merge(first.setdefault(token, n), n)
    return [sorted(family) for family in links.subsets()]


def _divide(
    frames: Sequence[Atoms], families: list[list[int]], shares: dict[str, float], ranks: dict[int, str]
) -> dict[int, str]:
    """Give whole families to the side that lacks most frames, large ones first; training gets every element."""
    # Ranks are hashes of seed and content, so that neither the order nor the number of frames shuffles the choice.
    families = sorted(families, key=lambda family: (-len(family), min(ranks[n] for n in family)))
    total, scale = sum(map(len, families)), sum(shares.values())
    lacking = {side: total * share / scale for side, share in shares.items()}
    members: dict[str, list[list[int]]] = defaultdict(list)

    def give(family: list[int], side: str) -> None:
        members[side].append(family)
        lacking[side] -= len(family)

    needed = {symbol for family in families for n in family for symbol in frames[n].symbols}
    waiting = []
    for family in families:
        elements = {symbol for n in family for symbol in frames[n].symbols}
        if elements & needed:
            needed -= elements
            give(family, "train")
        else:
            waiting.append(family)
    for family in waiting:
        give(family, max(lacking, key=lambda side: lacking[side]))
    free = {family[0] for family in waiting}
    for side in ("val", "test"):
        # Few or large families: validation comes before test, and training keeps at least one.
        spare = [family for family in members["train"] if family[0] in free]
        if shares.get(side) and not members[side] and spare and len(members["train"]) > 1:
            members["train"].remove(spare[-1])
            members[side].append(spare[-1])
    if not members["val"]:
        raise InputError(
            f"{total} frames in {len(families)} groups that must stay together or are needed for their elements: "
            "none is left for validation; add frames, or choose another group_key or method"
        )
    return {n: side for side, groups in members.items() for family in groups for n in family}


def _check_elements(frames: Sequence[Atoms], chosen: dict[str, list[int]]) -> None:
    bound = [n for n in chosen["train"] if frames[n].info.get(CONFIG_TYPE) != ISOLATED_ATOM]
    known = {symbol for n in bound for symbol in frames[n].symbols}
    for side in ("val", "test"):
        for n in chosen[side]:
            unknown = sorted(set(frames[n].symbols) - known)
            if unknown:
                raise InputError(
                    f"{name_of(frames[n], n)}: element {unknown[0]} is in the {side} set but in no training frame "
                    "(isolated atoms do not count); add training frames with it, or remove this frame"
                )


def _rank(atoms: Atoms, seed: int) -> str:
    content = hashlib.sha256(f"{seed}".encode())
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        content.update(array.tobytes())
    return content.hexdigest()


def _marked(atoms: Atoms, side: str) -> Atoms:
    marked = atoms.copy()
    marked.calc = atoms.calc
    marked.info[SPLIT] = side
    return marked
