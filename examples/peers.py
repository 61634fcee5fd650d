"""Potentials of other packages, for the commands that take any ASE calculator.

    MODEL=model.pt pretrain-mlip verify --calculator examples/peers.py:graph_pes --elements O,Si --dtype float32
    MODEL=model.pt pretrain-mlip stability eam.json --calculator examples/peers.py:graph_pes --structures silica_mini

The environment needs the other package beside this one. ``graph_pes.yaml`` beside this file trains one.
"""

import os


def graph_pes():
    """A model.pt of graph-pes-train (pip install graph-pes)."""
    from graph_pes.models import load_model

    return load_model(os.environ["MODEL"]).ase_calculator()


def matgl():
    """A folder of MatGL's, or the name of one of its models (pip install matgl)."""
    from matgl import load_model
    from matgl.ext.ase import PESCalculator

    return PESCalculator(load_model(os.environ["MODEL"]), stress_unit="eV/A3")


def mace():
    """A model of MACE's (pip install mace-torch)."""
    from mace.calculators import MACECalculator

    return MACECalculator(os.environ["MODEL"], default_dtype="float64")
