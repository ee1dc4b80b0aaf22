"""A run's directory: its paths, lock and status. The engine writes checkpoints into it; everybody else only reads.

config.yaml      the complete configuration, re-runnable       metrics.jsonl   one JSON object a line
status.json      state, step, reason                           checkpoints/step-00000100/, best, last
jobs.jsonl       of each job: versions, commit, world, data    figures.json    speed and memory of the last job
lock             held by the job that trains                   index/          the sample index
STOP             made by whoever wants the job to stop; removed when it has
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import hashlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import IO, Any, Literal

from attnrec_dist.errors import CheckpointError, DamagedError, RunDirError, StorageError
from attnrec_dist.outputs import replacing

State = Literal["running", "done", "stopped", "user_error", "fault"]
MARKER = "complete.json"  # written last: a directory without it is no checkpoint
OBJECTIVE_FILE = "objective.safetensors"  # weights of model and loss
AVERAGE_FILE = "average.safetensors"  # their running average, where the run keeps one: what is evaluated and used
CHECKPOINT_FORMAT = 1


class RunDir:
    """Paths of a run. `lock` is an operating-system lock on a file, so a killed job never leaves it behind."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: IO[str] | None = None
        self._is_new = False
        self._telling = threading.Lock()  # of status.json
        self._ended = False

    @classmethod
    def existing(cls, path: Path) -> RunDir:
        """Raises RunDirError when there is no run in `path`."""
        if not path.is_dir():
            raise RunDirError(f"{path}: {_instead_of_a_run(path)}")
        if not (path / "config.yaml").is_file():
            raise RunDirError(f"{path}: holds no config.yaml, so it is no run directory of `attnrec train`{_what_it_is(path)}")
        return cls(path)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def stop(self) -> Path:
        return self.path / "STOP"

    def create(self) -> None:
        """Makes the directory, readable by its owner only. Raises RunDirError where something else is in the way."""
        if self.path.exists() and not self.path.is_dir():
            raise RunDirError(f"{self.path}: is a file; name a directory with --run_dir")
        if self.path.is_dir() and not self.config.exists() and not all(map(_left_by_create, self.path.iterdir())):
            raise RunDirError(f"{self.path}: holds other files and no run; name an empty or a new directory with --run_dir")
        self._is_new = not self.path.exists()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.checkpoints.mkdir(mode=0o700, exist_ok=True)
            self.index.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError.of(error, f"making the run directory {self.path}") from None

    def lock(self) -> None:
        """Claims the directory for this process until it ends. Raises RunDirError when another job holds it."""
        try:
            file = open(self.path / "lock", "a+")  # noqa: SIM115  (held as long as the process lives)
        except OSError as error:
            raise StorageError.of(error, f"locking the run directory {self.path}") from None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # nobody holds it: the file system has no locks
                file.close()
                raise StorageError(
                    f"{self.path}: its file system takes no lock ({error.strerror}), and without one two jobs could write here; "
                    "choose a --run_dir elsewhere, or have it mounted with locks (Lustre: -o flock)"
                ) from None
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise RunDirError(
                f"{self.path}: another job is training here ({holder}); wait for it, stop it, or choose another --run_dir"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._lock, self._ended = file, False

    @property
    def locked(self) -> bool:
        """Whether this process holds the directory."""
        return self._lock is not None

    def discard(self) -> bool:
        """Removes what `create` and `lock` made, where nothing else has come into it; whether it did."""
        if not self._is_new or not self.locked:
            return False
        files = (self.path / "status.json", self.config, self.jobs, self.path / "lock")
        folders = (self.checkpoints, self.index)
        if set(self.path.iterdir()) - {*files, *folders} or any(any(folder.iterdir()) for folder in folders):
            return False
        for folder in folders:
            folder.rmdir()
        for file in files:
            file.unlink(missing_ok=True)
        self.path.rmdir()
        return True

    def write_status(self, state: State, step: int, reason: str = "") -> None:
        """`running` is not written over this process's last word, which the watchdog may say while a thread still saves."""
        with self._telling:
            if self._ended and state == "running":
                return
            self._ended = state != "running"
            text = json.dumps({"state": state, "step": step, "reason": reason}, indent=1) + "\n"
            write_whole(self.path / "status.json", text)

    def status(self) -> dict[str, Any]:
        try:
            status: dict[str, Any] = json.loads((self.path / "status.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {"state": "unknown", "step": 0, "reason": "no status.json"}
        return status

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints with a marker, oldest first."""
        return sorted(path for path in self.checkpoints.glob("step-*") if (path / MARKER).is_file())

    def checkpoint(self, name: str) -> Path:
        """The checkpoint that the link `best` or `last` names, or one by its own name. Raises CheckpointError."""
        path = (self.path / name).resolve() if name in ("best", "last") else self.checkpoints / name
        if not (path / MARKER).is_file():
            there = ", ".join(each.name for each in self.complete_checkpoints()) or "none"
            raise CheckpointError(f"{self.path}: no complete checkpoint {name!r}; complete ones: {there}")
        return path


def _instead_of_a_run(path: Path) -> str:
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return f"is a YAML file; name the run directory that `attnrec train {path}` makes, such as runs/{path.stem}"
    if path.exists():
        return "is a file; name the directory of a run"
    runs = {run.name: run for folder in (Path("runs"), path.parent) for run in _runs_in(folder)}
    close = difflib.get_close_matches(path.name, runs, 1, 0.6)
    hint = f"did you mean {runs[close[0]]}? " if close else ""
    return f"no such run directory; {hint}`attnrec train CONFIG.yaml --run_dir {path}` makes one"


def _what_it_is(path: Path) -> str:
    runs = [run.name for run in _runs_in(path)]
    if runs:
        return f"; runs inside: {', '.join(runs[:10])}{', ...' if len(runs) > 10 else ''}; name one, such as {path / runs[0]}"
    if (path / "manifest.json").is_file():
        return "; it is a data set, as `attnrec prepare` writes them: name a run that was trained on it"
    return ""


def _runs_in(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if (each / "config.yaml").is_file())
    except OSError:
        return []


def _left_by_create(path: Path) -> bool:
    """What a job that was killed before it wrote config.yaml may have left: no run, but nobody else's files either."""
    return path.name in ("lock", "checkpoints", "index", "STOP") or (
        path.name.startswith("config.yaml.") and path.suffix == ".partial"
    )


def verify(checkpoint: Path, identity: dict[str, Any]) -> None:
    """Raises DamagedError when a checkpoint is truncated or damaged, CheckpointError when it is of other data or model."""
    hint = f"remove {checkpoint} to go on from the one before it, or choose another --run_dir"
    try:
        marker = json.loads((checkpoint / MARKER).read_text())
        files = marker["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedError(f"{checkpoint}: its {MARKER} cannot be read; {hint}") from None
    if marker.get("format_version") != CHECKPOINT_FORMAT:
        found = marker.get("format_version")
        raise CheckpointError(f"{checkpoint}: has format {found}, this version reads {CHECKPOINT_FORMAT}; {hint}")
    for key, value in identity.items():
        if marker.get(key) != value:
            raise CheckpointError(f"{checkpoint}: was written with {key} {marker.get(key)}, but this run has {value}; {hint}")
    for name, expected in files.items():
        path = checkpoint / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise DamagedError(f"{path}: {found}, {expected['bytes']} were written; {hint}")
        if checksum(path) != expected["sha256"]:
            raise DamagedError(f"{path}: its content differs from its checksum, so it is damaged; {hint}")


def read_weights(checkpoint: Path) -> dict[str, Any]:
    """The model's tensors by name, averaged ones where there are any. Raises CheckpointError when the checkpoint is damaged."""
    from safetensors.torch import load_file

    verify(checkpoint, {})
    tensors = load_file(checkpoint / OBJECTIVE_FILE)
    if (checkpoint / AVERAGE_FILE).is_file():
        tensors |= load_file(checkpoint / AVERAGE_FILE)
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Replaces a small file at once: readers see the old text or the new, never a part."""
    with replacing(path) as file:
        file.write(text.encode())
