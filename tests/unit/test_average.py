"""Averaged weights: the average itself, what a resume makes of it, and who sees which weights."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from alone import alone, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from attnrec_dist.checkpoints import checkpoint
from attnrec_dist.checkpoints.checkpoint import Progress
from attnrec_dist.engine.optimizer import OptimizerConfig, make_optimizer
from attnrec_dist.run_dir import AVERAGE_FILE, OBJECTIVE_FILE, RunDir, read_weights
from attnrec_dist.strategies.ema import averaged, update_average


def tiny() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Module()
    module.model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return module, make_optimizer(module, OptimizerConfig(lr=0.1))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, number: int, decay: float) -> None:
    module.model(torch.full((2, 3), float(number))).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    update_average(optimizer, decay, number)


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def inside(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    with averaged(module, optimizer):
        return weights(module)


@given(st.floats(0.01, 0.999), st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_the_average_is_that_of_a_plain_loop(decay, steps):
    module, optimizer = tiny()
    expected: list[torch.Tensor] = []
    for number in range(1, steps + 1):
        step(module, optimizer, number, decay)
        keep = min(decay, (1 + number) / (10 + number))
        now = [each.double() for each in weights(module)]
        expected = [keep * old + (1 - keep) * new for old, new in zip(expected or now, now, strict=True)]
    for mine, theirs in zip(inside(module, optimizer), expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-6)


def test_training_goes_on_from_the_raw_weights():
    plain, plain_optimizer = tiny()
    module, optimizer = tiny()
    for number in range(1, 6):
        step(plain, plain_optimizer, number, decay=0.0)
        step(module, optimizer, number, decay=0.9)
        raw = weights(module)
        assert any(not torch.equal(one, other) for one, other in zip(inside(module, optimizer), raw, strict=True)) == (number > 1)
        assert all(map(torch.equal, weights(module), raw))
        assert all(map(torch.equal, raw, weights(plain)))


def test_the_raw_weights_come_back_after_an_error():
    module, optimizer = tiny()
    for number in (1, 2):
        step(module, optimizer, number, decay=0.9)
    raw = weights(module)
    with pytest.raises(KeyError), averaged(module, optimizer):
        raise KeyError
    assert all(map(torch.equal, weights(module), raw))


def test_without_a_decay_there_is_no_average():
    module, optimizer = tiny()
    step(module, optimizer, 1, decay=0.0)
    assert not any("average" in state for state in optimizer.state.values())
    assert all(map(torch.equal, inside(module, optimizer), weights(module)))


def test_a_resume_goes_on_bitwise_with_both(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    module, optimizer = tiny()
    for number in range(1, 5):
        step(module, optimizer, number, decay=0.8)
    path = checkpoint.save(run, Progress(4), alone(module, optimizer), {"data fingerprint": "f", "model": "m"})
    other, other_optimizer = tiny()
    checkpoint.load_weights(path, other)
    checkpoint.load(path, alone(other, other_optimizer))
    for number in range(5, 9):
        step(module, optimizer, number, decay=0.8)
        step(other, other_optimizer, number, decay=0.8)
    assert all(map(torch.equal, weights(module), weights(other)))
    assert all(map(torch.equal, inside(module, optimizer), inside(other, other_optimizer)))
    assert {*stored(other, other_optimizer)} == {*stored(module, optimizer)}


def test_what_is_loaded_is_aligned_as_what_was_trained(tmp_path):
    """Where it is not, a product with the averaged weights may have another last digit than in the run that went through."""
    run = RunDir(tmp_path / "run")
    run.create()
    module, optimizer = tiny()
    step(module, optimizer, 1, 0.9)
    path = checkpoint.save(run, Progress(1), alone(module, optimizer), {"data fingerprint": "f", "model": "m"})
    other, other_optimizer = tiny()
    checkpoint.load(path, alone(other, other_optimizer))
    addresses = [value.data_ptr() % 64 for state in other_optimizer.state.values() for value in state.values()]
    assert len(addresses) == 4 * 4
    assert set(addresses) == {0}


def test_the_checkpoint_serves_the_average_and_keeps_the_raw_weights(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    module, optimizer = tiny()
    module.model.register_buffer("kept", torch.ones(2))
    for number in range(1, 5):
        step(module, optimizer, number, decay=0.8)
    path = checkpoint.save(run, Progress(4), alone(module, optimizer), {"data fingerprint": "f", "model": "m"})
    served, stored = read_weights(path), load_file(path / OBJECTIVE_FILE)
    names = [name.removeprefix("model.") for name, _ in module.named_parameters()]
    assert served.keys() == {*names, "kept"}
    for name, average, raw in zip(names, inside(module, optimizer), weights(module), strict=True):
        assert torch.equal(served[name], average)
        assert torch.equal(stored[f"model.{name}"], raw)
    assert torch.equal(served["kept"], torch.ones(2))


@pytest.fixture(scope="module")
def runs(shop, tmp_path_factory):
    """The tiny shop trained without an average, with one, and with one in two goes."""
    from tiny_shop import attnrec_in_process

    def train(name, *arguments, copy_of=None):
        path = folder / name
        if copy_of:
            shutil.copytree(copy_of, path, symlinks=True)
        attnrec_in_process("train", shop.run_yaml, "--run_dir", path, "--data", shop.data, *arguments)
        return path

    folder = tmp_path_factory.mktemp("runs")
    raw, whole = train("raw"), train("whole", "--train.average", 0.9)
    half = train("half", "--train.average", 0.9, "--train.max_steps", 5)
    return raw, whole, train("resumed", "--train.average", 0.9, copy_of=half)


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def by_step(run, name) -> dict[int, float]:
    return {line["step"]: line[name] for line in lines(run) if name in line}


def test_a_run_trains_the_raw_weights_and_evaluates_the_average(runs):
    raw, whole, _ = runs
    assert by_step(raw, "loss") == by_step(whole, "loss")
    metric = "eval/next_basket/all/ndcg@10"
    assert by_step(raw, metric).keys() == by_step(whole, metric).keys()
    assert by_step(raw, metric) != by_step(whole, metric)
    assert not (raw / "last" / AVERAGE_FILE).exists()
    assert all(
        map(torch.equal, load_file(raw / "last" / OBJECTIVE_FILE).values(), load_file(whole / "last" / OBJECTIVE_FILE).values())
    )


def test_a_resumed_run_averages_as_if_nothing_had_happened(runs):
    _, whole, resumed = runs
    one, other = (load_file(run / "last" / AVERAGE_FILE) for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    metric = "eval/next_basket/all/ndcg@10"
    final = max(by_step(whole, metric))
    assert by_step(whole, metric)[final] == by_step(resumed, metric)[final]
