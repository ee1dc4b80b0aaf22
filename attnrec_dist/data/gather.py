"""Rows by number out of memory-mapped Arrow files: one copy a column, no loop over rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

OFFSETS = "offsets"  # stands beside the columns' names: where a row's lists begin


def ranges(starts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The concatenation of starts[b] + [0, sizes[b]), with the b of each element. int64 [sum(sizes)] each."""
    row = np.repeat(np.arange(len(sizes)), sizes)
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(row)), row


@dataclass(frozen=True)
class MappedFile:
    """An Arrow stream on disk. Its batches are slices of `whole`, so nothing is read before a value is asked for."""

    whole: pa.Buffer
    batches: list[pa.RecordBatch]

    @classmethod
    def open(cls, path: Path) -> MappedFile:
        """Raises pyarrow.ArrowInvalid or OSError where there is no such stream."""
        with pa.memory_map(str(path)) as source:
            whole = source.read_buffer()
        with pa.ipc.open_stream(whole) as stream:
            return cls(whole, list(stream))

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def place(self, values: np.ndarray) -> int:
        """Where a batch's values begin, counted in values of their type from the file's first byte."""
        start = values.ctypes.data - self.whole.address
        if len(values) and not 0 <= start <= self.whole.size - values.nbytes:
            raise pa.ArrowInvalid("compressed batches cannot be mapped")
        return start // values.itemsize


class Gather:
    """Each file is seen as one array of each column's type, so that any value is a place in it: looping over batches or rows took
    four to ten times as long. The schema's lists are parallel: a row's are of one length."""

    def __init__(self, files: list[MappedFile], schema: pa.Schema):
        self.lists = [field.name for field in schema if pa.types.is_list(field.type)]
        types = {field.name: getattr(field.type, "value_type", field.type).to_pandas_dtype() for field in schema}
        self.types = types | ({OFFSETS: np.int32} if self.lists else {})
        self.starts = np.cumsum([0, *(len(batch) for file in files for batch in file.batches)])  # first row of each batch
        self.file_of = np.repeat(np.arange(len(files)), [len(file.batches) for file in files])  # [batches]
        self.views = [{name: _seen_as(file.whole, dtype) for name, dtype in self.types.items()} for file in files]
        self.first = {  # int64 [batches] the place of a batch's first value in its file
            name: np.array([file.place(self._values(batch, name)) for file in files for batch in file.batches], np.int64)
            for name in self.types
        }

    def take(self, wanted: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """Columns that hold no lists, of the rows with these numbers, int64 [U], in the order given: [U] each."""
        batch, place = self._located(wanted)
        files = self._by_file(batch)
        return {name: self._copied(name, self.first[name][batch] + place, files) for name in names}

    def rows(self, wanted: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(offsets int64 [U + 1], the lists' values one after another [T] each) of the rows with these numbers, int64 [U]."""
        batch, place = self._located(wanted)
        source = self.first[OFFSETS][batch] + place
        files = self._by_file(batch)
        begin, end = (self._copied(OFFSETS, source + side, files).astype(np.int64) for side in (0, 1))
        return np.concatenate([[0], np.cumsum(end - begin)]), self._lists(batch, begin, end - begin)

    def pieces(self, wanted: np.ndarray, start: np.ndarray, stop: np.ndarray) -> dict[str, np.ndarray]:
        """The lists' values from start to stop of each row, int64 [U] each, one after another [T]; no others are read."""
        batch, place = self._located(wanted)
        begin = self._copied(OFFSETS, self.first[OFFSETS][batch] + place, self._by_file(batch)).astype(np.int64)
        return self._lists(batch, begin + start, stop - start)

    def _located(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The batch of each row, and its place in there."""
        batch = np.searchsorted(self.starts, wanted, side="right") - 1
        return batch, wanted - self.starts[batch]

    def _lists(self, batch: np.ndarray, begin: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """`sizes` values from `begin` of each row's batch, int64 [U] each."""
        within, row = ranges(begin, sizes)  # [T] place in the row's batch
        row_batch = batch.take(row)
        files = self._by_file(row_batch)
        return {name: self._copied(name, self.first[name].take(row_batch) + within, files) for name in self.lists}

    def _by_file(self, batch: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(file, places at which `batch` [n] is one of that file's), of the files that are needed."""
        if len(self.views) == 1:
            return [(0, np.empty(0, np.int64))]  # all places: _copied asks no further
        file = self.file_of[batch]
        by_file = np.argsort(file, kind="stable")
        needed, first = np.unique(file[by_file], return_index=True)
        return list(zip(needed.tolist(), np.split(by_file, first[1:])))

    def _copied(self, name: str, source: np.ndarray, files: list[tuple[int, np.ndarray]]) -> np.ndarray:
        """The values at these places of their files, int64 [n]."""
        if len(files) == 1:
            return self.views[files[0][0]][name].take(source)
        values = np.empty(len(source), self.types[name])
        for file, places in files:
            values[places] = self.views[file][name].take(source[places])
        return values

    def _values(self, batch: pa.RecordBatch, name: str) -> np.ndarray:
        if name == OFFSETS:
            return batch[self.lists[0]].offsets.to_numpy()
        column = batch[name]
        return (column.values if name in self.lists else column).to_numpy()


def _seen_as(whole: pa.Buffer, dtype: type) -> np.ndarray:
    return np.frombuffer(whole, dtype, count=whole.size // np.dtype(dtype).itemsize)
