"""A file of a data set, memory-mapped, compared with the manifest block by block: each the first time that a byte of it is read.

A block's hash is the first 64 bits of its sha256, which every Python has; at 1 GB/s on a CPU that helps it costs far less than
what is done with the values (crc32: 3 GB/s, 32 bits). The manifest's own checksum binds all of them, as the root of a tree of
hashes does. A file that an older version wrote has no hashes of blocks: it is one block, of which the whole sha256 is known.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from attnrec_dist.data.example_format import BLOCK_BYTES, HASH_BYTES, Shard
from attnrec_dist.errors import DataError, StorageError
from attnrec_dist.storage.stored import NotAFileError, size_of

T = TypeVar("T")
CONTINUATION, FRAME = 0xFFFFFFFF, struct.Struct("<Ii")  # before each message of an Arrow stream, with its size


def reading(file: Path, read: Callable[[], T]) -> T:
    """What `read` returns; errors of the file become ours: StorageError, DataError."""
    try:
        return read()
    except FileNotFoundError:
        raise DataError(f"{file}: missing, though the manifest lists it; copy it again, or prepare the data set again") from None
    except NotAFileError as error:
        raise DataError(f"{file}: {error.strerror}; prepare the data set again") from None
    except (pa.ArrowException, OSError, KeyError, AttributeError) as error:  # the last two: not the columns that it should have
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError.of(error, f"reading {file}") from None
        raise DataError(f"{file}: damaged ({error}); prepare the data set again") from None


def check_size(file: Path, record: Shard) -> None:
    """Raises DataError where it is not there, no file, or of another size."""
    size = reading(file, lambda: size_of(file))
    if size != record.bytes:
        raise DataError(f"{file}: damaged: {size} bytes, the manifest says {record.bytes}; prepare the data set again")


def hashes_of(path: Path) -> tuple[str, str]:
    """(sha256, hashes of the blocks one after another), in hexadecimal."""
    whole, blocks = hashlib.sha256(), []
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            whole.update(block)
            blocks.append(hashlib.sha256(block).hexdigest()[: 2 * HASH_BYTES])
    return whole.hexdigest(), "".join(blocks)


class StoredFile:
    """Opened with the manifest's record of it; `whole` is not to be read where it was not checked."""

    def __init__(self, path: Path, record: Shard):
        """Raises DataError, StorageError."""
        check_size(path, record)
        self.path = path
        self.whole: pa.Buffer = reading(path, lambda: _mapped(path)) if record.bytes else pa.py_buffer(b"")
        self.block_bytes, hashes = (BLOCK_BYTES, record.blocks) if record.blocks else (max(record.bytes, 1), record.sha256)
        self.checked = np.zeros(-(-record.bytes // self.block_bytes), bool)
        digits = len(hashes) // max(len(self.checked), 1)
        self.expected = [hashes[place * digits : (place + 1) * digits] for place in range(len(self.checked))]
        self.done = not len(self.checked)  # all of it was compared

    def check(self, start: np.ndarray, stop: np.ndarray) -> None:
        """Compares what holds the bytes from start to stop, int64 [n] each, and was not compared yet. Raises DataError."""
        blocks = len(self.checked)
        begins = np.bincount(start // self.block_bytes, minlength=blocks + 1)
        ends = np.bincount(-(-stop // self.block_bytes), minlength=blocks + 1)
        self._compare(np.cumsum(begins - ends)[:blocks] > 0)

    def check_all(self) -> StoredFile:
        """Likewise, the whole file. Raises DataError."""
        self._compare(True)
        return self

    def check_headers(self) -> None:
        """Likewise, what frames and describes the batches of an Arrow stream, before Arrow believes it. Raises DataError."""
        source = pa.BufferReader(self.whole)
        while not self.done and (start := source.tell()) + FRAME.size <= self.whole.size:
            self._check_span(start, FRAME.size)
            mark, size = FRAME.unpack(self.whole[start : start + FRAME.size])
            if mark != CONTINUATION or not 0 < size <= self.whole.size - start - FRAME.size:
                return  # the stream ends; or it is none, as Arrow will tell
            self._check_span(start + FRAME.size, size)
            reading(self.path, lambda: pa.ipc.read_message(source))  # steps over the values without a look at them

    def _check_span(self, start: int, size: int) -> None:
        self.check(np.array([start]), np.array([start + size]))

    def _compare(self, wanted: np.ndarray | bool) -> None:
        for place in np.flatnonzero(wanted & ~self.checked).tolist():
            start = place * self.block_bytes
            block = self.whole[start : start + self.block_bytes]
            if not hashlib.sha256(block).hexdigest().startswith(self.expected[place]):
                raise DataError(
                    f"{self.path}: damaged: bytes {start} to {start + block.size} do not agree with their hash in the manifest; "
                    "copy it again, or prepare the data set again"
                )
            self.checked[place] = True
        self.done = bool(self.checked.all())


def _mapped(path: Path) -> pa.Buffer:
    with pa.memory_map(str(path)) as source:
        return source.read_buffer()
