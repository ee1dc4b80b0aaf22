"""A run's directory: its paths, lock and status. The engine writes checkpoints into it; everybody else only reads.

config.yaml      the complete configuration, re-runnable       metrics.jsonl   one JSON object a line
status.json      state, step, reason                           checkpoints/step-00000100/, best, last
jobs.jsonl       of each job: versions, commit, world, data    figures.json    speed and memory of the last job
lock             held by the job that trains                   index/          the sample index
baselines.json   their values on validation, once drawn
STOP             made by whoever wants the job to stop; removed when it has
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import json
import os
import re
import socket
import threading
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, Field

from attnrec_dist.errors import CheckpointError, DamagedError, RunDirError, StorageError
from attnrec_dist.settings import flatten
from attnrec_dist.storage.outputs import make_folders, replacing, take_back
from attnrec_dist.storage.stored import as_schema, read_json, read_tree, sealed, sha256_of

State = Literal["running", "done", "stopped", "user_error", "fault"]
MARKER = "complete.json"  # written last: a directory without it is no checkpoint
PROGRESS = "progress.json"
OBJECTIVE_FILE = "objective.safetensors"  # weights of model and loss
AVERAGE_FILE = "average.safetensors"  # their running average, where the run keeps one: what is evaluated and used
CHECKPOINT_FORMAT = 1
ASIDE = ".aside"  # of a checkpoint that makes room for another of its step, until that is whole
_CHECKPOINT = re.compile(r"step-(\d{8,})|\.step-(\d{8,})" + re.escape(ASIDE))


class Status(BaseModel):
    """What status.json holds."""

    state: State | Literal["unknown"]
    step: int = Field(ge=0)
    reason: str


class StoredPart(BaseModel):
    """A file of a checkpoint, as its marker lists it."""

    bytes: int = Field(ge=0)
    sha256: str


class Best(BaseModel):
    """Of a checkpoint's progress.json, which step was the best so far; 0: none was measured."""

    best_step: int = Field(ge=0)


class Marker(BaseModel):
    """What complete.json holds. The last three keys are younger than the format: older checkpoints lack them."""

    format_version: int
    step: int = Field(ge=0)
    data_fingerprint: str = Field(alias="data fingerprint")
    model: str
    files: dict[str, StoredPart]
    manifest: str | None = Field(None, alias="manifest checksum", description="of the data set that it was trained on")
    config: dict[str, Any] | None = Field(None, description="the run's configuration, but for what a resumed run may change")
    checksum: str | None = Field(None, description="stored.checksum_of all the rest")


class RunDir:
    """Paths of a run. `lock` is an operating-system lock on a file, so a killed job never leaves it behind."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: IO[bytes] | None = None
        self._made: list[Path] = []  # by `create`
        self._held_before: bytes | None = None  # what the lock's file said; None where there was none
        self.begun = False  # everything was checked, and the training's own files may be written
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
        try:
            for folder in (self.path, self.checkpoints, self.index):
                self._made += make_folders(folder, 0o700)
        except OSError as error:
            raise StorageError.of(error, f"making the run directory {self.path}") from None

    def lock(self) -> None:
        """Claims the directory for this process until it ends. Raises RunDirError when another job holds it."""
        existed = (self.path / "lock").exists()
        try:
            file = open(self.path / "lock", "ab+")  # noqa: SIM115  (held as long as the process lives)
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
            holder = file.read().decode(errors="replace").strip() or "unknown"
            file.close()
            raise RunDirError(
                f"{self.path}: another job is training here ({holder}); wait for it, stop it, or choose another --run_dir"
            ) from None
        file.seek(0)
        self._held_before = file.read() if existed else None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        self._lock, self._ended = file, False

    def unlock(self) -> None:
        """Gives up the claim, if this process has it; nothing is written any more."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def locked(self) -> bool:
        """Whether this process holds the directory."""
        return self._lock is not None

    @property
    def is_new(self) -> bool:
        """Whether `create` made the directory."""
        return self.path.absolute() in self._made

    def discard(self) -> bool:
        """Removes what a refused start left in a directory that it made, where nothing else has come into it; whether it did."""
        if not self.is_new or not self.locked:
            return False
        files = [self.path / name for name in ("status.json", "config.yaml", "jobs.jsonl", "lock")] + [
            *self.index.glob("samples-*")
        ]
        inside = [*self.path.iterdir(), *self.checkpoints.iterdir(), *self.index.iterdir()]
        if set(inside) - {*files, self.checkpoints, self.index}:
            return False
        for file in files:
            file.unlink(missing_ok=True)
        take_back(self._made)
        return True

    def leave(self) -> None:
        """Takes back what `create` and `lock` changed in a directory that was there before: a refused start leaves no trace."""
        if self._lock is None:
            return
        self._lock.truncate(0)
        self._lock.write(self._held_before or b"")
        self._lock.flush()
        if self._held_before is None:
            (self.path / "lock").unlink(missing_ok=True)
        take_back(self._made)

    def write_status(self, state: State, step: int, reason: str = "") -> None:
        """`running` is not written over this process's last word, which the watchdog may say while a thread still saves."""
        with self._telling:
            if self._ended and state == "running":
                return
            self._ended = state != "running"
            text = json.dumps(sealed({"state": state, "step": step, "reason": reason}), indent=1) + "\n"
            write_whole(self.path / "status.json", text)

    def status(self) -> dict[str, Any]:
        """What status.json says; where it is missing or damaged, the state is unknown and the step is the newest checkpoint's."""
        try:
            return read_json(self.path / "status.json", Status).model_dump()
        except (OSError, ValueError) as error:
            why = "no status.json" if isinstance(error, FileNotFoundError) else "status.json cannot be read"
            return {"state": "unknown", "step": max(map(step_of, self.complete_checkpoints()), default=0), "reason": why}

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints with a marker, oldest first; whatever else lies there is none. One that was stepped aside for another that
        never became whole stands for it."""
        found: dict[int, Path] = {}
        for path in sorted(self.checkpoints.glob(f".step-*{ASIDE}")) + sorted(self.checkpoints.glob("step-*")):
            if is_checkpoint(path) and (path / MARKER).is_file():
                found[step_of(path)] = path
        return [found[step] for step in sorted(found)]

    def checkpoint(self, name: str) -> Path:
        """The checkpoint that the link `best` or `last` names (where the link is lost or damaged, the one that a training would
        link), or one by its own name. Raises CheckpointError."""
        path = Path(os.path.realpath(self.path / name)) if name in ("best", "last") else self.checkpoints / name
        copied = self.path / name  # by what followed the link
        ours = copied.is_dir() and not copied.is_symlink() and os.path.lexists(copied / MARKER)
        ours = ours or (is_checkpoint(path) and path.parent == Path(os.path.realpath(self.checkpoints)))
        named = ours or is_checkpoint(self.checkpoints / name)
        if not named and (meant := self._to_be_linked(name)) is not None:
            return meant
        if not named or not (path / MARKER).is_file():
            there = ", ".join(each.name for each in self.complete_checkpoints()) or "none"
            raise CheckpointError(
                f"{self.path}: no complete checkpoint {name!r}; complete ones: {there}; name one of them with --checkpoint"
            )
        return path

    def _to_be_linked(self, name: str) -> Path | None:
        """What `best` or `last` has to name, by what the newest checkpoint tells; None where it cannot be told."""
        for path in reversed(self.complete_checkpoints() if name in ("best", "last") else []):
            with contextlib.suppress(OSError, ValueError):  # damaged: the one before it counts
                step = read_json(path / PROGRESS, Best).best_step if name == "best" else 0
                best = self.checkpoints / f"step-{step:08d}"
                return path if not step else best if best in self.complete_checkpoints() else None
        return None


def is_checkpoint(path: Path) -> bool:
    """Whether a path bears a checkpoint's name and is a directory of its own."""
    return _CHECKPOINT.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()


def step_of(checkpoint: Path) -> int:
    found = _CHECKPOINT.fullmatch(checkpoint.name)
    return int(found[1] or found[2]) if found else 0


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
    return path.name in ("lock", "checkpoints", "index", "STOP", "status.json") or (
        path.name.startswith("config.yaml.") and path.suffix == ".partial"
    )


def read_marker(checkpoint: Path) -> Marker:
    """Raises DamagedError where it cannot be read or contradicts itself, CheckpointError where it is of another format."""
    try:
        tree = read_tree(checkpoint / MARKER)
        found = tree.get("format_version")
        if isinstance(found, int) and found > CHECKPOINT_FORMAT:
            raise CheckpointError(
                f"{checkpoint}: has format {found}, this version reads {CHECKPOINT_FORMAT}; go on with the version that wrote "
                "it, or choose another --run_dir"
            )
        marker = as_schema(Marker, tree)
    except (OSError, ValueError) as error:
        raise DamagedError(f"{checkpoint}: its {MARKER} cannot be read ({error}); {_remove_hint(checkpoint)}") from None
    if is_checkpoint(checkpoint) and marker.step != step_of(checkpoint):
        raise DamagedError(f"{checkpoint}: its {MARKER} is of step {marker.step}; {_remove_hint(checkpoint)}")
    return marker


def verify(checkpoint: Path, identity: dict[str, Any]) -> Marker:
    """The marker of a checkpoint that is whole. Raises DamagedError when it is truncated or damaged, CheckpointError when it is
    of another model, configuration or data set than the `identity` says."""
    marker = read_marker(checkpoint)
    told = {"data fingerprint": marker.data_fingerprint, "model": marker.model}
    for key, value in identity.items():
        if key in told and told[key] != value:
            way_out = "name the data set that it was trained on with --data, or " if key == "data fingerprint" else ""
            raise CheckpointError(
                f"{checkpoint}: was written with {key} {told[key]}, but this run has {value}; {way_out}choose another --run_dir"
            )
    refuse_other_keys(checkpoint, marker, identity.get("config"))
    if OBJECTIVE_FILE not in marker.files:
        raise DamagedError(f"{checkpoint}: its {MARKER} lists no weights; {_remove_hint(checkpoint)}")
    for name, expected in marker.files.items():
        path, wrong = checkpoint / name, ""
        size = path.stat().st_size if path.is_file() and "/" not in name else None
        if size != expected.bytes:
            wrong = f"{'is missing' if size is None else f'has {size} bytes'}, {expected.bytes} were written"
        elif _sha256_of(path) != expected.sha256:
            wrong = "its content differs from its checksum, so it is damaged"
        if wrong:
            raise DamagedError(f"{path}: {wrong}; {_remove_hint(checkpoint)}")
    return marker


def _sha256_of(path: Path) -> str:
    """Raises StorageError where a file is there but cannot be read: that is no damage, so no other checkpoint is taken for it."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise StorageError.of(error, f"reading {path}") from None


def refuse_other_keys(checkpoint: Path, marker: Marker, tree: dict[str, Any] | None) -> None:
    """Raises CheckpointError where a configuration differs from what a checkpoint was trained with, in a key that decides it."""
    if marker.config is None or tree is None:
        return
    before, now = flatten(marker.config), flatten(tree)
    changed = [f"{key}: was {value!r}, now {now.get(key)!r}" for key, value in before.items() if now.get(key) != value]
    if changed:
        raise CheckpointError(
            f"{checkpoint}: was trained with other keys than the run's config.yaml now has: it was changed since; set back:\n  "
            + "\n  ".join(changed)
        )


def _remove_hint(checkpoint: Path) -> str:
    return f"remove {checkpoint} to go on from the one before it, or choose another --run_dir"


def read_weights(checkpoint: Path) -> dict[str, Any]:
    """The model's tensors by name, averaged ones where there are any. Raises CheckpointError when the checkpoint is damaged."""
    from safetensors.torch import load_file

    verify(checkpoint, {})
    tensors = load_file(checkpoint / OBJECTIVE_FILE)
    if (checkpoint / AVERAGE_FILE).is_file():
        tensors |= load_file(checkpoint / AVERAGE_FILE)
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}


def write_whole(path: Path, text: str) -> None:
    """Replaces a small file at once: readers see the old text or the new, never a part."""
    with replacing(path) as file:
        file.write(text.encode())
