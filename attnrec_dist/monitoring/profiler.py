"""Where a step's time goes: torch's profiler over a few warm steps, a trace for each rank, and ten lines that say it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from attnrec_dist.errors import StorageError

WARM = 5  # steps of this job that are left out: first ones allocate and compile
LINES = 10


class StepProfile(AbstractContextManager["StepProfile"]):
    """Profiles `steps` steps after WARM ones, into `directory`, and tells the summary to `say`; 0 steps: nothing at all."""

    def __init__(self, directory: Path, rank: int, steps: int, say: Callable[[str], None]):
        self.directory, self.rank, self.steps, self.say = directory, rank, steps, say
        self._done = 0
        self._profiler: Any = None

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None and self._done > WARM:
            self._finish()
        elif self._profiler is not None:  # nothing to tell, or an error that is the one to tell
            with suppress(RuntimeError):
                self._profiler.__exit__(None, None, None)

    def step(self) -> None:
        """After each step of the job. Raises StorageError."""
        self._done += 1
        if self.steps and self._done == WARM:
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profiler = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profiler.__enter__()
        if self._done == WARM + self.steps:
            self._finish()

    def _finish(self) -> None:
        if self._profiler is None:
            return
        found, self._profiler = self._profiler, None
        found.__exit__(None, None, None)
        trace = self.directory / f"rank-{self.rank}.json"
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            found.export_chrome_trace(str(trace))
            summary = summarise(found.key_averages(), self._done - WARM)
            (self.directory / f"rank-{self.rank}.txt").write_text(summary + "\n")
        except OSError as error:
            raise StorageError.of(error, f"writing {trace}") from None
        self.say(f"{summary}\nthe trace: {trace}")


def summarise(averages: Any, steps: int) -> str:
    """Ten lines: what took longest of itself, in ms a step, its share, and how often it ran in a step."""
    gpu = torch.cuda.is_available()
    rows = [(event.self_device_time_total if gpu else event.self_cpu_time_total, event.count, event.key) for event in averages]
    total = sum(row[0] for row in rows) or 1
    lines = [f"{'ms a step':>10} {'share':>6} {'calls':>6}  {'on the GPU' if gpu else 'on the CPU'}, of itself"]
    for time, count, name in sorted(rows, reverse=True)[: LINES - 1]:
        lines.append(f"{time / 1000 / steps:10.3f} {time / total:6.1%} {count / steps:6.0f}  {name}")
    return "\n".join(lines)
