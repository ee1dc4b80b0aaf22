"""The loss scale of fp16, what a skipped step leaves alone, and a run that meets a number that is not finite."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from alone import alone
from torch import nn

from attnrec_dist.checkpoints import checkpoint
from attnrec_dist.checkpoints.checkpoint import Progress
from attnrec_dist.engine.optimizer import OptimizerConfig, make_optimizer
from attnrec_dist.engine.run import Run
from attnrec_dist.run_dir import RunDir
from attnrec_dist.strategies.precision import STEPS_TO_GROW, LossScaler, Precision


def test_the_scale_halves_at_an_overflow_and_doubles_after_many_good_steps():
    scaler = LossScaler(scale=8.0)
    for _ in range(STEPS_TO_GROW - 1):
        scaler.passed()
    assert scaler.overflowed()
    assert (scaler.scale, scaler.skipped) == (4.0, 1)
    for _ in range(STEPS_TO_GROW - 1):
        scaler.passed()
    assert scaler.scale == 4.0, "the count begins anew after an overflow"
    scaler.passed()
    assert scaler.scale == 8.0


def test_at_a_scale_of_one_the_gradient_itself_is_to_blame():
    scaler = LossScaler(scale=2.0)
    assert scaler.overflowed()
    assert not scaler.overflowed()
    assert (scaler.scale, scaler.skipped) == (1.0, 1)


def half(seed: int = 0):
    torch.manual_seed(seed)
    module = nn.Module()
    module.model = nn.Linear(4, 3)
    held = alone(module, make_optimizer(module, OptimizerConfig(lr=0.1)), "fp16")
    return module, held


def step(module: nn.Module, held, number: int, size: float = 1.0) -> torch.Tensor:
    torch.manual_seed(number)
    x = size * torch.randn(5, 4)
    with Precision("fp16", torch.device("cpu")).autocast():
        loss = module.model(x).float().square().sum()
    held.backward(loss, 5.0)
    norm = held.gradient_norm()
    if norm.isfinite():
        held.update(norm, 1.0)
    else:
        assert held.scaler.overflowed()
        held.skip()
    return norm


def test_the_norm_and_the_update_are_those_of_the_unscaled_gradient():
    module, held = half()
    held.scaler.scale = 1024.0
    norm = step(module, held, 1)
    twin, plain = half()
    plain.scaler.scale = 1.0
    assert step(twin, plain, 1).item() == pytest.approx(norm.item(), rel=2e-3)
    for mine, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)


def test_an_overflow_updates_nothing_and_leaves_nothing_behind():
    module, held = half()
    held.scaler.scale = 2.0**40
    before = [parameter.detach().clone() for parameter in module.parameters()]
    assert not step(module, held, 1).isfinite()
    assert all(map(torch.equal, before, module.parameters()))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not held.optimizer.state
    while not step(module, held, 1).isfinite():
        pass
    assert held.scaler.skipped > 2
    assert not torch.equal(before[0], module.model.weight)


def test_scale_and_skipped_steps_come_back_with_the_checkpoint(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    module, held = half()
    held.scaler.scale = 2.0**30
    for number in range(1, 25):
        step(module, held, number)
    assert held.scaler.skipped
    path = checkpoint.save(run, Progress(24, scaler=held.scaler.state()), held, {})
    other, resumed = half(seed=1)
    checkpoint.load_weights(path, other)
    checkpoint.load(path, resumed)
    assert resumed.scaler == held.scaler
    for number in range(25, 30):
        assert torch.equal(step(module, held, number), step(other, resumed, number))
    assert all(map(torch.equal, module.parameters(), other.parameters()))


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_update(shop, attnrec, tmp_path):
    """At a learning rate of 1e30 the second step overflows; the first checkpoint, of step 1, is what remains."""
    run = tmp_path / "run"
    keys = ("--optimizer.lr", "1e30", "--checkpoint.every_steps", "1", "--tracking.log_every", "1")
    told = attnrec("train", shop.run_yaml, "--run_dir", run, "--data", shop.data, *keys)
    assert told.code == 1
    assert re.search(
        r"the loss of step 2 is nan, and the gradient of model\.\S+ and \d+ other parameters is not finite", told.err
    )
    report = json.loads((run / "not-finite.json").read_text())
    assert report["step"] == 2
    assert not math.isfinite(float(report["loss"]))
    assert "model.table.weight" in report["parameters"]
    assert report["samples"] == sorted(set(report["samples"]))
    assert report["samples"]
    assert json.loads((run / "last" / "progress.json").read_text())["step"] == 1
    assert all(torch.isfinite(value).all() for value in _weights(run).values())


def test_between_two_looks_the_first_bad_step_is_the_one_that_is_told(shop, attnrec, tmp_path, monkeypatch):
    """As on a GPU, where losses are looked at every few steps: it shows at step 4, and step 2 is the first without a loss."""
    monkeypatch.setattr(Run, "look_due", lambda self, step: step % 4 == 0)
    run = tmp_path / "run"
    keys = ("--optimizer.lr", "1e30", "--checkpoint.every_steps", "4", "--evaluation.every_steps", "4")
    told = attnrec("train", shop.run_yaml, "--run_dir", run, "--data", shop.data, *keys)
    assert told.code == 1
    assert "the loss of step 2 is nan" in told.err
    report = json.loads((run / "not-finite.json").read_text())
    assert report["step"] == 2
    found = attnrec("replay", run, "--step", "2", "--output", tmp_path / "step.json")
    assert found.code == 0, found.err
    of_step = json.loads((tmp_path / "step.json").read_text())["samples"]
    assert report["samples"] == sorted(each["sample"] for each in of_step)
    assert not list((run / "checkpoints").glob("step-*"))


def _weights(run):
    from safetensors.torch import load_file

    return load_file(run / "last" / "objective.safetensors")
