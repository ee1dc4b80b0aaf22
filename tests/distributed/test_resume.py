"""Promises 3 and 7: a job that is killed anywhere goes on as if nothing had happened, bitwise."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import torch
from launching import Trial

pytestmark = pytest.mark.distributed

# where the run is killed, one attempt after the other, and who gets the SIGKILL
KILLS = [
    ("before_step:2:0", "all"),  # before any checkpoint
    ("optimizer:8:0", "all"),  # while one is written
    ("marker:12:0", "rank 0"),  # it has its name but no marker
    ("after_step:14:last", "last rank"),
    ("prune:16:0", "all"),
    ("evaluation:18:last", "all"),  # some ranks are in it, others are not yet
    ("logging:21:0", "all"),  # half a line in metrics.jsonl
]


def kill(trial: Trial, world: int, pause_at: str, victim: str) -> None:
    job = trial.start(world, pause_at=pause_at.replace("last", str(world - 1)))
    job.wait_paused()
    if victim == "all":
        job.kill()
        return
    os.kill(job.rank_pid(0 if victim == "rank 0" else world - 1), signal.SIGKILL)
    job.wait(expect=None, timeout=60)


def assert_same_run(cut: Trial, whole: Trial) -> None:
    assert cut.curve() == whole.curve()
    for kind in (Trial.weights, Trial.optimizer):
        ours, theirs = kind(cut), kind(whole)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert cut.checkpoints() == whole.checkpoints()
    assert cut.status() == whole.status()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_run_killed_again_and_again_is_the_same_run(
    world: int, trial: Callable[..., Trial], whole: Callable[[int], Trial]
) -> None:
    cut = trial()
    for pause_at, victim in KILLS:
        kill(cut, world, pause_at, victim)
    cut.run(world)
    assert_same_run(cut, whole(world))
