"""The last step, the same for every engine: the rows of one shard, in any order -> sorted parallel lists -> an Arrow file.

Also the item statistics' files. numpy and pyarrow only. Memory: one shard.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds

from attnrec_dist.data.blocks import hashes_of
from attnrec_dist.data.dataset import Rows, Shard
from attnrec_dist.data.fingerprint import Fingerprint
from attnrec_dist.data.manifest import schema
from attnrec_dist.prepare.statements import TRAIN, VALIDATION, numbers

ROWS_PER_BATCH = 1024  # of the Arrow file: small enough to gather from, large enough to read through


@dataclass
class Tally:
    """Sums over all shards."""

    rows: int = 0
    train_events: int = 0
    validation_events: int = 0
    test_events: int = 0
    users_without_train_events: int = 0
    start_time: int = np.iinfo(np.int64).max
    end_time: int = np.iinfo(np.int64).min

    def add(self, rows: Rows) -> None:
        lengths = np.diff(rows.offsets)
        self.rows += len(rows)
        self.train_events += int(rows.train_end.sum())
        self.validation_events += int((rows.valid_end - rows.train_end).sum())
        self.test_events += int((lengths - rows.valid_end).sum())
        self.users_without_train_events += int((rows.train_end == 0).sum())
        self.start_time = min(self.start_time, int(rows.times.min()))
        self.end_time = max(self.end_time, int(rows.times.max()))


def read_shard(directory: Path, numeric: list[str]) -> Rows:
    """Rows of whole users, sorted by user, time, item code, event, numbers; codes and parts turn into what the format has."""
    table = pds.dataset(directory, format="parquet").to_table()
    names = numbers(len(numeric))
    columns = {name: table[name].to_numpy() for name in ["row_index", "item", "i", "us", "e", "part", *names]}
    del table
    order = np.lexsort([columns[name] for name in [*reversed(names), "e", "i", "us", "row_index"]])
    columns = {name: values[order] for name, values in columns.items()}
    users, starts = np.unique(columns["row_index"], return_index=True)
    part = columns["part"]
    return Rows(
        users=users.astype(np.int64),
        train_end=np.add.reduceat((part == TRAIN).astype(np.int32), starts, dtype=np.int32),
        valid_end=np.add.reduceat((part <= VALIDATION).astype(np.int32), starts, dtype=np.int32),
        offsets=np.append(starts, len(order)).astype(np.int64),
        items=columns["item"].astype(np.int32),
        times=columns["us"] // 1_000_000,
        events=columns["e"].astype(np.int8),
        numeric={name: columns[column].astype(np.float32) for name, column in zip(numeric, names, strict=True)},
    )


def write_shard(rows: Rows, path: Path) -> None:
    """An Arrow stream, batches of ROWS_PER_BATCH rows."""
    shape = schema(list(rows.numeric))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, shape) as writer:
        for start in range(0, len(rows), ROWS_PER_BATCH):
            writer.write_batch(_batch(rows, start, min(start + ROWS_PER_BATCH, len(rows)), shape))


def _batch(rows: Rows, start: int, stop: int, shape: pa.Schema) -> pa.RecordBatch:
    first, last = rows.offsets[start], rows.offsets[stop]
    offsets = pa.array((rows.offsets[start : stop + 1] - first).astype(np.int32))
    flat = [rows.items, rows.times, rows.events, *rows.numeric.values()]
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values[first:last])) for values in flat]
    plain = [pa.array(values[start:stop]) for values in (rows.users, rows.train_end, rows.valid_end)]
    return pa.record_batch([*plain, *lists], schema=shape)


def record_of(path: Path, rows: int) -> Shard:
    """What the manifest says of a file."""
    sha256, blocks = hashes_of(path)
    return Shard(name=path.name, rows=rows, bytes=path.stat().st_size, sha256=sha256, blocks=blocks)


class ListFile:
    """An Arrow stream of one record batch, a row an item, its list columns parallel (int64 offsets), plain columns after them.

    One batch, because a reader can then map each column as one array. The lists come in pieces, which wait in files of their
    own and are mapped when the batch is written, so memory holds a piece and the lengths.
    """

    def __init__(self, scratch: Path, lists: list[str]):
        scratch.mkdir()
        self.waiting = {name: scratch / name for name in lists}
        self.types: dict[str, np.dtype] = {}
        self.lengths: list[np.ndarray] = []

    def append(self, lengths: np.ndarray, columns: list[np.ndarray]) -> None:
        """The next rows: their lengths, and for each list column the values of all of them, little-endian."""
        self.lengths.append(lengths.astype(np.int64))
        for (name, path), values in zip(self.waiting.items(), columns, strict=True):
            self.types[name] = values.dtype
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(values).tobytes())

    def finish(self, path: Path, fingerprint: Fingerprint, plain: dict[str, np.ndarray]) -> int:
        """Writes the file and adds its columns to the fingerprint; returns how many values a list column holds."""
        lengths = np.concatenate(self.lengths)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        fingerprint.add(f"{path.name}/length", lengths.astype("<i8"))
        arrays: dict[str, pa.Array] = {}
        for name, waiting in self.waiting.items():
            values = np.memmap(waiting, self.types[name], "r") if waiting.stat().st_size else np.zeros(0, self.types[name])
            fingerprint.add(f"{path.name}/{name}", values)
            arrays[name] = pa.LargeListArray.from_arrays(offsets, pa.array(values))
        for name, values in plain.items():
            fingerprint.add(f"{path.name}/{name}", values)
            arrays[name] = pa.array(values)
        batch = pa.record_batch(arrays)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
            writer.write_batch(batch)
        shutil.rmtree(next(iter(self.waiting.values())).parent)
        return offsets[-1].as_py()
