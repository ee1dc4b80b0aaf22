"""The data set on disk: opening and checking it, and reading rows. manifest.py tells what it holds.

A row is a user, and the row's number is the user's index. Rows are in the order of a hash of the user's id, so that
reading them in order is already mixed. U rows, T tokens of the rows that were asked for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attnrec_dist.data.example_format import EXAMPLES, VOCABULARY, Shard
from attnrec_dist.data.gather import Gather, MappedFile
from attnrec_dist.data.manifest import (
    DAILY,
    GRAPH,
    NUMERIC_PREFIX,
    SEQUENCES,
    TABLES,
    Manifest,
    read_manifest,
    schema,
    sha256_of,
)
from attnrec_dist.data.statistics import DailyCounts, ItemGraph, read_daily, read_graph
from attnrec_dist.errors import DataError, StorageError

if TYPE_CHECKING:
    import datasets

StatisticsT = TypeVar("StatisticsT", DailyCounts, ItemGraph)


@dataclass
class Rows:
    """Rows one after another, packed: row r owns tokens offsets[r] to offsets[r + 1], in time order."""

    users: np.ndarray  # int64 [U] user index, which is the row's number
    train_end: np.ndarray  # int32 [U] tokens [0, train_end) are the training part
    valid_end: np.ndarray  # int32 [U] tokens [train_end, valid_end) are the validation part, the rest test
    offsets: np.ndarray  # int64 [U + 1]
    items: np.ndarray  # int32 [T]; V and above: a cold item
    times: np.ndarray  # int64 [T] unix seconds
    events: np.ndarray  # int8 [T] index into the manifest's event_types; 0 if there are none
    numeric: dict[str, np.ndarray]  # {name: float32 [T]}
    first: int | None = None  # number of the first row where rows are consecutive (scan)

    def __len__(self) -> int:
        return len(self.users)


class DataSet:
    """An opened data set. Sequences stay on disk, memory-mapped; the items' and users' tables are read when first asked for."""

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest
        self.num_rows = manifest.counts.rows

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> DataSet:
        """Reads the manifest, checks that every file is there with its size, and with `verify` its checksum too.

        Raises DataError when there is no data set, or it is unfinished, damaged or of another format.
        """
        path = Path(path)
        data = cls(path, read_manifest(path))
        for file, size in data.files():
            _check_size(file, size)
        if verify:
            data.verify()
        return data

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Compares checksums of every `parts`-th file from file `part`: ranks may share the work. Raises DataError."""
        for file, record in self.files()[part::parts]:
            actual = reading(file, lambda file=file: sha256_of(file))
            if actual != record.sha256:
                raise DataError(
                    f"{file}: damaged: its sha256 is {actual}, the manifest says {record.sha256}; prepare the data set again"
                )

    def rows(self, indices: np.ndarray) -> Rows:
        """The rows with these numbers, in the order given. A number may be given twice."""
        wanted = self._checked(indices)
        offsets, columns = self._gather.rows(wanted)
        ends = self._gather.take(wanted, ["train_end", "valid_end"])
        return Rows(
            users=wanted,
            train_end=ends["train_end"],
            valid_end=ends["valid_end"],
            offsets=offsets,
            items=columns["items"],
            times=columns["times"],
            events=columns["events"],
            numeric={name: columns[NUMERIC_PREFIX + name] for name in self.manifest.numeric},
        )

    def pieces(self, indices: np.ndarray, start: np.ndarray, stop: np.ndarray) -> dict[str, np.ndarray]:
        """The tokens from start to stop of each of these rows, int64 [U] each, one after another: {"items": int32 [T], "times":
        int64 [T], "events": int8 [T], and "numeric.NAME": float32 [T]}. The rows' other tokens are not read."""
        return self._gather.pieces(self._checked(indices), start, stop)

    def scan(self, batch_rows: int = 8192) -> Iterator[Rows]:
        """All rows in order, `batch_rows` at a time."""
        first = 0
        for table in self._sequences.iter(batch_rows) if self.num_rows else ():
            yield self._unpacked(table, first)
            first += len(table)

    def items(self) -> pa.Table:
        """index, id, count (training events), and the item file's columns (title, ...), in index order."""
        return self._tables[0]

    def popularity(self) -> np.ndarray:
        """Training events of each catalogue item, int64 [V]."""
        return self.items()["count"].to_numpy()[: self.manifest.num_items].astype(np.int64)

    def users(self) -> pa.Table:
        """index, id, in index order."""
        return self._tables[1]

    def daily(self) -> DailyCounts:
        """Events of each catalogue item on each day, over all parts: whoever reads for a moment takes the days before it."""
        return self._daily

    def graph(self) -> ItemGraph | None:
        """The neighbours of each catalogue item in the training part; None where statistics.graph.kind is none."""
        return self._graph

    def vocabulary(self) -> pa.Table:
        """Words of the examples' categorical fields: field, code, value; read anew at each call. Needs manifest.examples."""
        file = self.path / VOCABULARY
        return reading(file, lambda: pq.read_table(file))

    def item_ids(self, indices: np.ndarray) -> list[str]:
        return self.items()["id"].take(pa.array(np.asarray(indices, dtype=np.int64))).to_pylist()

    def titles(self, indices: np.ndarray) -> list[str | None]:
        """Titles, None where the item file has none or there is no such file."""
        if "title" not in self.items().column_names:
            return [None] * len(indices)
        return self.items()["title"].take(pa.array(np.asarray(indices, dtype=np.int64))).to_pylist()

    def user_index(self, ids: list[str]) -> np.ndarray:
        """int64 [len(ids)] user index of each raw id, -1 where it is unknown."""
        return _places(ids, self.users()["id"])

    def item_index(self, ids: list[str]) -> np.ndarray:
        """int64 [len(ids)] item index of each raw id, -1 where it is unknown; V and above: a cold item."""
        return _places(ids, self.items()["id"])

    def _checked(self, indices: np.ndarray) -> np.ndarray:
        """int64 [U]. Raises IndexError for a row that there is not."""
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.num_rows):
            outside = wanted[(wanted < 0) | (wanted >= self.num_rows)][0]
            raise IndexError(f"row {outside} of a data set with {self.num_rows} rows")
        return wanted

    def files(self) -> list[tuple[Path, Shard]]:
        """Every file but the manifest, with what the manifest says of it."""
        shards = [(self.path / SEQUENCES / shard.name, shard) for shard in self.manifest.shards]
        return shards + [(self.path / table.name, table) for table in self.manifest.tables] + self._example_files()

    def _example_files(self) -> list[tuple[Path, Shard]]:
        spec = self.manifest.examples
        if spec is None:
            return []
        parts = [(self.path / EXAMPLES / shard.name, shard) for shards in spec.shards.values() for shard in shards]
        return [*parts, (self.path / spec.vocabulary.name, spec.vocabulary)]

    @functools.cached_property
    def _sequences(self) -> datasets.Dataset:
        import datasets

        files = [self.path / SEQUENCES / shard.name for shard in self.manifest.shards]
        parts = [reading(file, lambda file=file: datasets.Dataset.from_file(str(file))) for file in files]
        return datasets.concatenate_datasets(parts).with_format("arrow")

    @functools.cached_property
    def _gather(self) -> Gather:
        return gather(self.path / SEQUENCES, self.manifest.shards, schema(self.manifest.numeric))

    @functools.cached_property
    def _tables(self) -> tuple[pa.Table, pa.Table]:
        items, users = (reading(self.path / name, lambda name=name: pq.read_table(self.path / name)) for name in TABLES)
        return items, users

    @functools.cached_property
    def _daily(self) -> DailyCounts:
        return self._statistics(DAILY, read_daily)

    @functools.cached_property
    def _graph(self) -> ItemGraph | None:
        if all(table.name != GRAPH for table in self.manifest.tables):
            return None
        rule = self.manifest.config["statistics"]["graph"]
        return dataclasses.replace(self._statistics(GRAPH, read_graph), within=rule["within"] if rule["kind"] == "next" else 0)

    def _statistics(self, name: str, read: Callable[[Path], StatisticsT]) -> StatisticsT:
        file = self.path / name
        found = reading(file, lambda: read(file))
        if len(found.offsets) != self.manifest.num_items + 1:
            raise DataError(
                f"{file}: damaged: {len(found.offsets) - 1} rows, the manifest says {self.manifest.num_items}; "
                "prepare the data set again"
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Without views of mapped files, which would be sent as copies: a worker that is sent this maps them itself."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_daily", "_graph", "_gather")}

    def _unpacked(self, table: pa.Table, first: int | None = None) -> Rows:
        lists = {name: table[name].combine_chunks() for name in table.column_names}
        lengths = pc.list_value_length(lists["items"]).to_numpy(zero_copy_only=False)
        flat = {name: lists[name].flatten().to_numpy() for name in table.column_names[3:]}
        return Rows(
            users=lists["user"].to_numpy(),
            train_end=lists["train_end"].to_numpy(),
            valid_end=lists["valid_end"].to_numpy(),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            items=flat["items"],
            times=flat["times"],
            events=flat["events"],
            numeric={name: flat[NUMERIC_PREFIX + name] for name in self.manifest.numeric},
            first=first,
        )


def _check_size(file: Path, record: Shard) -> None:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{file}: missing, though the manifest lists it; copy it again, or prepare the data set again") from None
    except OSError as error:
        raise StorageError.of(error, f"reading {file}") from None
    if size != record.bytes:
        raise DataError(f"{file}: damaged: {size} bytes, the manifest says {record.bytes}; prepare the data set again")


def reading(file: Path, read: Any) -> Any:
    """What `read` returns; errors of the file become ours: StorageError, DataError."""
    try:
        return read()
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError.of(error, f"reading {file}") from None
        raise DataError(f"{file}: damaged ({error}); prepare the data set again") from None


def gather(directory: Path, records: list[Shard], shape: pa.Schema) -> Gather:
    """A reader of these files. Raises DataError when one holds other columns, or not as many rows as the manifest says."""
    files = []
    for record in records:
        file = directory / record.name
        mapped = reading(file, lambda file=file: MappedFile.open(file))
        if len(mapped) != record.rows or any(not batch.schema.equals(shape) for batch in mapped.batches):
            raise DataError(f"{file}: damaged: not the rows that the manifest tells of; prepare the data set again")
        files.append(mapped)
    return reading(directory, lambda: Gather(files, shape))


def _places(ids: list[str], known: pa.ChunkedArray) -> np.ndarray:
    found = pc.index_in(pa.array(ids, pa.string()), value_set=known.cast(pa.string()))
    return found.fill_null(-1).to_numpy().astype(np.int64)
