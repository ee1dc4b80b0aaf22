"""The models, by name. A new one is a file here, a line in MODELS and a YAML: docs/add-a-model.md. base.py is the contract."""

from __future__ import annotations

from typing import Any

from attnrec_dist.batch import DataSpec, TaskName
from attnrec_dist.models.base import Model, ModelConfig
from attnrec_dist.models.bsarec import BSARec
from attnrec_dist.models.feature_attention import FeatureAttention
from attnrec_dist.models.mixture import Mixture
from attnrec_dist.models.sasrec import SASRec
from attnrec_dist.models.target_attention import TargetAttentionModel
from attnrec_dist.registry import Registry

MODELS: Registry[type[Model]] = Registry(
    "model.name",
    "attnrec_dist.models",
    {
        "sasrec": SASRec,
        "mixture": Mixture,
        "bsarec": BSARec,
        "feature_attention": FeatureAttention,
        "target_attention": TargetAttentionModel,
    },
)


def model_config_class(name: str) -> type[ModelConfig]:
    """The section that `model.name: NAME` is checked against. Raises ConfigError on an unknown name."""
    return MODELS.find(name).Config


def model_task(name: object) -> TaskName:
    """Which task a model is made for. Raises ConfigError on an unknown name."""
    return MODELS.find(name).task


def build_model(config: Any, spec: DataSpec) -> Model:
    """A new model with its initial values drawn from torch's default generator."""
    return MODELS.find(config.name)(config, spec)
