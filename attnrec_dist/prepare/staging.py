"""Where a data set is built, and how it takes its place: aside, synced, manifest last, renamed; an older one goes only then.

The scratch directory is `.NAME.preparing` beside the output. A prepare that was killed leaves it behind; the next one
for the same output empties it, after it has put back a data set that was about to be replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attnrec_dist.data.dataset import EXAMPLES
from attnrec_dist.data.manifest import MANIFEST, SEQUENCES, Manifest
from attnrec_dist.errors import ConfigError, StorageError
from attnrec_dist.storage.outputs import make_folders, sync, take_back
from attnrec_dist.storage.stored import sealed

LOCK = "lock"
REPLACED = "replaced"


@dataclass(frozen=True)
class Workplace:
    scratch: Path
    output: Path

    @property
    def building(self) -> Path:
        """The data set while it is written."""
        return self.scratch / "dataset"

    def publish(self, manifest: Manifest) -> None:
        """Manifest last, all synced, then the directory takes the output's name."""
        for directory in (self.building / SEQUENCES, self.building / EXAMPLES, self.building):
            for path in directory.iterdir() if directory.is_dir() else ():
                sync(path)
        text = json.dumps(sealed(manifest.model_dump(mode="json")), indent=1, ensure_ascii=False)
        with (self.building / MANIFEST).open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync(self.building)
        if self.output.exists() and any(self.output.iterdir()):
            self.output.rename(self.scratch / REPLACED)
        self.building.rename(self.output)
        sync(self.output.parent)


@contextmanager
def workplace(output: Path, inputs: Sequence[Path] = ()) -> Iterator[Workplace]:
    """The scratch directory, locked, empty; gone when the block is left by any way but a kill. Raises ConfigError.

    `inputs`: files to be read, links followed.
    """
    output = output.absolute()
    scratch = output.parent / f".{output.name}.preparing"
    _require_apart(inputs, output, scratch)
    try:
        made = make_folders(output.parent)
        lock = _locked(scratch)
    except OSError as error:
        raise StorageError.of(error, f"preparing in {scratch}") from None
    try:
        _recover(scratch, output)
        check_replaceable(output)
        (scratch / "dataset" / SEQUENCES).mkdir(parents=True)
        yield Workplace(scratch, output)
    except OSError as error:
        raise StorageError.of(error, f"preparing {output}") from None
    finally:
        _recover(scratch, output)
        shutil.rmtree(scratch, ignore_errors=True)
        take_back(made)
        os.close(lock)


def _require_apart(inputs: Sequence[Path], output: Path, scratch: Path) -> None:
    """An input inside the output would be deleted with what is replaced."""
    for directory in (output.resolve(), scratch.resolve()):
        for path in inputs:
            if path.is_relative_to(directory):
                raise ConfigError(
                    f"output {output}: the input {path} lies inside {directory}, which is replaced as a whole; "
                    "choose another with --output DIR"
                )


def check_replaceable(output: Path) -> None:
    """An existing output must be a data set or an empty directory: anything else might be somebody's work."""
    if output.is_dir():
        if any(output.iterdir()) and not (output / MANIFEST).exists():
            raise ConfigError(f"output {output}: is not empty and not a data set, so it stays; choose another with --output DIR")
    elif output.exists():
        raise ConfigError(f"output {output}: is a file; choose another with --output DIR")


def refuse_existing(output: Path) -> None:
    """Raises ConfigError for a data set that is there already: replacing it is to be asked for."""
    if os.path.exists(output / MANIFEST):
        raise ConfigError(
            f"output {output}: holds a data set already; type --overwrite to replace it, or choose another with --output DIR"
        )


def _locked(scratch: Path) -> int:
    """A descriptor that holds the lock until it is closed or the process ends, however it ends."""
    while True:
        scratch.mkdir(exist_ok=True)
        lock = os.open(scratch / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ConfigError(
                f"another prepare is writing this output (it holds {scratch}); wait for it, or choose another"
            ) from None
        if (scratch / LOCK).exists() and os.fstat(lock).st_ino == (scratch / LOCK).stat().st_ino:
            return lock
        os.close(lock)  # its owner removed the directory between our two steps


def _recover(scratch: Path, output: Path) -> None:
    """Empties the scratch directory but for the lock; a data set set aside for a successor that never came goes back."""
    aside = scratch / REPLACED
    if aside.exists() and not output.exists():
        aside.rename(output)
    for path in scratch.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
