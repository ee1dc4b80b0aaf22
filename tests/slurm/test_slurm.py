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

ENDLESS = 10**9  # steps: however fast the machine is, a run ends only where a test ends it
RUN = ["configs/quickstart-sasrec.yaml", "--train.max_steps", str(ENDLESS), "--train.max_epochs", "null"]
RUN += ["--train.micro_batch_tokens", "1024", "--checkpoint.every_steps", "40", "--evaluation.patience", "null"]
MORE = 20  # steps that the last job of a run trains
TWO_BY_TWO = ["--nodes=2", "--gpus-per-node=2", "--cpus-per-task=2", "slurm/train-multinode.sbatch", *RUN]


def status_of(run):
    found = json.loads((run / "status.json").read_text())
    return found["state"], found["step"], found["reason"]


def steps_stopped_at(output: Path) -> list[int]:
    """Of each turn that was stopped."""
    return [int(step) for step in re.findall(r": stopped at step (\d+) \(", output.read_text())]


def wait_for(found: Callable[[], object], what: str, timeout: float = 600) -> None:
    deadline = time.monotonic() + timeout
    while not found():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.1)


def wait_for_step(run: Path, step: int) -> None:
    metrics = run / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and f'{{"step": {step},' in metrics.read_text(), f"step {step}")


def test_two_nodes_stopped_by_the_time_limit_and_requeued_are_the_run_without_slurm(
    cluster: Cluster, data: Path, tmp_path: Path, curve: Callable[[Path], list]
) -> None:
    """The time limit ends the turns of a run without end, until one has trained and the next has gone on from it; it is then
    stopped by hand, and another job brings it to its end. A stop at step 1 came while the job was still starting."""
    run, output = tmp_path / "run", tmp_path / "job.out"
    where = ["--run_dir", str(run), "--data", str(data)]
    limits = ["--time=3", "--signal=B:USR2@60", f"--output={output}", *TWO_BY_TWO, *where]
    job = cluster.submit(*limits)
    wait_for(lambda: trained_and_went_on(output, run), "turn that goes on after the time limit", timeout=1200)
    by_hand = "STOP was not made by Slurm's wish; not requeued"
    wait_for(lambda: by_hand in output.read_text() or (run / "STOP").touch(), "end by hand")  # Slurm's own STOP may come between
    told = cluster.wait(job, output, timeout=600)
    (run / "STOP").unlink(missing_ok=True)
    text = output.read_text()
    assert told["JobState"] == "FAILED", text
    assert int(told["Restarts"]) == text.count(": requeued") >= 1, text
    status = json.loads((run / "status.json").read_text())
    steps = status["step"] + MORE
    assert (status["state"], status["reason"]) == ("stopped", "file STOP")
    last = cluster.submit("--time=30", f"--output={output}", *TWO_BY_TWO, *where, "--train.max_steps", str(steps))
    assert cluster.wait(last, output, timeout=600)["JobState"] == "COMPLETED", output.read_text()
    assert status_of(run) == ("done", steps, "")
    assert not (run / "STOP").exists()
    without = tmp_path / "without"
    words = ["train", *RUN, "--train.max_steps", str(steps), "--run_dir", str(without), "--data", str(data)]
    attnrec(*words, launcher=(str(ROOT / "launch" / "ddp.sh"), "4"))
    assert len([each for each in curve(run) if each[1] == "loss"]) == steps
    assert curve(run) == curve(without)


def trained_and_went_on(output: Path, run: Path) -> bool:
    """Whether a turn that the time limit ended had trained more than its first step, and a later one has trained on."""
    stops = [step for step in steps_stopped_at(output) if step > 1] if output.exists() else []
    return bool(stops) and f'{{"step": {stops[0] + 1},' in (run / "metrics.jsonl").read_text()


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
    told = cluster.wait(job, output, timeout=600)
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
    told = cluster.wait(job, output, timeout=300)
    text = output.read_text()
    assert (told["JobState"], told["Restarts"]) == ("CANCELLED", "1"), text
    assert text.count("not requeued here") == 2, text
    step = steps_stopped_at(output)[1]
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["step"], (run / "last").resolve().name) == ("stopped", step, f"step-{step:08d}")
    again = cluster.submit(*words, "--train.max_steps", str(step + 1))
    assert cluster.wait(again, output, timeout=600)["JobState"] == "COMPLETED", output.read_text()
    assert status_of(run) == ("done", step + 1, "")


def test_a_stop_by_hand_ends_the_job(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "job.out"
    run.mkdir(mode=0o700)
    words = ["--gpus-per-node=1", "--cpus-per-task=1", "--time=30", f"--output={output}", "slurm/train.sbatch", *RUN]
    job = cluster.submit(*words, "--run_dir", str(run), "--data", str(data))
    wait_for((run / "config.yaml").exists, "run directory")
    (run / "STOP").touch()
    told = cluster.wait(job, output, timeout=600)
    assert (told["JobState"], told["Restarts"]) == ("FAILED", "0"), output.read_text()
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert "not requeued" in output.read_text()
