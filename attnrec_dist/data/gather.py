"""Rows by number out of memory-mapped Arrow files: one copy a column, no loop over rows. What is read is checked first, once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from attnrec_dist.data.blocks import StoredFile
from attnrec_dist.errors import DataError

OFFSETS = "offsets"  # stands beside the columns' names: where a row's lists begin


def ranges(starts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The concatenation of starts[b] + [0, sizes[b]), with the b of each element. int64 [sum(sizes)] each."""
    row = np.repeat(np.arange(len(sizes)), sizes)
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(row)), row


@dataclass(frozen=True)
class MappedFile:
    """An Arrow stream on disk. Its batches are slices of `whole`, so nothing is read before a value is asked for."""

    stored: StoredFile
    batches: list[pa.RecordBatch]

    @classmethod
    def open(cls, stored: StoredFile) -> MappedFile:
        """Raises pyarrow.ArrowInvalid where it is no such stream, DataError where it is damaged."""
        stored.check_headers()
        with pa.ipc.open_stream(stored.whole) as stream:
            batches = list(stream)
        for batch in batches:
            batch.validate()
            if any(column.null_count for column in batch.columns):
                raise pa.ArrowInvalid("it holds nulls")
        return cls(stored, batches)

    @property
    def whole(self) -> pa.Buffer:
        return self.stored.whole

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
        self.values = np.array(
            [self._shortest(batch) for file in files for batch in file.batches], np.int64
        )  # [batches] of a list
        self.file_of = np.repeat(np.arange(len(files)), [len(file.batches) for file in files])  # [batches]
        self.stored = [file.stored for file in files]
        self.views = [{name: _seen_as(file.whole, dtype) for name, dtype in self.types.items()} for file in files]
        self.first = {  # int64 [batches] the place of a batch's first value in its file
            name: np.array([file.place(self._values(batch, name)) for file in files for batch in file.batches], np.int64)
            for name in self.types
        }

    def take(self, wanted: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """Columns that hold no lists, of the rows with these numbers, int64 [U], in the order given: [U] each."""
        batch, place = self._located(wanted)
        files = self._by_file(batch)
        return {name: self._checked(name, self.first[name][batch] + place, files) for name in names}

    def rows(self, wanted: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(offsets int64 [U + 1], the lists' values one after another [T] each) of the rows with these numbers, int64 [U]."""
        batch, begin, end = self._bounds(wanted)
        return np.concatenate([[0], np.cumsum(end - begin)]), self._lists(batch, begin, end - begin)

    def pieces(self, wanted: np.ndarray, start: np.ndarray, stop: np.ndarray) -> dict[str, np.ndarray]:
        """The lists' values from start to stop of each row, int64 [U] each, one after another [T]; no others are read."""
        batch, begin, end = self._bounds(wanted)
        if ((start < 0) | (start > stop) | (stop > end - begin)).any():
            raise DataError("a row is shorter than what is asked of it; the data set or the run's sample index is damaged")
        return self._lists(batch, begin + start, stop - start)

    def _bounds(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The batch of each row, and where its lists begin and end there. Raises DataError where that is not inside."""
        batch, place = self._located(wanted)
        source, files = self.first[OFFSETS][batch] + place, self._by_file(batch)
        begin, end = (self._checked(OFFSETS, source + side, files).astype(np.int64) for side in (0, 1))
        bad = (begin < 0) | (begin > end) | (end > self.values[batch])
        if bad.any():
            path = self.stored[self.file_of[batch[bad][0]]].path
            raise DataError(f"{path}: row {wanted[bad][0]:,} is damaged: its lists are not inside; prepare the data set again")
        return batch, begin, end

    def _located(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The batch of each row, and its place in there."""
        batch = np.searchsorted(self.starts, wanted, side="right") - 1
        return batch, wanted - self.starts[batch]

    def _lists(self, batch: np.ndarray, begin: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """`sizes` values from `begin` of each row's batch, int64 [U] each."""
        for name in self.lists if not all(stored.done for stored in self.stored) else ():
            first = self.first[name][batch] + begin
            self._check(name, first, first + sizes, self._by_file(batch))
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

    def _check(self, name: str, first: np.ndarray, stop: np.ndarray, files: list[tuple[int, np.ndarray]]) -> None:
        """Compares what holds the values from first to stop of their files, int64 [n] each, with the manifest."""
        size = np.dtype(self.types[name]).itemsize
        for file, places in files:
            if not self.stored[file].done:
                chosen = slice(None) if len(files) == 1 else places
                self.stored[file].check(first[chosen] * size, stop[chosen] * size)

    def _checked(self, name: str, source: np.ndarray, files: list[tuple[int, np.ndarray]]) -> np.ndarray:
        """The values at these places of their files, int64 [n], which are compared with the manifest first."""
        self._check(name, source, source + 1, files)
        return self._copied(name, source, files)

    def _copied(self, name: str, source: np.ndarray, files: list[tuple[int, np.ndarray]]) -> np.ndarray:
        """The values at these places of their files, int64 [n]."""
        if len(files) == 1:
            return self.views[files[0][0]][name].take(source)
        values = np.empty(len(source), self.types[name])
        for file, places in files:
            values[places] = self.views[file][name].take(source[places])
        return values

    def _shortest(self, batch: pa.RecordBatch) -> int:
        return min((len(batch[name].values) for name in self.lists), default=0)

    def _values(self, batch: pa.RecordBatch, name: str) -> np.ndarray:
        if name == OFFSETS:
            return batch[self.lists[0]].offsets.to_numpy()
        column = batch[name]
        return (column.values if name in self.lists else column).to_numpy()


def _seen_as(whole: pa.Buffer, dtype: type) -> np.ndarray:
    return np.frombuffer(whole, dtype, count=whole.size // np.dtype(dtype).itemsize)
