"""A whole run that takes seconds."""

from __future__ import annotations

from pathlib import Path

import yaml

from pretrain_mlip.config import RunConfig

TINY = """
data: {source: silica_mini, split: {n_train: 8, n_val: 3, n_test: 3}}
eam: {starts: 1, screening_iterations: 5, max_iterations: 15}
perturbation: {rounds: 1, copies: 1}
model: {hyperparameters: {width: 8, convolutions: 1, gaussians: 8, cutoff: 3.5}}
training: {epochs: 4, batch_size: 4}
pretraining: {epochs: 3, batch_size: 4}
stability: {replicas: 2, md: {duration_ps: 0.03}}
squeeze: {replicas: 1, md: {duration_ps: 0.03}}
rdf: {equilibration_ps: 0.0, md: {duration_ps: 0.03, save_every: 10}}
verification: null
strategies: [vanilla, finetune, delta]
workers: 1
"""


def config(output: Path, text: str = TINY, **changes: object) -> RunConfig:
    return RunConfig.model_validate(yaml.safe_load(text) | {"output": str(output)} | changes)
