"""The data set on disk: opening and checking it, and reading rows. manifest.py tells what it holds.

A row is a user, and the row's number is the user's index. Rows are in the order of a hash of the user's id, so that
reading them in order is already mixed. U rows, T tokens of the rows that were asked for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attnrec_dist.data.blocks import StoredFile, check_size, reading
from attnrec_dist.data.example_format import EXAMPLES, Shard
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
)
from attnrec_dist.data.statistics import DailyCounts, ItemGraph, read_daily, read_graph
from attnrec_dist.errors import DataError

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
    """An opened data set. Sequences stay on disk, memory-mapped; the items' and users' tables are read when first asked for.

    Whatever is read is compared with the manifest first, once in this process (blocks.py): any method may raise DataError.
    """

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest
        self.num_rows = manifest.counts.rows
        self._stored: dict[Path, StoredFile] = {}

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> DataSet:
        """Reads the manifest, checks that every file is there with its size, and with `verify` all of its content.

        Raises DataError when there is no data set, or it is unfinished, damaged or of another format.
        """
        path = Path(path)
        data = cls(path, read_manifest(path))
        for file, size in data.files():
            check_size(file, size)
        if verify:
            data.verify()
        return data

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Compares every `parts`-th file from file `part` with the manifest: ranks may share the work. Raises DataError."""
        for file, record in self.files()[part::parts]:
            self.stored(file, record).check_all()

    def stored(self, file: Path, record: Shard) -> StoredFile:
        """One of the files, with what of it was compared in this process. Raises DataError, StorageError."""
        if file not in self._stored:
            self._stored[file] = StoredFile(file, record)
        return self._stored[file]

    @property
    def note(self) -> str:
        """What the user should know of how far this data set can be checked; "" where all of it can."""
        if self.manifest.checksum:
            return ""
        return (
            f"{self.path}: of an older version: its manifest has no checksum of its own; to have it checked as well, "
            f"type attnrec prepare CONFIG.yaml --output {self.path}"
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
        waiting = list(zip(accumulate((shard.rows for shard in self.manifest.shards), initial=0), self._shards()))
        for table in self._sequences.iter(batch_rows) if self.num_rows else ():
            while waiting and waiting[0][0] < first + len(table):
                waiting.pop(0)[1].check_all()
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
        if self.manifest.examples is None:
            raise DataError(f"{self.path}: has no labelled examples, so no vocabulary; prepare it again with a label")
        return self._read(self.manifest.examples.vocabulary, {"field": pa.string(), "code": pa.int32(), "value": pa.string()})

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

        parts = []
        for stored, record in zip(self._shards(), self.manifest.shards, strict=True):
            stored.check_headers()
            part = reading(stored.path, lambda path=stored.path: datasets.Dataset.from_file(str(path)))  # type: ignore[misc]
            if len(part) != record.rows or part.data.schema.remove_metadata() != schema(self.manifest.numeric):
                raise not_as_told(stored.path)
            parts.append(part)
        return datasets.concatenate_datasets(parts).with_format("arrow")

    @functools.cached_property
    def _gather(self) -> Gather:
        return gather(self._shards(), self.manifest.shards, schema(self.manifest.numeric))

    def _shards(self) -> list[StoredFile]:
        return [self.stored(self.path / SEQUENCES / shard.name, shard) for shard in self.manifest.shards]

    @functools.cached_property
    def _tables(self) -> tuple[pa.Table, pa.Table]:
        records = {table.name: table for table in self.manifest.tables}
        shapes = ({"index": pa.int32(), "id": pa.string(), "count": pa.int64()}, {"index": pa.int64(), "id": pa.string()})
        items, users = (self._read(records[name], shape) for name, shape in zip(TABLES, shapes))
        return items, users

    def _read(self, record: Shard, columns: dict[str, pa.DataType]) -> pa.Table:
        """A Parquet file with at least these columns, without nulls in them."""
        file = self.stored(self.path / record.name, record).check_all()
        table = reading(file.path, lambda: pq.read_table(pa.BufferReader(file.whole)))
        has = {name: table[name].type for name in columns if name in table.column_names and not table[name].null_count}
        if len(table) != record.rows or has != columns:
            raise not_as_told(file.path)
        return table

    @functools.cached_property
    def _daily(self) -> DailyCounts:
        return self._statistics(DAILY, read_daily)

    @functools.cached_property
    def _graph(self) -> ItemGraph | None:
        if all(table.name != GRAPH for table in self.manifest.tables):
            return None
        rule = self.manifest.config["statistics"]["graph"]
        found = self._statistics(GRAPH, read_graph)
        if len(found.neighbours) and not 0 <= found.neighbours.min() <= found.neighbours.max() < self.manifest.num_items:
            raise not_as_told(self.path / GRAPH)
        return dataclasses.replace(found, within=rule["within"] if rule["kind"] == "next" else 0)

    def _statistics(self, name: str, read: Callable[[Path], StatisticsT]) -> StatisticsT:
        record = next(table for table in self.manifest.tables if table.name == name)
        file = self.stored(self.path / name, record).check_all().path
        found = reading(file, lambda: read(file))
        lengths = {len(values) for key, values in vars(found).items() if key not in ("offsets", "baskets", "within")}
        offsets = found.offsets
        if len(offsets) != self.manifest.num_items + 1 or {offsets[-1]} != lengths or offsets[0] or (np.diff(offsets) < 0).any():
            raise not_as_told(file)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Without views of mapped files, which would be sent as copies: a worker that is sent this maps them itself."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_daily", "_graph", "_gather")}
        return kept | {"_stored": {}}

    def _unpacked(self, table: pa.Table, first: int | None = None) -> Rows:
        reading(self.path / SEQUENCES, lambda: table.validate(full=True))  # that its lists lie inside, before they are followed
        lists = {name: table[name].combine_chunks() for name in table.column_names}
        lengths = pc.list_value_length(lists["items"])
        if any(column.null_count for column in table.columns) or any(
            not pc.list_value_length(lists[name]).equals(lengths) for name in table.column_names[4:]
        ):
            raise not_as_told(self.path / SEQUENCES)
        lengths = lengths.to_numpy(zero_copy_only=False)
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


def not_as_told(file: Path) -> DataError:
    return DataError(f"{file}: damaged: not the rows and columns that the manifest tells of; prepare the data set again")


def gather(files: list[StoredFile], records: list[Shard], shape: pa.Schema) -> Gather:
    """A reader of these files. Raises DataError when one holds other columns, or not as many rows as the manifest says."""
    opened = []
    for file, record in zip(files, records, strict=True):
        mapped = reading(file.path, lambda file=file: MappedFile.open(file))  # type: ignore[misc]
        if len(mapped) != record.rows or any(not batch.schema.equals(shape) for batch in mapped.batches):
            raise not_as_told(file.path)
        opened.append(mapped)
    return reading(files[0].path if files else Path(), lambda: Gather(opened, shape))


def _places(ids: list[str], known: pa.ChunkedArray) -> np.ndarray:
    found = pc.index_in(pa.array(ids, pa.string()), value_set=known.cast(pa.string()))
    return found.fill_null(-1).to_numpy().astype(np.int64)
