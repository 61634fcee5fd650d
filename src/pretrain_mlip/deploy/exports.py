"""Writing potentials for programs that know torch, but nothing of this package.

What is written is described in ``potentials.exported``. Every file is read back and compared with the potential before
it is moved into place.
"""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from torch import fx

import pretrain_mlip
from pretrain_mlip import keys
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import atomic_path
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.potentials.base import DTYPES, Potential
from pretrain_mlip.potentials.compiled import COMPILER_OPTIONS, difference, find_compiler, repair_inductor, uncompiled
from pretrain_mlip.potentials.exported import PACKAGE, TORCHSCRIPT, Exported, ExportInfo, load_exported
from pretrain_mlip.potentials.tracing import export, script, trace

# Largest difference between an exported file and its potential, see ``difference``: other orders of summation give some
# 1e-15 in float64 and 1e-6 in float32
TOLERANCES = {"float64": 1e-6, "float32": 1e-5}
SUFFIXES = {"torchscript": TORCHSCRIPT, "pt2": PACKAGE}


def write_export(
    potential: Potential,
    path: str | os.PathLike[str],
    file_format: str,
    *,
    dtype: str | None = None,
    threads: int = 1,
) -> ExportInfo:
    """Write a potential as TorchScript or as an AOTInductor package.

    Args:
        potential: any potential of ours; it is not changed.
        path: ends in ``.ts.pt`` or ``.pt2``.
        file_format: "torchscript" or "pt2"; the latter is compiled, which takes a minute and a C++ compiler.
        dtype: "float32" or "float64" for networks; None keeps theirs.
        threads: that the code of a pt2 file will run on, in each process.

    Returns:
        What the file says of itself.

    Raises:
        InputError: the format or the precision is unknown, the name does not end as it should, the number of threads is
            not positive, or not 1 for TorchScript, the potential cannot be traced, or there is no C++ compiler.
        ComputationError: what was written gives other numbers than the potential; no file is left.
    """
    suffix = _checked_suffix(path, file_format)
    if threads < 1:
        raise InputError(f"threads {threads}: expected 1 or more")
    if threads > 1 and suffix != PACKAGE:
        raise InputError("threads are for format pt2; TorchScript runs on as many as the program gives torch")
    potential = in_precision(potential, dtype)
    graph = trace(potential, with_ghosts=True, threads=threads)
    info = _describe(potential, graph, threads)
    with atomic_path(path) as temporary:
        if suffix == PACKAGE:
            _write_package(graph, potential, temporary, info)
        else:
            _write_torchscript(graph, temporary, info)
        _compare(potential, load_exported(temporary), path)
    return info


def in_precision(potential: Potential, dtype: str | None) -> Potential:
    """A copy of a potential on the CPU, frozen, in a precision.

    Raises:
        InputError: the precision is unknown, or the potential was exported before.
    """
    if isinstance(potential, Exported):
        potential.config()  # raises
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype '{dtype}': expected one of {', '.join(DTYPES)}")
    copied = copy.deepcopy(uncompiled(potential)).cpu().eval().requires_grad_(False)  # noqa: FBT003
    if dtype is not None:
        copied.set_dtype(DTYPES[dtype])
    return copied


def _checked_suffix(path: str | os.PathLike[str], file_format: str) -> str:
    if file_format not in SUFFIXES:
        raise InputError(f"format '{file_format}': expected one of {', '.join(SUFFIXES)}")
    suffix = SUFFIXES[file_format]
    if not Path(path).name.endswith(suffix):
        raise InputError(f"{path}: a file of format {file_format} is to end in {suffix}")
    return suffix


def _describe(potential: Potential, graph: fx.GraphModule, threads: int) -> ExportInfo:
    asked = graph.graph.find_nodes(op="call_function", target=torch.ops.pretrain_mlip.from_owners.default)
    single = any(value.dtype == torch.float32 for value in potential.parameters())
    return ExportInfo(
        elements=" ".join(potential.elements),
        cutoff=repr(potential.cutoff),
        layers=str(_layers(graph, potential)),
        exchange_width=str(max((int(node.meta["val"].shape[1]) for node in asked), default=0)),
        dtype="float32" if single else "float64",
        device="cpu",
        threads=str(threads),
        torch=torch.__version__,
        made_by=pretrain_mlip.__version__,
    )


def _layers(graph: fx.GraphModule, potential: Potential) -> int:
    """How many cutoffs away atoms are that the energy of an atom depends on: exchanges in a row, and one more."""
    if potential.cutoff == 0.0:
        return 0
    depth: dict[fx.Node, int] = {}
    for node in graph.graph.nodes:
        before = max((depth[given] for given in node.all_input_nodes), default=0)
        depth[node] = before + (node.target is torch.ops.pretrain_mlip.from_owners.default)
    return 1 + max(depth.values())


def _write_torchscript(graph: fx.GraphModule, path: Path, info: ExportInfo) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, on itself
        torch.jit.save(script(graph), str(path), _extra_files=info.as_texts())


def _write_package(graph: fx.GraphModule, potential: Potential, path: Path, info: ExportInfo) -> None:
    from torch._inductor import aoti_compile_and_package

    find_compiler()
    repair_inductor()
    options = COMPILER_OPTIONS | {"cpp.threads": int(info.threads), "aot_inductor.metadata": info.as_texts()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, on its own ways
        made = aoti_compile_and_package(export(graph, potential), package_path=str(path), inductor_configs=options)
    if Path(made) != path:
        shutil.move(made, path)


def _compare(potential: Potential, written: Exported, path: str | os.PathLike[str]) -> None:
    """Raises ComputationError where a written file gives other numbers than its potential."""
    tolerance = TOLERANCES[written.info.dtype]
    for repeats in (2, 3):
        graph = make_graph(_example(potential, repeats), max(potential.cutoff, 1.0))
        types, index, vectors = potential.types(graph[keys.ATOMIC_NUMBERS]), graph[keys.EDGE_INDEX], edge_vectors(graph)
        # Energies of atoms by themselves are a hundred times larger than what a fault would change
        alone, _ = potential.energies_and_gradient(types, index[:, :0], vectors[:0])
        (ours, gradient), (theirs, other) = (
            each.energies_and_gradient(types, index, vectors) for each in (potential, written)
        )
        if found := difference((theirs - alone, other), (ours - alone, gradient), tolerance):
            raise ComputationError(
                f"{path}: not written, since the exported code is wrong: {found}; this is a fault of torch "
                f"{torch.__version__} or of pretrain-mlip {pretrain_mlip.__version__}: report it with both versions"
            )


def example_structures(potential: Potential) -> dict[str, Atoms]:
    """Name -> a periodic structure of the elements of a potential: a disordered triclinic crystal, and one atom."""
    crystal = _example(potential, 4)
    crystal.set_cell(crystal.cell.array @ np.array([[1, 0, 0], [0.1, 1, 0], [-0.05, 0.12, 1]]), scale_atoms=True)
    alone = crystal[:1]
    alone.set_cell(crystal.cell.array / 4, scale_atoms=True)
    return {"made-up crystal": crystal, "one atom": alone}


def _example(potential: Potential, repeats: int) -> Atoms:
    """A disordered crystal of all elements of a potential, atoms about as far apart as in solids."""
    numbers = np.array([atomic_numbers[symbol] for symbol in potential.elements])
    distance = 2.3 * covalent_radii[numbers].mean()
    rng = np.random.default_rng(repeats)
    places = np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * distance
    places += rng.normal(scale=0.05 * distance, size=places.shape)
    chosen = numbers[np.arange(len(places)) % len(numbers)]
    return Atoms(chosen, positions=places, cell=[repeats * distance] * 3, pbc=True)
