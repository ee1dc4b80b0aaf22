"""The kill matrix: strategy x place of death x number of processes that goes on. benchmarks/kill_matrix.py makes a table of it.

Two processes are killed to the last one (or one of them, and the launcher takes the other down) at a named place; one to four
go on to the end. Every sample is trained once, as in the run that nobody interrupted; on two processes losses and weights
are its to the last bit, on another number equal to rounding (dropout 0). Checkpoints are written beside the steps, as
by default: whoever stands still while one is written stands still in that thread.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from launching import Trial
from scripts.strategies import VARIABLES
from test_worlds import samples

pytestmark = pytest.mark.distributed
STEPS = 12
KEYS = {
    "model__dropout": 0,
    "optimizer__schedule": "constant",
    "train__average": 0.9,
    "train__max_steps": STEPS,
    "checkpoint__every_steps": 4,
    "checkpoint__asynchronous": True,
    "evaluation__every_steps": 6,
}
STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero3")
PLACES = {  # where -> (pause, who is killed)
    "in a step": ("before_step:6:1", "rank 1"),
    "after an update": ("after_step:9:0", "all"),
    "while weights are written": ("optimizer:8:0", "all"),
    "before the checkpoint's marker": ("marker:8:0", "rank 0"),
    "in an evaluation": ("evaluation:6:1", "launcher"),
}
WORLDS = (2, 1, 3, 4)
CASES = list(itertools.product(STRATEGIES, PLACES, WORLDS))
IN_CI = {(strategy, place, WORLDS[number % 4]) for number, (strategy, place) in enumerate(zip(STRATEGIES, PLACES))}


@pytest.fixture(scope="session")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Trial]]:
    made: dict[str, Trial] = {}

    def whole(strategy: str) -> Trial:
        if strategy not in made:
            made[strategy] = Trial(tmp_path_factory.mktemp(strategy), config, KEYS, environment=VARIABLES[strategy])
            made[strategy].run(2)
        return made[strategy]

    yield whole
    for trial in made.values():
        trial.close()


def die(cut: Trial, place: str) -> None:
    pause_at, victim = PLACES[place]
    job = cut.start(2, pause_at=pause_at)
    job.wait_paused()
    if victim == "all":
        job.kill()
    elif victim == "launcher":
        job.process.kill()
        job.kill()
    else:
        job.signal(9, rank=int(victim[-1]))
        job.wait(expect=None)


@pytest.mark.parametrize(
    ("strategy", "place", "world"),
    [pytest.param(*case, marks=() if case in IN_CI else pytest.mark.slow, id="-".join(map(str, case))) for case in CASES],
)
def test_whoever_goes_on_ends_where_nobody_was_interrupted(
    strategy: str, place: str, world: int, uninterrupted: Callable[[str], Trial], config: Path, tmp_path: Path
) -> None:
    whole = uninterrupted(strategy)
    cut = Trial(tmp_path, config, KEYS, environment=VARIABLES[strategy])
    die(cut, place)
    cut.run(world)
    assert samples(cut) == samples(whole), "each sample once, in its step"
    mine, theirs = cut.losses(), whole.losses()
    assert mine.keys() == theirs.keys() == set(range(1, STEPS + 1))
    apart = max(abs(mine[step] / theirs[step] - 1) for step in theirs)
    weights = zip(cut.weights().items(), whole.weights().items(), strict=True)
    moved = max((a - b).abs().max().item() for (_, a), (_, b) in weights)
    if record := os.environ.get("KILL_MATRIX"):
        line = {"strategy": strategy, "place": place, "world": world, "losses apart": apart, "weights apart": moved}
        with open(record, "a") as file:
            file.write(json.dumps(line) + "\n")
    if world == 2:
        assert (apart, moved) == (0, 0)
        assert all(torch.equal(a, b) for a, b in zip(cut.weights().values(), whole.weights().values()))
    else:
        assert apart < 2e-5
        assert moved < 2e-3
