"""A table too long to be made in one go: parts, each whole or absent, in a directory beside the file that they become.

The directory's name is bound to all that the rows depend on, so that a command which was killed and is typed again goes on with
the parts that are done, and one that asks for something else begins anew. Any process writes parts; one of them, which holds the
directory, joins them in order and puts the file in place at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attnrec_dist.errors import ConfigError, StorageError
from attnrec_dist.storage.outputs import LONGEST, table_writer, write_table
from attnrec_dist.storage.stored import checksum_of, read_tree

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = ".parts"
TOGETHER = 50_000  # rows that are written at once: small pieces make a Parquet file slow to read
SETTINGS, LOCK = "settings.json", "lock"
NOTES = b"notes"  # the key of a part's metadata: what is told of its rows


class Staging:
    """The parts 0, 1, ... of the table `output`; `settings` are a JSON object of all that its rows depend on."""

    def __init__(self, output: Path, schema: pa.Schema, settings: dict[str, Any]):
        self.output, self.schema, self.settings = output, schema, settings
        self.folder = output.with_name(f"{output.name[:LONGEST]}.{checksum_of(settings)[:12]}{PARTS}")
        self._held: IO[str] | None = None

    def open(self) -> list[int]:
        """Makes the directory, or finds it; holds it until `close`. The numbers of the parts that are there.

        Raises ConfigError where another command holds it, StorageError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._hold()
            (self.folder / SETTINGS).write_text(json.dumps(self.settings) + "\n", encoding="utf-8")
            for unfinished in self.folder.glob("*.partial"):
                unfinished.unlink()
            return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.parquet"))
        except OSError as error:
            raise StorageError.of(error, f"making {self.folder}") from None

    def _hold(self) -> None:
        held = open(self.folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  (held as long as it is open)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            who = held.read().strip() or "unknown"
            held.close()
            raise ConfigError(
                f"--output {self.output}: the same command is writing it already ({who}); wait for it, or name another file"
            ) from None
        except OSError:  # a file system without locks: two would write the same parts, each whole
            pass
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
        self._held = held

    def others(self) -> list[str]:
        """What commands with other settings have left beside this output, in words, with what to type."""
        told = []
        for folder in sorted(self.output.parent.glob(f"{glob.escape(self.output.name[:LONGEST])}.*{PARTS}")):
            if folder == self.folder:
                continue
            try:
                before = read_tree(folder / SETTINGS)
            except (OSError, ValueError):
                before = {}
            other = ", ".join(key for key in self.settings if before.get(key) != self.settings[key])
            told.append(f"{folder}: parts made with other settings ({other}) are left aside; rm -r {shlex.quote(str(folder))}")
        return told

    def write(self, number: int, rows: pa.Table, notes: dict[str, Any]) -> None:
        """A part, with JSON that `read` gives back. Raises StorageError."""
        write_table(self._part(number), rows.replace_schema_metadata({NOTES: json.dumps(notes)}))

    def read(self, number: int) -> tuple[pa.Table, dict[str, Any]]:
        """A part's rows and notes. Raises StorageError where it cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._part(number)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                rows = file.read()
            return rows.cast(self.schema), json.loads(rows.schema.metadata[NOTES])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path}: cannot be read ({error}); remove it and run the same command again") from None

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    @contextlib.contextmanager
    def joining(self) -> Iterator[Callable[[pa.Table], None]]:
        """Takes the rows, part by part; at the end the file is in place and the parts are gone. Raises StorageError."""
        import pyarrow as pa

        joined = self.folder / self.output.name  # a kill leaves nothing outside the directory
        waiting: list[pa.Table] = []

        def take(rows: pa.Table | None) -> None:
            waiting.extend([] if rows is None else [rows])
            if waiting and (rows is None or sum(map(len, waiting)) >= TOGETHER):
                write(pa.concat_tables(waiting).combine_chunks())
                waiting.clear()

        with table_writer(joined, self.schema) as write:
            yield take
            take(None)
        try:
            joined.replace(self.output)
            shutil.rmtree(self.folder)
        except OSError as error:
            raise StorageError.of(error, f"writing {self.output}") from None

    def close(self) -> None:
        """Lets go of the directory; one without a part goes."""
        if self._held is None:
            return
        if self.folder.is_dir() and not any(self.folder.glob("*.parquet*")):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()
        self._held = None
