"""TensorBoard, Weights & Biases and MLflow beside metrics.jsonl: Accelerate's trackers, each in a thread of its own, so that a
server that is slow, or gone, holds up no step and ends no training.

A run that goes on goes on in the same run of its tracker: RUN_DIR/wandb.id and RUN_DIR/mlflow.id keep its name. Where to is said
as these libraries have it, by WANDB_MODE, WANDB_API_KEY, MLFLOW_TRACKING_URI and so on, so nothing of it comes into config.yaml.
"""

from __future__ import annotations

import importlib.util
import queue
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from attnrec_dist.errors import MissingExtraError
from attnrec_dist.run_dir import write_whole
from attnrec_dist.storage.stored import read_text

WAITING = 10_000  # looks at the losses, each of some steps, that a tracker may lag behind
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")  # what W&B and MLflow take for a run's
THREAD = "tracker"  # how its thread's name begins
PATIENCE = 20.0  # seconds that the end of a job waits for what a tracker has not yet taken
Line = dict[str, Any]


def require(names: list[str]) -> None:
    """Raises MissingExtraError for a tracker that is not installed."""
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # without one it is a mere folder of that name, such as W&B's own
            raise MissingExtraError(name, name, f"tracking.{name}")


class Tracker:
    """Takes lines at once and passes them on when it can; what fails is told once, and the tracker left out from then on."""

    def __init__(self, name: str, opened: Callable[[], GeneralTracker]):
        self.name = name
        self._opened = opened
        self._lines: queue.Queue[list[Line] | None] = queue.Queue(WAITING)
        self._behind = False
        self._thread = threading.Thread(target=self._pass_on, name=f"{THREAD} {name}", daemon=True)
        self._thread.start()

    def log(self, lines: list[Line]) -> None:
        """Each a step with its values."""
        self._put(lines)

    def end(self) -> None:
        """Nothing more is to come."""
        self._put(None)

    def _put(self, lines: list[Line] | None) -> None:
        if not self._thread.is_alive():
            return
        try:
            self._lines.put_nowait(lines)
        except queue.Full:
            if not self._behind:
                self._behind = True
                self._say("is too slow, so steps are left out; metrics.jsonl has them all")

    def wait(self, until: float) -> None:
        """Until it has taken everything, or a time of time.monotonic()."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._say(f"has not taken everything within {PATIENCE:.0f} s; metrics.jsonl has it all")

    def _pass_on(self) -> None:
        try:
            tracker = self._opened()
            while (lines := self._lines.get()) is not None:
                for line in lines:
                    tracker.log(self._values(line), step=None if self.name == "wandb" else line["step"])
            tracker.finish()
            if self.name == "wandb":
                _leave_wandb()
        except BaseException as error:  # whatever a tracker's library raises
            self._say(f"{' '.join(str(error).split()) or type(error).__name__}; training goes on without it")

    def _values(self, line: Line) -> Line:
        """The line as this tracker takes it."""
        named = {
            key if "/" in key else f"train/{key}": value
            for key, value in line.items()
            if key != "step" and isinstance(value, int | float)
        }
        if self.name == "mlflow":
            return {key.replace("@", "_at_"): value for key, value in named.items()}  # it takes no @
        if self.name == "wandb":  # a step of its own only grows; a resumed run comes to the same steps again
            return {**named, "step": line["step"]}
        return named

    def _say(self, what: str) -> None:
        print(f"attnrec: tracking.{self.name}: {what}", file=sys.stderr, flush=True)


def open_trackers(names: list[str], run_dir: Path, project: str, config: Line) -> list[Tracker]:
    """One Tracker a name; `config` is the flat configuration, which a tracker's run is told."""
    made = {
        "tensorboard": lambda: _started(TensorBoardTracker("tensorboard", run_dir)),
        "wandb": lambda: _wandb(run_dir, project, config),
        "mlflow": lambda: _mlflow(run_dir, project, config),
    }
    return [Tracker(name, made[name]) for name in names]


def _started(tracker: GeneralTracker) -> GeneralTracker:
    tracker.start()
    return tracker


def kept_name(file: Path) -> str | None:
    """The name of a tracker's run that a file keeps; None where there is none, or nothing that can be one, which is told."""
    try:
        name = read_text(file).strip()
        wrong = "" if NAME.fullmatch(name) else "it holds no name of a run"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        wrong = error.strerror or str(error) if isinstance(error, OSError) else "it is no text"
    if not wrong:
        return name
    print(f"attnrec: {file}: {wrong}; a new run of the tracker is begun", file=sys.stderr, flush=True)
    return None


def _wandb(run_dir: Path, project: str, config: Line) -> GeneralTracker:
    import wandb

    kept = run_dir / "wandb.id"
    name = kept_name(kept) or uuid.uuid4().hex
    write_whole(kept, name)  # at once: the next job shall go on in this run even if W&B takes longer to start than this one lasts
    quiet = wandb.Settings(console="off", disable_git=True, save_code=False)  # no address of a repository leaves the machine
    tracker = _started(WandBTracker(project, id=name, resume="allow", name=run_dir.name, dir=str(run_dir), settings=quiet))
    tracker.tracker.define_metric("step")
    tracker.tracker.define_metric("*", step_metric="step")
    tracker.store_init_configuration(config)
    return tracker


def _leave_wandb() -> None:
    """Waits for W&B's own process. `finish` asks it to write the rest of the run's file and does not wait for that: what a job
    that ends at once, or somebody who reads the file, has of the run then depends on who is faster."""
    import wandb

    wandb.teardown()


def _mlflow(run_dir: Path, project: str, config: Line) -> GeneralTracker:
    kept = run_dir / "mlflow.id"
    name = kept_name(kept)
    if name is not None:
        return _started(MLflowTracker(project, run_id=name))
    tracker = _started(MLflowTracker(project, run_name=run_dir.name))
    tracker.store_init_configuration(config)
    write_whole(kept, tracker.tracker.info.run_id)
    return tracker
