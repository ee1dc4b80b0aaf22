"""Files that a command writes where the user says: checked before the work begins, written aside, put in place at once.

`check_output` and `check_folder` come first, so that nobody waits for an evaluation that cannot be kept; then `replacing` or,
for rows, `table_writer`, which writes what the name says: Parquet, CSV or JSON lines.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attnrec_dist.errors import ConfigError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = (".parquet", ".pq", ".csv", ".jsonl", ".csv.gz", ".jsonl.gz")
JSON, PICTURE = (".json",), (".png",)
NAMES = {TABLE: "Parquet file (or CSV, JSON lines)", JSON: "JSON file", PICTURE: "PNG file"}
OF_A_RUN = ("config.yaml", "status.json", "metrics.jsonl", "jobs.jsonl", "figures.json", "lock", "STOP", "best", "last")
OF_A_DATA_SET = (
    *("manifest.json", "items.parquet", "users.parquet", "daily.arrow", "graph.arrow", "examples-vocabulary.parquet"),
)
FOLDERS_OF_A_RUN, FOLDERS_OF_A_DATA_SET = ("checkpoints", "index"), ("sequences", "examples")
LONGEST = 100  # letters of a name that the name of the file beside it keeps

Write = Callable[["pa.Table"], None]


def check_output(
    path: Path | None, option: str, suffixes: tuple[str, ...], inputs: Iterable[Path | None] = (), make_folder: bool = False
) -> None:
    """Raises ConfigError where `path` cannot be written: its name, its folder, or what stands there already.

    `inputs` are files that the command reads. With `make_folder` the folder may be missing: the command will make it.
    """
    if path is None:
        return
    where = f"{option} {path}"
    if path.is_dir():
        raise ConfigError(f"{where}: is a directory; name the {NAMES[suffixes]} to write")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{where}: is a device or a pipe, no file; name the {NAMES[suffixes]} to write")
    if not path.name.lower().endswith(suffixes):
        raise ConfigError(f"{where}: the name tells the format; let it end in {' or '.join(suffixes)}")
    owner = _owner(path.resolve())
    if owner is not None:
        raise ConfigError(f"{where}: is a file of {owner}, which would be destroyed; choose another name")
    for read in inputs:
        if read is not None and path.exists() and read.exists() and path.samefile(read):
            raise ConfigError(f"{where}: is read by this command; choose another name")
    _try_folder(path.parent, where, make_folder)


def check_folder(path: Path, option: str) -> None:
    """Raises ConfigError where files cannot be written into the folder `path`, which may have to be made."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{option} {path}: is a file; name a directory")
    if path.resolve().name in (*FOLDERS_OF_A_RUN, *FOLDERS_OF_A_DATA_SET) and _owner(path.resolve() / "any"):
        raise ConfigError(f"{option} {path}: belongs to {_owner(path.resolve() / 'any')}; choose another directory")
    _try_folder(path, f"{option} {path}", make_folder=True)


def _owner(path: Path) -> str | None:
    """The run or data set one of whose own files stands, or would stand, at an absolute path; None where there is none."""
    kinds = (
        ("the run", "config.yaml", OF_A_RUN, FOLDERS_OF_A_RUN),
        ("the data set", "manifest.json", OF_A_DATA_SET, FOLDERS_OF_A_DATA_SET),
    )
    for what, mark, files, folders in kinds:
        if path.name in files and (path.parent / mark).is_file():
            return f"{what} {path.parent}"
        for folder in path.parents:
            if folder.name in folders and (folder.parent / mark).is_file():
                return f"{what} {folder.parent}"
    return None


def _try_folder(folder: Path, where: str, make_folder: bool) -> None:
    """Makes and removes a file there, or in the nearest folder above that exists. Raises ConfigError."""
    if not folder.is_dir() and not make_folder:
        raise ConfigError(f"{where}: the directory {folder} does not exist; make it with mkdir -p {folder}, or choose another")
    there = next((each for each in (folder, *folder.absolute().parents) if each.exists()), Path("/"))
    if not there.is_dir():
        raise ConfigError(f"{where}: {there} is a file, no directory; choose another path")
    try:
        aside, file = _beside(there / "attnrec")
        file.close()
        aside.unlink()
    except OSError as error:
        raise StorageError.of(error, f"{where}: writing into {there}") from None


def make_folders(folder: Path, mode: int = 0o777) -> list[Path]:
    """Makes a directory, with `mode`, and those above it that are missing; which ones, the outermost first. Raises OSError."""
    folder = folder.absolute()
    missing = [each for each in (*reversed(folder.parents), folder) if not each.is_dir()]
    try:
        for each in missing:
            each.mkdir(mode if each == folder else 0o777, exist_ok=True)
    except OSError:
        take_back(missing)
        raise
    return missing


def take_back(folders: Iterable[Path]) -> None:
    """Removes what `make_folders` made, as far as nothing has come into it: what is refused leaves no trace."""
    for folder in reversed(list(folders)):
        with contextlib.suppress(OSError):
            folder.rmdir()


def sync(path: Path) -> None:
    """A file or directory is on the disk when this returns. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file beside `path`, of a name that nobody can know before, which takes its place at the end of the block, synced.

    Readers see the old file or the new, never a part; two that write at once do not meet, and the later one stays. Where the
    block fails, nothing is left of it. Raises StorageError.
    """
    aside = None
    try:
        aside, file = _beside(path)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        aside = None
    except OSError as error:
        raise StorageError.of(error, f"writing {path}") from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


def _beside(path: Path) -> tuple[Path, IO[bytes]]:
    """A file that was not there before, so no link that somebody left is followed."""
    aside = path.with_name(f"{path.name[:LONGEST]}.{os.getpid()}-{secrets.token_hex(8)}.partial")
    return aside, os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """A function that writes tables of this schema, one after another, in the format that the name tells.

    CSV holds lists and maps as JSON; numbers that are not finite are null in JSON lines. Only Parquet keeps metadata.
    """
    import pyarrow.parquet as pq

    name = path.name.lower()
    with replacing(path) as file:
        if name.endswith((".parquet", ".pq")):
            with pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
                yield writer.write_table
            return
        packed = gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) if name.endswith(".gz") else None
        into: IO[bytes] = packed or file  # type: ignore[assignment]
        if name.removesuffix(".gz").endswith(".csv"):
            into.write(_csv(schema.empty_table(), header=True))
            yield lambda table: _write(into, _csv(table, header=False))
        else:
            yield lambda table: _write(into, _json_lines(table))
        if packed is not None:
            packed.close()


def write_table(path: Path, table: pa.Table) -> None:
    with table_writer(path, table.schema) as write:
        write(table)


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)


def _csv(table: pa.Table, header: bool) -> bytes:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            values = table[field.name].to_pylist(maps_as_pydicts="strict")
            told = pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
            table = table.set_column(place, field.name, told)
    buffer = pa.BufferOutputStream()
    pa_csv.write_csv(table, buffer, pa_csv.WriteOptions(include_header=header))
    return buffer.getvalue().to_pybytes()


def _json_lines(table: pa.Table) -> bytes:
    rows = table.to_pylist(maps_as_pydicts="strict")
    return "".join(
        json.dumps({name: _finite(value) for name, value in row.items()}, ensure_ascii=False) + "\n" for row in rows
    ).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
