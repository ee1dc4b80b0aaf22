"""The models, by name. A new one is a file here, a line in MODELS and a YAML: docs/add-a-model.md.

A model is an nn.Module made as `Model(config, spec)`, with a settings section `Config`, an attribute `table` (the
ItemTable) and `forward(batch, explain=False) -> Output`. It knows of no ranks, no optimizer and no loss.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.models.bsarec import BSARec
from attnrec_dist.models.mixture import Mixture
from attnrec_dist.models.sasrec import SASRec
from attnrec_dist.ops.registry import lookup
from attnrec_dist.settings import Section

MODELS: dict[str, Any] = {
    "sasrec": SASRec,
    "mixture": Mixture,
    "bsarec": BSARec,
}


def model_config_class(name: str) -> type[Section]:
    """The section that `model.name: NAME` is checked against. Raises ConfigError on an unknown name."""
    config: type[Section] = lookup(MODELS, name, "model.name").Config
    return config


def build_model(config: Any, spec: DataSpec) -> nn.Module:
    """A new model with its initial values drawn from torch's default generator."""
    model: nn.Module = lookup(MODELS, config.name, "model.name")(config, spec)
    return model
