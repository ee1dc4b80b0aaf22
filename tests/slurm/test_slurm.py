"""slurm/*.sbatch on a real Slurm: two nodes are the same run as none; who is requeued and who is not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Cluster, attnrec

pytestmark = pytest.mark.slow

STEPS = 400
RUN = ["configs/quickstart-sasrec.yaml", "--train.max_steps", str(STEPS), "--train.max_epochs", "null"]
RUN += ["--train.micro_batch_tokens", "1024", "--checkpoint.every_steps", "40"]
TWO_BY_TWO = ["--nodes=2", "--gpus-per-node=2", "--cpus-per-task=2", "slurm/train-multinode.sbatch", *RUN]


def steps_stopped_at(output: Path) -> list[int]:
    """Of each turn that was stopped."""
    return [int(step) for step in re.findall(r": stopped at step (\d+) \(", output.read_text())]


def wait_for(found: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 300
    while not found():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.1)


def wait_for_step(run: Path, step: int) -> None:
    metrics = run / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and f'{{"step": {step},' in metrics.read_text(), f"step {step}")


def test_two_nodes_stopped_by_the_time_limit_and_requeued_are_the_run_without_slurm(
    cluster: Cluster, data: Path, tmp_path: Path, curve: Callable[[Path], list]
) -> None:
    """Two minutes do not reach, so the run takes several turns; a stop at step 1 came while the job was still starting."""
    run, output = tmp_path / "run", tmp_path / "job.out"
    where = ["--run_dir", str(run), "--data", str(data)]
    job = cluster.submit("--time=2", "--signal=B:USR2@60", f"--output={output}", *TWO_BY_TWO, *where)
    told = cluster.wait(job, output, timeout=900)
    text = output.read_text()
    assert told["JobState"] == "COMPLETED", text
    assert int(told["Restarts"]) >= 1, text
    assert text.count(": requeued") == int(told["Restarts"])
    assert text.count(": asked by Slurm to stop") - int(told["Restarts"]) in (0, 1), "the last turn may be done when it is asked"
    assert [step for step in map(int, re.findall(r": stopped at step (\d+) \(file STOP\)", text)) if 1 < step < STEPS], text
    assert json.loads((run / "status.json").read_text()) == {"state": "done", "step": STEPS, "reason": ""}
    assert not (run / "STOP").exists()
    without = tmp_path / "without"
    attnrec("train", *RUN, "--run_dir", str(without), "--data", str(data), launcher=(str(ROOT / "launch" / "ddp.sh"), "4"))
    assert len([each for each in curve(run) if each[1] == "loss"]) == STEPS
    assert curve(run) == curve(without)


@pytest.mark.parametrize(
    ("mistake", "state", "said"),
    [
        (["--train.max_stepps", "9"], "stopped", "ended before it changed the run directory"),
        (["--data", "nowhere"], "stopped", "nowhere"),
        (["--optimizer.lr", "1e30"], "fault", "the loss of step"),
    ],
)
def test_mistakes_and_faults_are_not_requeued(
    cluster: Cluster, data: Path, tmp_path: Path, mistake: list[str], state: str, said: str
) -> None:
    """Not even where an earlier job of this run directory had been stopped."""
    run, output = tmp_path / "run", tmp_path / "job.out"
    run.mkdir()
    (run / "config.yaml").touch()
    (run / "status.json").write_text('{"state": "stopped", "step": 0, "reason": ""}')
    words = ["--gpus-per-node=2", "--cpus-per-task=2", "--time=30", f"--output={output}", "slurm/train.sbatch", *RUN]
    job = cluster.submit(*words, "--run_dir", str(run), "--data", str(data), *mistake)
    told = cluster.wait(job, output, timeout=300)
    text = output.read_text()
    assert (told["JobState"], told["Restarts"]) == ("FAILED", "0"), text
    assert said in text
    assert json.loads((run / "status.json").read_text())["state"] == state


def test_what_slurm_requeues_by_itself_goes_on_and_what_was_cancelled_is_not_requeued(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    """The script sees both end in the same way; either has KillWait for its checkpoint."""
    run, output = tmp_path / "run", tmp_path / "job.out"
    words = ["--gpus-per-node=1", "--cpus-per-task=1", "--time=30", f"--output={output}", "slurm/train.sbatch", *RUN]
    words += ["--run_dir", str(run), "--data", str(data)]
    job = cluster.submit(*words)
    wait_for_step(run, 1)
    cluster.call("scontrol", "requeue", job)
    wait_for(lambda: steps_stopped_at(output), "stop")
    wait_for_step(run, steps_stopped_at(output)[0] + 1)
    cluster.call("scancel", job)
    told = cluster.wait(job, output, timeout=120)
    text = output.read_text()
    assert (told["JobState"], told["Restarts"]) == ("CANCELLED", "1"), text
    assert text.count("not requeued here") == 2, text
    step = steps_stopped_at(output)[1]
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["step"], (run / "last").resolve().name) == ("stopped", step, f"step-{step:08d}")
    again = cluster.submit(*words, "--train.max_steps", str(step + 1))
    assert cluster.wait(again, output, timeout=300)["JobState"] == "COMPLETED", output.read_text()
    assert json.loads((run / "status.json").read_text()) == {"state": "done", "step": step + 1, "reason": ""}


def test_a_stop_by_hand_ends_the_job(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "job.out"
    run.mkdir(mode=0o700)
    words = ["--gpus-per-node=1", "--cpus-per-task=1", "--time=30", f"--output={output}", "slurm/train.sbatch", *RUN]
    job = cluster.submit(*words, "--run_dir", str(run), "--data", str(data))
    wait_for((run / "config.yaml").exists, "run directory")
    (run / "STOP").touch()
    told = cluster.wait(job, output, timeout=300)
    assert (told["JobState"], told["Restarts"]) == ("FAILED", "0"), output.read_text()
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert "not requeued" in output.read_text()
