"""The optimizer section: groups, updates against the papers' formulas, the learning rate's curve, what is stored."""

from __future__ import annotations

import math

import pytest
import torch
from alone import alone, stored
from fake_statistics import make_statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from ranking_batches import EXAMPLES
from safetensors.torch import save_file
from torch import nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.checkpoints.optimizer_state import load_parts
from attnrec_dist.engine.optimizer import (
    OptimizerConfig,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from attnrec_dist.errors import ConfigError
from attnrec_dist.models import MODELS, build_model, model_config_class
from attnrec_dist.models.layers.fields import NumericFields
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.settings import build


@pytest.mark.parametrize("name", MODELS)
def test_decay_falls_on_matrices_and_spares_vectors_and_tables(name):
    model = build_model(model_config_class(name)(name=name), DataSpec(20, 10, ("view", "buy"), make_statistics(20), EXAMPLES))
    optimizer = make_optimizer(model, OptimizerConfig(weight_decay=0.1))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters(recurse=False)}
    others = [module for module in model.modules() if isinstance(module, ItemTable | NumericFields)]
    tables |= {id(p) for module in others for p in module.parameters(recurse=False)}
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in everything} == {id(p) for p in model.parameters()}
    assert len(everything) == len({id(p) for p in everything})
    for key, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim >= 2 and id(parameter) not in tables), key
    assert decayed


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_updates_follow_the_papers(name):
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2, lines 6 to 12."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2).double()
    config = OptimizerConfig(name=name, lr=0.05, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)
    optimizer = make_optimizer(module, config)
    expected = {key: value.detach().clone() for key, value in module.named_parameters()}
    mean = {key: torch.zeros_like(value) for key, value in expected.items()}
    square = {key: torch.zeros_like(value) for key, value in expected.items()}
    for step in range(1, 5):
        for key, parameter in module.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            decay = 0.1 if key == "weight" else 0.0
            gradient = parameter.grad + (decay * expected[key] if name == "adam" else 0)
            mean[key] = 0.8 * mean[key] + 0.2 * gradient
            square[key] = 0.95 * square[key] + 0.05 * gradient**2
            update = (mean[key] / (1 - 0.8**step)) / ((square[key] / (1 - 0.95**step)).sqrt() + 1e-6)
            shrunk = expected[key] * (1 - 0.05 * decay) if name == "adamw" else expected[key]
            expected[key] = shrunk - 0.05 * update
        optimizer.step()
    for key, parameter in module.named_parameters():
        assert torch.allclose(parameter, expected[key], atol=1e-12), key


# The learning rate


def test_the_curve_by_hand():
    config = OptimizerConfig(lr=1.0, warmup_steps=4, schedule="cosine", min_lr_ratio=0.1)
    assert [learning_rate(config, step, 12) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(config, 4, 12) == 1.0
    assert learning_rate(config, 8, 12) == pytest.approx(0.55)
    assert learning_rate(config, 12, 12) == pytest.approx(0.1)
    assert learning_rate(config, 99, 12) == pytest.approx(0.1)
    constant = OptimizerConfig(lr=1.0, warmup_steps=2)
    assert [learning_rate(constant, step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 50), st.integers(1, 200), st.just(0.0) | st.floats(0.01, 1), st.floats(1e-6, 10))
def test_it_rises_then_falls_and_stays_in_its_bounds(warmup, steps, ratio, peak):
    config = OptimizerConfig(lr=peak, warmup_steps=warmup, schedule="cosine", min_lr_ratio=ratio)
    rates = [learning_rate(config, step, steps) for step in range(max(steps, warmup) + 2)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(rate > 0 or ratio == 0 for rate in rates)
    assert max(rates) == pytest.approx(peak)
    if steps > warmup:
        half = learning_rate(config, (warmup + steps) // 2, steps)
        share = ((warmup + steps) // 2 - warmup) / (steps - warmup)
        assert half == pytest.approx(peak * (ratio + (1 - ratio) * (1 + math.cos(math.pi * share)) / 2))


def test_the_rate_is_set_in_every_group():
    optimizer = make_optimizer(nn.Linear(2, 2), OptimizerConfig())
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


# What is stored


def test_state_is_stored_by_parameter_name_and_comes_back(tmp_path):
    def updated(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        return [parameter.detach().clone() for parameter in module.parameters()]

    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    optimizer = make_optimizer(module, OptimizerConfig(weight_decay=0.1))
    assert stored(module, optimizer) == {}
    updated(module, optimizer, 0)
    save_file(stored(module, optimizer), tmp_path / "optimizer.safetensors")
    assert stored(module, optimizer).keys() == {
        f"{name}/{key}" for name, _ in module.named_parameters() for key in ("step", "exp_avg", "exp_avg_sq")
    }

    other = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    other.load_state_dict(module.state_dict())
    other_optimizer = make_optimizer(other, OptimizerConfig(weight_decay=0.1))
    load_parts(tmp_path, alone(other, other_optimizer).pieces, other_optimizer)
    for one, two in zip(updated(module, optimizer, 1), updated(other, other_optimizer, 1), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "tree",
    [
        {"lr": 0},
        {"lr": -1},
        {"name": "sgd"},
        {"min_lr_ratio": 1.5},
        {"clip_norm": 0},
        {"betas": [0.9]},
        {"warmup_steps": -1},
        {"eps": 0},
        {"lr": float("inf")},
        {"clip_norm": float("nan")},
    ],
)
def test_values_that_make_no_sense_are_refused(tree):
    with pytest.raises(ConfigError, match=f"t: {next(iter(tree))}"):
        build(OptimizerConfig, tree, "t")


@pytest.mark.parametrize("betas", [[0.9, 1.0], [-0.1, 0.9], [1.5, 0.9]])
def test_betas_are_shares(betas):
    with pytest.raises(ConfigError, match="betas"):
        build(OptimizerConfig, {"betas": betas}, "t")
