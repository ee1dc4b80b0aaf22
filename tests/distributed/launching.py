"""Starts real jobs, kills them to the last process, and reads what they left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forking import Forked
from safetensors.torch import load_file

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPT = HERE / "scripts" / "recorded.py"
TOKEN = "ATTNREC_TEST_JOB"  # by this variable a job's processes are told from all others
TAIL = 4000
PATIENCE = 300.0  # seconds after which a job counts as hanging


@dataclass
class Job:
    """A started job: the launcher and all that it has started, wherever in the process tree they went."""

    process: subprocess.Popen[str] | Forked
    token: str
    output: Path
    record: Path

    def pids(self) -> list[int]:
        """Living processes of this job, the launcher first."""
        mark = f"{TOKEN}={self.token}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                    if session == self.process.pid or mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return sorted(found, key=lambda pid: (pid != self.process.pid, pid))

    def rank_pid(self, rank: int) -> int:
        """The process of a rank: that child of the launcher (or the launcher itself) whose environment says so."""
        if rank == 0 and self.record.joinpath("plain").exists():
            return self.process.pid
        if (named := self.record / f"rank-{rank}.pid").exists():
            return int(named.read_text())
        for pid in self.pids():
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in environment:
                return pid
        raise AssertionError(f"rank {rank} does not run:\n{self.text()}")

    def text(self) -> str:
        return self.output.read_text()[-TAIL:] if self.output.exists() else ""

    def wait_paused(self, timeout: float = PATIENCE) -> None:
        """Returns when the rank that PAUSE_AT names has come to its place."""
        self.wait_for((self.record / "paused").exists, "pause", timeout)

    def release(self) -> None:
        (self.record / "paused").unlink()

    def signal(self, number: int, rank: int | None = None) -> None:
        """A signal to one rank, or to the launcher."""
        os.kill(self.process.pid if rank is None else self.rank_pid(rank), number)

    def wait_for(self, condition: Any, what: str, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode} before {what}:\n{self.text()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"no {what} within {timeout:.0f} s:\n{self.text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL to every process of the job, until none is left."""
        while pids := self.pids():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()

    def wait(self, expect: int | None = 0, timeout: float = PATIENCE) -> str:
        """Its output. Fails, and kills it, when it does not end in time or with another exit code (None: any but 0)."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"hangs: no end within {timeout:.0f} s:\n{self.text()}") from None
        self.wait_gone(60)
        if (code == 0) if expect is None else (code != expect):
            raise AssertionError(f"exit code {code}, expected {'an error' if expect is None else expect}:\n{self.text()}")
        return self.text()

    def wait_gone(self, timeout: float) -> None:
        """Fails, and kills them, when processes of this job outlive the launcher by more than this."""
        deadline = time.monotonic() + timeout
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        if left := self.pids():
            self.kill()
            raise AssertionError(f"{len(left)} processes live on without their launcher:\n{self.text()}")


@dataclass
class Trial:
    """A run directory with its record: started as often as a test likes, on any number of processes."""

    directory: Path
    config: Path
    overrides: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    def arguments(self, **overrides: Any) -> list[str]:
        words = ["train", str(self.config), "--run_dir", str(self.run_dir)]
        for key, value in {**self.overrides, **overrides}.items():
            words += [f"--{key.replace('__', '.')}", str(value)]
        return words

    def start(self, world: int = 1, launcher: str = "forked", pause_at: str = "", **overrides: Any) -> Job:
        return self.start_command(self.arguments(**overrides), world, launcher, pause_at)

    def start_command(self, arguments: list[str], world: int = 1, launcher: str = "forked", pause_at: str = "") -> Job:
        record = self.directory / f"attempt-{len(self.jobs)}"
        record.mkdir(parents=True)
        job = start([str(SCRIPT), *arguments], record, world, launcher, PAUSE_AT=pause_at, **self.environment)
        self.jobs.append(job)
        return job

    def run(self, world: int = 1, expect: int | None = 0, timeout: float = PATIENCE, **rest: Any) -> str:
        return self.start(world, **rest).wait(expect, timeout)

    def close(self) -> None:
        for job in self.jobs:
            job.kill()

    # what it left behind

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / "metrics.jsonl").read_text().splitlines()]

    def curve(self) -> list[tuple[int, str, float]]:
        """(step, name, value) of everything measured, in the order of the file; clocks and counts of one rank left out."""
        keys, parts = ("epoch", "loss", "learning_rate"), ("eval/",)
        measured = ((line["step"], key, value) for line in self.lines() for key, value in line.items())
        return [each for each in measured if each[1] in keys or each[1].startswith(parts)]

    def losses(self) -> dict[int, float]:
        return {line["step"]: line["loss"] for line in self.lines() if "loss" in line}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_dir / "status.json").read_text())
        del found["checksum"]
        return found

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.run_dir / "checkpoints").iterdir())

    def progress(self) -> dict[str, Any]:
        """What a checkpoint tells of where the run is, but for the clock."""
        found: dict[str, Any] = json.loads((self.run_dir / "last" / "progress.json").read_text())
        return {key: value for key, value in found.items() if "seconds" not in key}

    def weights(self) -> dict[str, Any]:
        return dict(load_file(self.run_dir / "last" / "objective.safetensors"))

    def optimizer(self) -> dict[str, Any]:
        return dict(load_file(self.run_dir / "last" / "optimizer.safetensors"))

    def trained(self) -> dict[int, list[dict[str, Any]]]:
        """step (from 0) -> what each rank trained in it, by the last attempt that came there."""
        found: dict[int, list[dict[str, Any]]] = {}
        for job in self.jobs:
            attempt: dict[int, list[dict[str, Any]]] = {}
            for path in sorted(job.record.glob("rank-*.jsonl")):
                for line in path.read_text().splitlines():
                    entry = json.loads(line)
                    attempt.setdefault(entry["step"], []).append(entry)
            if attempt:
                found = {step: entries for step, entries in found.items() if step < min(attempt)} | attempt
        return found


def start(script: list[str], record: Path, world: int = 1, launcher: str = "forked", **environment: str) -> Job:
    """Starts a script: `plain` as it is; `forked` under a launcher like torchrun, both forked off one with all imports done;
    under the true `torchrun`; under `accelerate` with launch/ddp.yaml."""
    token = uuid.uuid4().hex
    variables = {"OMP_NUM_THREADS": "1", "RECORD_DIR": str(record), TOKEN: token, "CUDA_VISIBLE_DEVICES": "", **environment}
    output, everything = record / "output.txt", os.environ | variables
    if launcher in ("plain", "forked"):
        if launcher == "plain":
            (record / "plain").touch()
        ranks = 0 if launcher == "plain" else world
        forked = Forked(script=script, world=ranks, environment=dict(everything), folder=str(ROOT), output=str(output))
        return Job(forked, token, output, record)
    python = [sys.executable, "-m"]
    if launcher == "torchrun":
        python += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
    else:
        python += ["accelerate.commands.launch", "--config_file", str(ROOT / "launch" / "ddp.yaml")]
        python += ["--num_processes", str(world), "--main_process_port", "0"]
    python += environment.pop("LAUNCHER_OPTIONS", "").split()
    with open(output, "w") as file:
        process = subprocess.Popen(
            python + script, cwd=ROOT, env=everything, stdout=file, stderr=file, start_new_session=True, text=True
        )
    return Job(process, token, output, record)
