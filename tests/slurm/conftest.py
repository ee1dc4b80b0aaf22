"""A Slurm to test on: the sandbox that SLURM_SANDBOX names (started here, stopped afterwards), else whichever one is reachable.

The sandbox is a script with the commands `up`, `exec -- COMMAND` and `down`: a controller and two nodes on this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")
ENVIRONMENT = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}


@dataclass
class Cluster:
    """Commands of Slurm, called where they work."""

    prefix: list[str]

    def call(self, *words: str) -> str:
        done = subprocess.run(
            [*self.prefix, *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def submit(self, *words: str) -> str:
        """The id of the job."""
        return self.call("sbatch", "--parsable", *words).strip().split(";")[0]

    def wait(self, job: str, output: Path, timeout: float) -> dict[str, str]:
        """What `scontrol show job` tells when the job has ended; fails, and cancels it, when it has not in time."""
        deadline = time.monotonic() + timeout
        while True:
            told = dict(word.split("=", 1) for word in self.call("scontrol", "show", "job", "-o", job).split() if "=" in word)
            if told["JobState"] in ENDED:
                return told
            if time.monotonic() > deadline:
                self.call("scancel", "--full", job)
                raise AssertionError(f"job {job} is {told['JobState']} after {timeout:.0f} s:\n{output.read_text()[-6000:]}")
            time.sleep(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    sandbox = os.environ.get("SLURM_SANDBOX")
    if not sandbox:
        try:
            subprocess.run(["sinfo"], capture_output=True, check=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            pytest.skip("no Slurm here: set SLURM_SANDBOX to the script of a sandbox, or run this where sinfo answers")
        yield Cluster([])
        return
    conf = tmp_path_factory.mktemp("slurm") / "extra.conf"
    conf.write_text("KillWait=120\n")  # a checkpoint and the last words of a script take their time on a busy machine
    environment = {"SLURM_SANDBOX_EXTRA_CONF": str(conf), **os.environ}
    started = subprocess.run([sandbox, "up"], env=environment, capture_output=True, text=True, timeout=600, check=False)
    if started.returncode:
        pytest.skip(f"{sandbox} up: {started.stderr.strip().splitlines()[-1]}")
    try:
        yield Cluster([sandbox, "exec", "--"])
    finally:
        subprocess.run([sandbox, "down"], capture_output=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled log, prepared."""
    path = tmp_path_factory.mktemp("bundled") / "data"
    attnrec("prepare", "configs/prepare/quickstart.yaml", "--output", str(path))
    return path


def attnrec(*words: str, launcher: tuple[str, ...] = ()) -> None:
    command = [*(launcher or (sys.executable, "-m", "attnrec_dist")), *words]
    environment = ENVIRONMENT | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")


@pytest.fixture
def curve() -> Callable[[Path], list[tuple[int, str, float]]]:
    def read(run: Path) -> list[tuple[int, str, float]]:
        """(step, name, value) of losses and validations, in the order of the file; not the speeds beside them (job/...)."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        measured = [(line["step"], key, value) for line in lines for key, value in line.items()]
        return [each for each in measured if each[1] == "loss" or ("/" in each[1] and not each[1].startswith("job/"))]

    return read
