"""Features of atoms that another process computes, asked for between the layers of a network.

A simulation code that divides space among processes gives each of them its own atoms and copies of those around, the
ghosts. All edges of its own atoms are known to a process, but not those of the ghosts: what a layer makes of a ghost,
its owner knows. Between two layers features travel from owners to ghosts, and in the derivative what was found for the
ghosts travels back to the owners, where it is summed. So every edge is computed once, by one process, however many
layers there are; without it each process would compute all that is within layers * cutoff of its atoms.

Both ways are operators of torch, ``pretrain_mlip::from_owners`` and ``pretrain_mlip::to_owners``, so that they stay in
a traced graph as what they are. Where nobody exchanges anything they change nothing. The pair style for LAMMPS
brings its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "pretrain_mlip"
Exchange = Callable[[Tensor], Tensor]

_asked_for: ContextVar[bool] = ContextVar("asked_for", default=False)
_exchanges: dict[str, Exchange] = {}


def of_owners(features: Tensor) -> Tensor:
    """Features of atoms (N, F) or (3, N, F), those of ghosts as their owners have them; the same without ghosts."""
    if not _asked_for.get():
        return features
    rows = features if features.dim() == 2 else features.transpose(0, 1).flatten(1)
    shared = torch.ops.pretrain_mlip.from_owners(rows)
    return shared if features.dim() == 2 else shared.unflatten(1, (features.shape[0], -1)).transpose(0, 1)


@contextmanager
def ghosts() -> Iterator[None]:
    """Networks that run within, traced or not, ask for the features of ghosts."""
    token = _asked_for.set(True)
    try:
        yield
    finally:
        _asked_for.reset(token)


@contextmanager
def exchanging(from_owners: Exchange, to_owners: Exchange) -> Iterator[None]:
    """Let features travel while exported code runs in Python.

    Args:
        from_owners: features (N, F) -> the same with the rows of ghosts replaced by those of their owners.
        to_owners: its adjoint: derivatives (N, F) -> those of ghosts added to their owners, and zero.
    """
    _exchanges.update(from_owners=from_owners, to_owners=to_owners)
    try:
        yield
    finally:
        _exchanges.clear()


def _implementation(name: str) -> Exchange:
    def run(features: Tensor) -> Tensor:
        exchange = _exchanges.get(name)
        return features.clone() if exchange is None else exchange(features)

    return run


def _backward(_: Any, gradient: Tensor) -> Tensor:
    return torch.ops.pretrain_mlip.to_owners(gradient)  # type: ignore[no-any-return]


def _register() -> torch.library.Library:
    """Make the operators known, unless the pair style in the same process has done so."""
    library = torch.library.Library(NAMESPACE, "FRAGMENT")
    for name in ("from_owners", "to_owners"):
        if not hasattr(getattr(torch.ops, NAMESPACE), name):
            library.define(f"{name}(Tensor features) -> Tensor")
        library.impl(name, _implementation(name), "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", torch.empty_like, lib=library)
    torch.library.register_autograd(f"{NAMESPACE}::from_owners", _backward, lib=library)
    return library


_LIBRARY = _register()
