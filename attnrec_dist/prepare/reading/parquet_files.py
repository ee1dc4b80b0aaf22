"""Parquet files looked over before the engine reads them: their columns, and every page of those that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attnrec_dist.errors import InputError, StorageError
from attnrec_dist.prepare.reading.files import really

_ROWS = 65_536  # decoded at a time


def columns(path: Path, where: str) -> tuple[tuple[str, str], ...]:
    """(name, type as Arrow writes it) of each column, in the file's order. Raises InputError, StorageError."""
    with _errors_as_ours(
        path, "cannot be read as Parquet", f"set {where}.format if it is csv or tsv, fetch it again if it is cut off"
    ):
        return tuple((field.name, str(field.type)) for field in pq.read_schema(path))


def check_pages(path: Path, wanted: list[str]) -> None:
    """Decodes every page of the wanted columns; checks its checksum where it has one. Raises InputError, StorageError."""
    with (
        _errors_as_ours(path, "damaged", "fetch it again"),
        pq.ParquetFile(path, page_checksum_verification=True, buffer_size=2**20) as file,
    ):
        for _ in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
            pass


@contextmanager
def _errors_as_ours(path: Path, what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError.of(error, f"reading {path}") from None
        with path.open("rb") as file:
            head = file.read(32)
        detail = str(error).partition("\n")[0][:200] if head else "it is empty"
        if (actual := really(head)) and not head.startswith(b"PAR1"):
            detail = f"it is {actual}"
        raise InputError(f"{path}: {what} ({detail}); {remedy}") from None
