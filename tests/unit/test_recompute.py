"""Activation checkpointing changes memory and time, and nothing else."""

from __future__ import annotations

import pytest
import torch
from ranking_batches import SPEC
from strategies import make_batch
from torch import nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.engine.activation_checkpointing import recompute_blocks
from attnrec_dist.errors import ConfigError
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.settings import build

KEYS = {"width": 8, "heads": 2, "blocks": 3, "dropout": 0.3, "attention_dropout": 0.2}


@pytest.mark.parametrize("name", ["sasrec", "bsarec"])
def test_hidden_states_and_gradients_are_equal_to_the_last_bit(name):
    batch, found = make_batch([[1, 2, 1], [3], [1, 1]], 9, 0), []
    for recomputed in (False, True):
        torch.manual_seed(0)
        model = build_model(build(model_config_class(name), {"name": name, **KEYS}, "model"), DataSpec(9, 10)).train()
        if recomputed:
            recompute_blocks(model)
        torch.manual_seed(1)
        hidden = model(batch).hidden
        hidden.square().sum().backward()
        found.append([hidden.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_less_is_kept():
    def kept(recomputed):
        torch.manual_seed(0)
        model = build_model(build(model_config_class("sasrec"), {"name": "sasrec", **KEYS}, "model"), DataSpec(9, 10)).train()
        if recomputed:
            recompute_blocks(model)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            model(make_batch([[1, 2, 1], [3], [1, 1]] * 20, 9, 0))
        return sum(sizes)

    assert kept(True) < kept(False) / 3


@pytest.mark.parametrize("model", [nn.Linear(1, 1), None])
def test_a_model_without_blocks_is_told(model):
    name = "feature_attention"
    model = model or build_model(build(model_config_class(name), {"name": name}, "model"), SPEC)
    with pytest.raises(ConfigError, match=r"train\.activation_checkpointing: .* leave it out"):
        recompute_blocks(model)
