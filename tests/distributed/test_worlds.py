"""Promises 3 and 6: another number of processes or of micro-batches is the same computation, but for rounding (dropout 0)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

import pytest
import torch
from launching import Trial

pytestmark = pytest.mark.distributed
ONE_MICRO_BATCH = 100_000


@pytest.fixture(scope="module")
def plain(session_trial: Callable[..., Trial]) -> Callable[..., Trial]:
    """plain(precision): one process, one micro-batch a step: what all others must equal."""
    done: dict[str, Trial] = {}

    def get(precision: str) -> Trial:
        if precision not in done:
            done[precision] = session_trial(model__dropout=0, train__precision=precision)
            done[precision].run(train__micro_batch_tokens=ONE_MICRO_BATCH, launcher="plain")
        return done[precision]

    return get


def assert_close(ours: Trial, theirs: Trial, tolerance: float) -> None:
    mine, other = ours.losses(), theirs.losses()
    assert mine.keys() == other.keys()
    assert mine == pytest.approx(other, rel=tolerance, abs=0)
    weights = theirs.weights()
    for name, weight in ours.weights().items():
        torch.testing.assert_close(
            weight, weights[name], rtol=0, atol=100 * tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def samples(trial: Trial) -> dict[int, list[int]]:
    return {
        step: sorted(sample for entry in entries for micro in entry["samples"] for sample in micro)
        for step, entries in trial.trained().items()
    }


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("fp64", 1e-10)])
def test_moved_from_two_processes_to_one_to_three(
    precision: str, tolerance: float, plain: Callable[..., Trial], trial: Callable[..., Trial]
) -> None:
    moved = trial(model__dropout=0, train__precision=precision)
    for world, pause_at in ((2, "before_step:10:1"), (1, "before_step:17:0")):
        job = moved.start(world, pause_at=pause_at)
        job.wait_paused()
        job.kill()
    moved.run(3)
    assert samples(moved) == samples(plain(precision))
    worlds = [len(entries) for _, entries in sorted(moved.trained().items())]
    assert worlds == [2] * 8 + [1] * 8 + [3] * 12, "the newest checkpoints were of steps 8 and 16"
    unequal = [len({entry["targets"] for entry in entries}) > 1 for entries in moved.trained().values()]
    assert sum(unequal) > 10, "ranks hold unequal numbers of targets"
    assert_close(moved, plain(precision), tolerance)


def test_data_parallelism_with_a_sample_a_prefix(trial: Callable[..., Trial]) -> None:
    keys = {"model__dropout": 0, "train__precision": "fp64", "data__targets": "prefixes", "train__max_steps": 10}
    keys["data__empty_history"] = True
    one, two = trial(**keys), trial(**keys)
    one.run(train__micro_batch_tokens=ONE_MICRO_BATCH, launcher="plain")
    two.run(2)
    assert samples(two) == samples(one)
    weights = {step: sum(entry["weight"] for entry in entries) for step, entries in two.trained().items()}
    assert weights == pytest.approx(dict.fromkeys(range(10), 24)), "each of the 24 samples has one basket to predict"
    assert_close(two, one, 1e-10)


def test_accumulation_of_small_micro_batches_is_one_large_one(plain: Callable[..., Trial], trial: Callable[..., Trial]) -> None:
    small = trial(model__dropout=0, train__precision="fp64")
    small.run(launcher="plain", train__micro_batch_tokens=60)
    counts = [len(entries[0]["samples"]) for entries in small.trained().values()]
    assert statistics.median(counts) >= 2  # the tail of an epoch may be small
    assert max(counts) >= 4
    assert {len(entries[0]["samples"]) for entries in plain("fp64").trained().values()} == {1}
    assert_close(small, plain("fp64"), 1e-10)


def test_data_parallelism_is_one_process(plain: Callable[..., Trial], trial: Callable[..., Trial]) -> None:
    two = trial(model__dropout=0, train__precision="fp64")
    two.run(2, launcher="accelerate")
    assert_close(two, plain("fp64"), 1e-10)
    assert two.curve()[-1][0] == 28
    figures = json.loads((two.run_dir / "figures.json").read_text())
    assert (figures["processes"], figures["steps"]) == (2, 28)
    assert figures["slowest rank"] in (0, 1)
    assert "ms a step behind the median" in two.jobs[0].text()
