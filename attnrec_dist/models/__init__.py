"""The models, by name. A new one is a file here, a line in MODELS and a YAML: docs/add-a-model.md.

A model is an nn.Module made as `Model(config, spec)`, with a settings section `Config`, and it knows of no ranks, no optimizer
and no loss. Its `task` says what it is for, next_item where it says nothing:
    next_item   attribute `table` (the ItemTable), `forward(SequenceBatch, explain=False) -> Output`; where that saves work,
                `at_ends(SequenceBatch) -> [B, D]`: the hidden states of rows that are asked at their last tokens alone
    ranking     `forward(RankingBatch, explain=False) -> RankingOutput`, `field_names` where it weighs fields
"""

from __future__ import annotations

from typing import Any

from torch import nn

from attnrec_dist.batch import DataSpec, TaskName
from attnrec_dist.models.bsarec import BSARec
from attnrec_dist.models.feature_attention import FeatureAttention
from attnrec_dist.models.mixture import Mixture
from attnrec_dist.models.sasrec import SASRec
from attnrec_dist.models.target_attention import TargetAttentionModel
from attnrec_dist.ops.registry import lookup
from attnrec_dist.settings import Section

MODELS: dict[str, Any] = {
    "sasrec": SASRec,
    "mixture": Mixture,
    "bsarec": BSARec,
    "feature_attention": FeatureAttention,
    "target_attention": TargetAttentionModel,
}


def model_config_class(name: str) -> type[Section]:
    """The section that `model.name: NAME` is checked against. Raises ConfigError on an unknown name."""
    config: type[Section] = lookup(MODELS, name, "model.name").Config
    return config


def model_task(name: object) -> TaskName:
    """Which task a model is made for. Raises ConfigError on an unknown name."""
    task: TaskName = getattr(lookup(MODELS, name, "model.name"), "task", "next_item")
    return task


def build_model(config: Any, spec: DataSpec) -> nn.Module:
    """A new model with its initial values drawn from torch's default generator."""
    model: nn.Module = lookup(MODELS, config.name, "model.name")(config, spec)
    return model
