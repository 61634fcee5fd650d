"""graph-pes' SchNet: pip install torch==2.13.0 graph-pes==1.0.2."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.peers.structures import structure
from graph_pes import AtomicGraph
from graph_pes.models import SchNet
from graph_pes.utils.calculator import GraphPESCalculator


def calculator() -> Any:
    model = SchNet(cutoff=5.0, channels=64, layers=3).eval()
    graphs = []
    for name in ("q72", "c192"):  # scales of the model are fitted once before it is used
        atoms = structure(name)
        atoms.info["energy"], atoms.arrays["forces"] = -5.0 * len(atoms), np.zeros((len(atoms), 3))
        graphs.append(AtomicGraph.from_ase(atoms, cutoff=5.0))
    model.pre_fit_all_components(graphs)
    return GraphPESCalculator(model, skin=0.0)
