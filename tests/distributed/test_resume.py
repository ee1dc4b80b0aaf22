"""Promises 3 and 7: a job that is killed anywhere goes on as if nothing had happened, bitwise."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest
import torch
from launching import Trial

from attnrec_dist.run_dir import RunDir

pytestmark = pytest.mark.distributed

# Where the run is killed, one attempt after the other, and who gets the SIGKILL. `last` is the last rank.
KILLS = {
    1: [
        ("before_step:2:0", "all"),  # before any checkpoint
        ("optimizer:8:0", "all"),  # while one is written
        ("logging:21:0", "all"),  # half a line in metrics.jsonl
    ],
    2: [
        ("marker:12:0", "0"),  # the checkpoint has its name, but no marker
        ("evaluation:18:last", "all"),  # some ranks are in it, others are not yet
    ],
    3: [
        ("after_step:13:last", "last"),
        ("prune:20:0", "all"),  # a new checkpoint, and all the old ones
    ],
}


def kill(trial: Trial, world: int, pause_at: str, victim: str) -> None:
    last = str(world - 1)
    job = trial.start(world, launcher="plain" if world == 1 else "forked", pause_at=pause_at.replace("last", last))
    job.wait_paused()
    if victim == "all" or world == 1:
        job.kill()
        return
    job.signal(signal.SIGKILL, rank=int(victim.replace("last", last)))
    output = job.wait(expect=None)
    assert "lost another process of the job" in output
    assert "[rank" not in output, "a traceback of a rank"


def assert_same_run(cut: Trial, whole: Trial) -> None:
    assert cut.curve() == whole.curve()
    assert cut.trained() == whole.trained()
    for kind in (Trial.weights, Trial.optimizer):
        ours, theirs = kind(cut), kind(whole)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert cut.checkpoints() == whole.checkpoints()
    assert cut.status() == whole.status()
    assert cut.progress() == whole.progress()
    assert (cut.run_dir / "best").resolve().name == (whole.run_dir / "best").resolve().name


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_run_killed_again_and_again_is_the_same_run(
    world: int, trial: Callable[..., Trial], whole: Callable[[int], Trial]
) -> None:
    cut = trial()
    for pause_at, victim in KILLS[world]:
        kill(cut, world, pause_at, victim)
    cut.run(world)
    assert_same_run(cut, whole(world))


def test_a_kill_right_after_the_last_checkpoint_leaves_nothing_stale(
    trial: Callable[..., Trial], whole: Callable[[int], Trial]
) -> None:
    """The next attempt has no step to do, and still sets the links right and removes the older checkpoints."""
    cut = trial()
    kill(cut, 1, "prune:28:0", "all")
    for name in ("best", "last"):  # as if the kill had come before these, too
        (cut.run_dir / name).unlink()
        (cut.run_dir / name).symlink_to("checkpoints/step-00000024")
    assert len(cut.checkpoints()) > len(whole(1).checkpoints())
    assert "nothing left to do" in cut.run(1)
    assert_same_run(cut, whole(1))


def test_checkpoints_written_behind_the_back_are_the_same(trial: Callable[..., Trial], whole: Callable[[int], Trial]) -> None:
    """Steps go on while the checkpoint of step 8 is held up before its marker; killed then, the run goes on from step 6,
    whose evaluation was the best."""
    cut = trial(checkpoint__asynchronous=True)
    job = cut.start(2, pause_at="marker:8:0")
    job.wait_paused()
    job.wait_for(lambda: cut.lines()[-1]["step"] >= 11, "steps beside the checkpoint")
    job.kill()
    assert RunDir(cut.run_dir).complete_checkpoints()[-1].name == "step-00000006"
    assert "going on from step 6" in cut.run(2)
    assert_same_run(cut, whole(2))


def test_bf16_goes_on_bitwise(trial: Callable[..., Trial]) -> None:
    cut, uncut = trial(train__precision="bf16"), trial(train__precision="bf16")
    uncut.run()
    kill(cut, 1, "before_step:14:0", "all")
    cut.run()
    assert_same_run(cut, uncut)
    assert uncut.losses()[1] > 1.05 * uncut.losses()[28], "it learns"


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_kills(world: int, seed: int, trial: Callable[..., Trial], whole: Callable[[int], Trial]) -> None:
    """Up to ten kills at places drawn at random, each at or after the step where the attempt begins."""
    draw = random.Random(f"{world} {seed}")
    cut, step = trial(), 0
    for _ in range(10):
        step = max(
            step + draw.randint(0, 4),
            *(int(path.parent.name[-8:]) for path in cut.run_dir.glob("checkpoints/*/complete.json")),
            0,
        )
        if step >= 28:
            break
        place, where = draw.choice(
            [
                ("before_step", step),
                ("after_step", step),
                ("logging", step + 1),
                *((name, min(-(-(step + 1) // 4) * 4, 28)) for name in ("optimizer", "marker", "prune")),
                ("evaluation", min(-(-(step + 1) // 6) * 6, 28)),
            ]
        )
        rank = draw.choice(["0", "last"]) if place in ("before_step", "after_step", "evaluation") else "0"
        kill(cut, world, f"{place}:{where}:{rank}", draw.choice(["all", rank]))
    cut.run(world)
    assert_same_run(cut, whole(world))
