"""What a run tells, on rank 0: metrics.jsonl, trackers (trackers.py), a progress bar or, without a terminal, plain lines."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from torch import Tensor

from attnrec_dist.errors import FaultError, RunDirError, StorageError
from attnrec_dist.monitoring.trackers import PATIENCE, Tracker, open_trackers
from attnrec_dist.run_dir import write_whole
from attnrec_dist.settings import Section, flatten
from attnrec_dist.storage.stored import json_lines

PLAIN_LINE_SECONDS = 10.0
SHOWN = 5  # missing steps that are named
T = TypeVar("T")


class TrackingConfig(Section):
    profile_steps: int = Field(
        0, ge=0, description="steps to profile, a few after the start of a job, into RUN_DIR/profile; --profile: 10"
    )
    tensorboard: bool = Field(False, description="TensorBoard files in the run directory as well (extra: tensorboard)")
    wandb: bool = Field(False, description="Weights & Biases as well (extra: wandb; where to: WANDB_MODE, WANDB_API_KEY)")
    mlflow: bool = Field(False, description="MLflow as well (extra: mlflow; where to: MLFLOW_TRACKING_URI)")
    project: str = Field("attnrec", min_length=1, description="the project of W&B, the experiment of MLflow")
    peak_tflops: float | None = Field(
        None, gt=0, description="the device's TFLOP/s in this precision, for MFU; null: by the data sheets of known GPUs"
    )
    log_every: int = Field(
        10,
        ge=1,
        description="on a GPU: steps between looks at the losses and at stop requests; every step is logged all the same",
    )

    @property
    def trackers(self) -> list[str]:
        return [name for name in ("tensorboard", "wandb", "mlflow") if getattr(self, name)]


def metric_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Lines of metrics.jsonl, and what each holds: a step at least; None where it holds no such thing. Raises RunDirError where
    something else stands in the file's place."""
    try:
        for line, found in json_lines(path):
            numbers = {key: found.get(key, 0) for key in ("step", "loss", "seconds", "epoch")} if found else {}
            right = all(isinstance(number, int | float) for number in numbers.values()) and isinstance(numbers.get("step"), int)
            yield line, found if right and found and "step" in found else None
    except OSError as error:
        raise RunDirError(f"{path}: cannot be read ({error.strerror}); move it away, and run the same command again") from None


class Metrics:
    """One JSON object a line. Values may be tensors on the device: they are read when lines are written, not before."""

    def __init__(self, path: Path, active: bool):
        self.path, self.active = path, active
        self.trackers: list[Tracker] = []
        self._asked: Callable[[], list[Tracker]] = list
        self._waiting: list[dict[str, Any]] = []

    def require_usable(self) -> None:
        """Raises RunDirError or StorageError where the file cannot be read or added to: before a job writes anything."""
        if not self.active:
            return
        for _ in metric_lines(self.path):
            break
        try:
            if self.path.exists():
                open(self.path, "r+b").close()
        except OSError as error:
            raise StorageError.of(error, f"writing {self.path}") from None

    def cut_back(self, step: int, evaluated: bool = True, say: Callable[[str], None] = lambda text: None) -> float:
        """Drops what was logged after the step that a resumed run starts from, and that step's evaluation if it is to be done;
        tells of steps before it that are missing.

        The clock of training, in seconds, when the last of it was done; 0 on ranks that write nothing. Raises RunDirError where
        something else stands in the file's place.
        """
        if not self.active:
            return 0.0
        kept, steps, seconds, changed = [], set(), 0.0, False
        for line, found in metric_lines(self.path):
            seconds = float(found.get("seconds", seconds)) if found else seconds
            if found and (found["step"] < step or (found["step"] == step and (evaluated or "loss" in found))):
                kept.append(line.rstrip(b"\n") + b"\n")
                changed |= not line.endswith(b"\n")
                steps |= {found["step"]} if "loss" in found else set()
            else:
                changed = True
        if changed:
            write_whole(self.path, b"".join(kept).decode())
        missing = sorted(set(range(1, step + 1)) - steps)
        if missing:
            shown = ", ".join(map(str, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
            say(f"attnrec: {self.path}: {len(missing):,} of the steps up to {step:,} are missing ({shown}): the curve has a hole")
        return seconds

    def log(self, step: int, **values: Any) -> None:
        self._waiting.append({"step": step, **values})

    def flush(self) -> None:
        """Writes the waiting lines. Raises FaultError at the first loss that is not finite."""
        lines = [
            {key: value.item() if isinstance(value, Tensor) else value for key, value in line.items()} for line in self._waiting
        ]
        self._waiting = []
        if self.active and lines:
            try:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write("".join(json.dumps(line) + "\n" for line in lines))
            except OSError as error:
                raise StorageError.of(error, f"writing {self.path}") from None
            self.trackers, self._asked = self.trackers + self._asked(), list
            for tracker in self.trackers:
                tracker.log(lines)
        for line in lines:
            if not math.isfinite(line.get("loss", 0.0)):
                raise FaultError(
                    f"the loss of step {line['step']} is {line['loss']}; the newest checkpoint is from before it: "
                    "lower --optimizer.lr or set --optimizer.clip_norm 1.0, and run again"
                )

    def sync(self) -> None:
        """What was flushed is on the disk, whatever happens to the machine. Raises StorageError."""
        if not self.active or not self.path.exists():
            return
        try:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError.of(error, f"writing {self.path}") from None

    def first_not_finite(self) -> tuple[int, float] | None:
        """Step and loss of the first of the waiting lines whose loss is not finite."""
        losses = ((int(line["step"]), float(line["loss"])) for line in self._waiting if "loss" in line)
        return next((found for found in losses if not math.isfinite(found[1])), None)

    def open_trackers(self, config: Section) -> None:
        """Those that the run's configuration asks for, on rank 0, once there is something to tell."""
        asked: TrackingConfig = config.tracking  # type: ignore[attr-defined]
        flat = flatten(config.model_dump(mode="json"))
        self._asked = lambda: open_trackers(asked.trackers, self.path.parent, asked.project, flat)

    def close(self) -> None:
        """Gives the trackers PATIENCE seconds, all together, to take what they have not yet taken."""
        until = time.monotonic() + PATIENCE
        for tracker in self.trackers:
            tracker.end()
        for tracker in self.trackers:
            tracker.wait(until)


class Waiting:
    """How long training waits for its batches, in seconds: the last time and in all. Without loader workers it is the reading."""

    def __init__(self) -> None:
        self.last = self.total = 0.0

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, timed."""
        iterator = iter(batches)
        while True:
            began = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.last = time.monotonic() - began
            self.total += self.last
            yield batch


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """Loss, targets/s and time left, on stderr."""

    def __init__(self, first: int, total: int, active: bool):
        self.first, self.total, self.active = first, total, active
        self._bar: Any = None
        self._task: Any = None
        self._started = self._last_line = time.monotonic()
        self._targets = 0

    def __enter__(self) -> ProgressBar:
        if self.active and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task("training", total=self.total, completed=self.first, note="")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: int, loss: float, targets: int, waited: float = 0.0) -> None:
        """`targets` were trained by all ranks since the last call; `waited` are the seconds that this job has waited for data."""
        self._targets += targets
        now = time.monotonic()
        passed = max(now - self._started, 1e-9)
        note = f"loss {loss:.4f}  {self._targets / passed:,.0f} targets/s  {waited / passed:.0%} waiting for data"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)
        elif self.active and (now - self._last_line > PLAIN_LINE_SECONDS or step == self.total):
            left = (now - self._started) / max(step - self.first, 1) * (self.total - step)
            self.say(f"step {step}/{self.total}  {note}  {left:.0f} s left")
            self._last_line = now

    def say(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if not self.active:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
