"""Rows by number out of memory-mapped Arrow batches: a slice of each row's lists, and one copy a column.

Taking the rows as an Arrow table first, and flattening that, took four times as long as all the copying.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

FEW_BATCHES = 32  # of them a token is taken by its place; of more, slicing row by row is faster


class Gather:
    """Views of the batches' buffers. The columns of `lists` are parallel. A batch holds about a thousand rows."""

    def __init__(self, batches: list[pa.RecordBatch], plain: list[str], lists: list[str]):
        self.starts = np.cumsum([0, *(len(batch) for batch in batches)])
        self.offsets = [batch[lists[0]].offsets.to_numpy() for batch in batches]
        self.plain = {name: [batch[name].to_numpy() for batch in batches] for name in plain}
        self.lists = {name: [batch[name].values.to_numpy() for batch in batches] for name in lists}

    def rows(self, wanted: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(offsets int64 [U + 1], columns) of the rows with these numbers, int64 [U], in the order given: plain columns [U],
        the lists one after another [T]."""
        batches, places = self._places(wanted)
        columns = {
            name: np.array([values[batch][place] for batch, place in zip(batches, places)], values[0].dtype)
            for name, values in self.plain.items()
        }
        first = [int(self.offsets[batch][place]) for batch, place in zip(batches, places)]
        last = [int(self.offsets[batch][place + 1]) for batch, place in zip(batches, places)]
        offsets = np.concatenate([[0], np.cumsum(np.subtract(last, first), dtype=np.int64)])
        return offsets, columns | self._lists(batches, first, last)

    def pieces(self, wanted: np.ndarray, start: np.ndarray, stop: np.ndarray) -> dict[str, np.ndarray]:
        """The list columns' values from start to stop of each row, int64 [U] each, one after another [T]; no others are read."""
        batch_of = np.searchsorted(self.starts, wanted, side="right") - 1
        touched, rows_in = np.unique(batch_of, return_counts=True)
        if len(touched) > FEW_BATCHES:
            batches, places = self._places(wanted)
            begin = np.array([self.offsets[batch][place] for batch, place in zip(batches, places)], np.int64)
            return self._lists(batches, (begin + start).tolist(), (begin + stop).tolist())
        by_batch = np.argsort(batch_of, kind="stable")  # [U] rows, those of one batch side by side
        ends = np.cumsum(rows_in)
        begin = np.empty(len(wanted), np.int64)  # by batch, too
        for batch, low, high in zip(touched, ends - rows_in, ends):
            begin[low:high] = self.offsets[batch][wanted[by_batch[low:high]] - self.starts[batch]]
        sizes = stop - start
        size = sizes[by_batch]
        tokens = np.concatenate([[0], np.cumsum(size)])
        within = np.arange(tokens[-1]) - np.repeat(tokens[:-1], size)  # [T] place in its row
        source = within + np.repeat(begin + start[by_batch], size)  # [T] place in its batch
        target = within + np.repeat((np.cumsum(sizes) - sizes)[by_batch], size)  # [T] place among all, rows in the order given
        return self._taken(touched, tokens[np.concatenate([[0], ends])], source, target)

    def _taken(self, touched: np.ndarray, edges: np.ndarray, source: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        """The list columns' values at these places of their batches, int64 [T], put where `target` says; one copy a column and
        batch. Tokens edges[k] to edges[k + 1] are of batch touched[k]."""
        taken = {name: np.empty(len(source), values[0].dtype) for name, values in self.lists.items()}
        for batch, low, high in zip(touched, edges[:-1], edges[1:]):
            places, where = source[low:high], target[low:high]
            for name, values in self.lists.items():
                taken[name][where] = values[batch][places]
        return taken

    def _places(self, wanted: np.ndarray) -> tuple[list[int], list[int]]:
        """The batch of each row, and its place in there."""
        batch_of = np.searchsorted(self.starts, wanted, side="right") - 1
        return batch_of.tolist(), (wanted - self.starts[batch_of]).tolist()

    def _lists(self, batches: list[int], first: list[int], last: list[int]) -> dict[str, np.ndarray]:
        return {
            name: np.concatenate([values[0][:0], *(values[b][i:j] for b, i, j in zip(batches, first, last))])
            for name, values in self.lists.items()
        }
