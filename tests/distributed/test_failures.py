"""Promises 4, 7 and 10: whatever goes wrong ends every process soon, with a message, and loses nothing."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from launching import Trial
from scripts.strategies import VARIABLES
from test_once import flat
from test_resume import assert_same_run, kill

pytestmark = pytest.mark.distributed


def cut_at_step_14(trial: Callable[..., Trial]) -> Trial:
    cut = trial()
    kill(cut, 1, "before_step:14:0", "all")
    assert [name for name in cut.checkpoints() if name > "step-00000012"] == []
    return cut


def test_a_damaged_checkpoint_is_passed_over(trial: Callable[..., Trial], whole: Callable[[int], Trial]) -> None:
    """The newest is truncated; at first the one before has a flipped bit, so none is left, and that ends the job everywhere."""
    cut = cut_at_step_14(trial)
    newest, before = (cut.run_dir / "checkpoints" / name for name in ("step-00000012", "step-00000008"))
    file = newest / "objective.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    keep = (before / "optimizer.safetensors").read_bytes()
    flipped = bytearray(keep)
    flipped[-5] ^= 1
    (before / "optimizer.safetensors").write_bytes(flipped)
    for each in (cut.run_dir / "checkpoints").iterdir():
        if each not in (newest, before):
            shutil.rmtree(each)  # the best one
    before_it = cut.status()
    output = cut.run(2, expect=None)
    assert f"{file}: has " in output
    assert output.count("attnrec: error:") == 1
    assert "[rank" not in output
    assert cut.status() == before_it, "a refused job leaves the directory as it was"
    (before / "optimizer.safetensors").write_bytes(keep)
    output = cut.run(launcher="plain")
    assert f"{file}: has " in output
    assert "; going on from the one before it" in output
    assert "going on from step 8" in output
    assert_same_run(cut, whole(1))


def test_a_second_job_is_refused_while_the_first_one_runs(trial: Callable[..., Trial], whole: Callable[[int], Trial]) -> None:
    first = trial()
    job = first.start(launcher="plain", pause_at="before_step:9:0")
    job.wait_paused()
    before = first.status()
    assert f"another job is training here (process {job.process.pid}" in first.run(expect=2, launcher="plain")
    assert "another job is training here" in first.run(2, expect=None)
    assert first.status() == before
    job.release()
    job.wait()
    assert_same_run(first, whole(1))


@pytest.mark.parametrize("launcher", ["torchrun", "forked", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_ranks_that_outlive_their_launcher_keep_the_lock_and_stop_with_a_checkpoint(
    launcher: str, trial: Callable[..., Trial], whole: Callable[[int], Trial]
) -> None:
    orphaned = trial()
    world = 1 if launcher == "accelerate" else 2  # of one process it sets no LOCAL_RANK
    job = orphaned.start(world, launcher=launcher, pause_at=f"before_step:9:{world - 1}")
    job.wait_paused()
    job.signal(signal.SIGKILL)
    job.process.wait()
    assert "another job is training here" in orphaned.run(expect=2, launcher="plain")
    job.release()
    job.wait_gone(120)
    assert orphaned.status() == {"state": "stopped", "step": 10, "reason": "the launcher is gone"}
    if launcher == "torchrun":
        orphaned.run(world)
        assert_same_run(orphaned, whole(world))


def test_a_killed_loader_worker_ends_the_run_with_a_message(trial: Callable[..., Trial], whole: Callable[[int], Trial]) -> None:
    cut = trial(data__workers=1)
    job = cut.start(launcher="plain", pause_at="before_step:9:0")
    job.wait_paused()
    (worker,) = (pid for pid in job.pids() if pid != job.process.pid)
    os.kill(worker, signal.SIGKILL)
    job.release()
    output = job.wait(expect=1)
    assert "a loader worker failed" in output
    assert "Traceback" not in output
    assert cut.status()["state"] == "fault"
    cut.run(launcher="plain")
    assert_same_run(cut, whole(1))


@pytest.fixture
def five_samples(tmp_path: Path) -> Path:
    """A log of six users, five of them with a training target."""
    from attnrec_dist.prepare.config import PrepareConfig
    from attnrec_dist.prepare.pipeline import prepare
    from attnrec_dist.settings import build

    rows = [(f"u{user}", f"i{(user + basket) % 7}", 1000 * basket + user) for user in range(1, 6) for basket in range(10)]
    with open(tmp_path / "log.csv", "w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "time"), *rows, ("u0", "i0", 0)])
    tree = {
        "input": {"files": [str(tmp_path / "log.csv")]},
        "columns": {"user": "user", "item": "item", "timestamp": {"name": "time", "unit": "s"}},
        "output": {"dir": "unused"},
    }
    prepare(build(PrepareConfig, tree, "test"), tmp_path, tmp_path / "set")
    return tmp_path / "set"


def test_fewer_samples_than_places(five_samples: Path, trial: Callable[..., Trial]) -> None:
    few = trial(data__path=five_samples, train__micro_batch_tokens=1, train__max_epochs=3)
    few.run(3)
    assert few.status()["state"] == "done"
    assert sorted(few.losses()) == [1, 2, 3]
    for entries in few.trained().values():
        assert sorted(each for each in flat(entries, "samples") if each >= 0) == [0, 1, 2, 3, 4]


def test_a_batch_smaller_than_the_number_of_processes(trial: Callable[..., Trial]) -> None:
    output = trial(train__global_batch_size=2).run(3, expect=None)
    assert output.count("2 samples cannot be dealt to 3 processes") == 1


def test_a_stopped_rank_is_named_and_the_others_leave(trial: Callable[..., Trial]) -> None:
    stopped = trial(watchdog__silence=10)
    job = stopped.start(2, pause_at="before_step:9:1")
    job.wait_paused()
    pid = job.rank_pid(1)
    os.kill(pid, signal.SIGSTOP)
    job.release()
    job.wait_for(lambda: "no sign of life for 10 s from rank 1 on" in job.output.read_text(), "the watchdog's message")
    os.kill(pid, signal.SIGCONT)  # or the launcher waits half a minute for it
    job.wait(expect=None)
    output = job.output.read_text()
    assert "(last heard of after step" in output
    assert "in train_step" in output, "the stack of rank 0, which waits"
    assert stopped.status()["state"] == "fault"
    assert "rank 1" in stopped.status()["reason"]
    record = json.loads((stopped.run_dir / "flight-rank-0.json").read_text())["entries"]
    assert f"attnrec, rank 0: its last collective: no. {record[-1]['collective_seq_id']}, gloo:all_reduce of [" in output


def test_a_stopped_rank_ends_an_evaluation_too(trial: Callable[..., Trial]) -> None:
    trained = trial(watchdog__silence=10, train__max_steps=2)
    trained.run(launcher="plain")
    job = trained.start_command(["evaluate", str(trained.run_dir)], 2, pause_at="testing:0:1")
    job.wait_paused()
    pid = job.rank_pid(1)
    os.kill(pid, signal.SIGSTOP)
    job.release()
    job.wait_for(lambda: "no sign of life for 10 s from rank 1 on" in job.output.read_text(), "the watchdog's message")
    os.kill(pid, signal.SIGCONT)
    job.wait(expect=None)
    output = job.output.read_text()
    assert "cut off; run the same command again\n" in output
    assert "after step" not in output


def test_a_stale_lock_of_deepspeed_holds_nothing_up(trial: Callable[..., Trial], tmp_path: Path) -> None:
    """DeepSpeed waits without end for whoever compiles one of its operators, also for one that was killed. None is compiled."""
    extensions = tmp_path / "extensions"
    for operator in ("deepspeed_shm_comm", "deepspeed_ccl_comm", "cpu_adam", "async_io", "fused_adam"):
        for folder in (extensions / operator, extensions / "py311_cpu" / operator):
            folder.mkdir(parents=True)
            (folder / "lock").touch()
    run = trial(train__max_steps=3)
    run.environment = {**VARIABLES["zero2"], "TORCH_EXTENSIONS_DIR": str(extensions)}
    before = sorted(extensions.rglob("*"))
    run.run(2)
    assert run.status()["state"] == "done"
    assert sorted(extensions.rglob("*")) == before


def test_a_rank_that_does_not_get_on_is_named(trial: Callable[..., Trial]) -> None:
    """It lives, and gives signs of life from where it hangs."""
    hanging = trial(watchdog__step=15)
    job = hanging.start(2, pause_at="after_step:9:1")
    job.wait(expect=None)
    output = job.output.read_text()
    assert re.search(r"rank \d on \S+ \(after step \d+, in .*has not got on for \d+ s; rank \d on", output)
    assert hanging.status()["state"] == "fault"


@pytest.mark.parametrize("launcher", [pytest.param("torchrun", marks=pytest.mark.slow), "accelerate"])
def test_a_launcher_that_may_start_again_goes_on_by_itself(
    launcher: str, trial: Callable[..., Trial], whole: Callable[[int], Trial]
) -> None:
    """--max_restarts 1, and rank 1 is killed: the second attempt goes on from the last checkpoint, in the same job."""
    again = trial()
    again.environment["LAUNCHER_OPTIONS"] = "--max_restarts 1 --monitor_interval 1"
    job = again.start(2, launcher=launcher, pause_at="before_step:9:1")
    job.wait_paused()
    job.signal(signal.SIGKILL, rank=1)
    job.release()
    job.wait_paused()  # there again
    job.release()
    job.wait()
    assert again.status()["state"] == "done"
    assert "going on from step 8" in job.output.read_text()
    assert again.curve() == whole(2).curve()
    assert all(torch.equal(value, again.weights()[name]) for name, value in whole(2).weights().items())
