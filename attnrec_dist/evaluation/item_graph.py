"""The graph of items that go together: for each item its nearest others by the cosine of their training baskets.

cosine(i, j) = baskets with both / sqrt(baskets with i x baskets with j). The product of the basket-item incidence with
itself is formed a piece at a time, so memory holds the events and one piece, never a (V x V) matrix. V catalogue.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

PIECE_PAIRS = 2**23  # pairs of items multiplied at a time: about 100 MB


class ItemGraphBuilder:
    """Takes the events in pieces, then builds the graph; beyond its limits it lets go of them and leaves a note."""

    def __init__(self, num_items: int, max_events: int, max_pairs: int):
        self.num_items, self.max_events, self.max_pairs = num_items, max_events, max_pairs
        self.note = ""  # why there is no graph
        self._events = 0
        self._pieces: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, items: np.ndarray, baskets: np.ndarray) -> None:
        """Events of a piece: item and running number of the basket, [n] each."""
        self._events += len(items)
        if self._events <= self.max_events:
            self._pieces.append((items.astype(np.int32), baskets.astype(np.int64)))
        else:
            self._pieces.clear()

    def build(self, neighbours: int, priority: np.ndarray) -> sparse.csr_array | None:
        """Float64 [V, V]: each row the cosines of an item's top neighbours over their sum; None with a note if left out.

        Args:
            neighbours: how many a row keeps
            priority: int [V], the higher is kept among equal cosines
        """
        if self._events > self.max_events:
            self.note = _left_out(f"{self._events:,} training events", self.max_events, "graph_events")
            return None
        incidence = self._incidence()
        sizes = np.diff(incidence.indptr).astype(np.int64)  # distinct items of each basket
        pairs = int((sizes**2).sum())
        if pairs > self.max_pairs:
            self.note = _left_out(f"{pairs:,} pairs of items in one basket", self.max_pairs, "graph_pairs")
            return None
        if sizes.max(initial=0) < 2:
            self.note = "item_graph is left out: no training basket holds two different items"
            return None
        return _nearest(incidence, sizes, neighbours, priority)

    def _incidence(self) -> sparse.csr_array:
        """Which items each basket holds, int32 ones [baskets, V]."""
        items = np.concatenate([np.zeros(0, np.int32), *(piece[0] for piece in self._pieces)])
        baskets = np.concatenate([np.zeros(0, np.int64), *(piece[1] for piece in self._pieces)])
        self._pieces.clear()
        shape = (int(baskets.max(initial=-1)) + 1, self.num_items)
        incidence = sparse.csr_array((np.ones(len(items), np.int32), (baskets, items)), shape=shape)
        incidence.sum_duplicates()
        incidence.data[:] = 1
        return incidence


def _left_out(found: str, limit: int, key: str) -> str:
    return (
        f"item_graph is left out: {found} are more than the {limit:,} of evaluation.baselines.{key}; raise it to build the graph"
    )


def _nearest(incidence: sparse.csr_array, sizes: np.ndarray, neighbours: int, priority: np.ndarray) -> sparse.csr_array:
    holders = incidence.T.tocsr()  # [V, baskets]
    baskets = np.diff(holders.indptr).astype(np.float64)  # of each item
    work = np.cumsum(holders @ sizes)  # pairs up to each item
    cuts = np.unique(np.searchsorted(work, np.arange(0, work[-1], PIECE_PAIRS)))
    rows = []
    for lo, hi in zip(cuts, [*cuts[1:], len(work)], strict=True):
        together = holders[lo:hi] @ incidence  # [hi - lo, V] baskets that hold both
        for item in range(lo, hi):
            span = slice(together.indptr[item - lo], together.indptr[item - lo + 1])
            other, both = together.indices[span], together.data[span]
            cosine = np.where(other == item, 0, both / np.sqrt(baskets[item] * baskets[other]))
            kept = np.lexsort((-priority[other], -cosine))[:neighbours]
            kept = np.sort(kept[cosine[kept] > 0])
            rows.append((other[kept], cosine[kept] / max(cosine[kept].sum(), np.finfo(float).tiny)))
    lengths = [len(other) for other, _ in rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    data, indices = np.concatenate([value for _, value in rows]), np.concatenate([other for other, _ in rows])
    return sparse.csr_array((data, indices, indptr), shape=(len(work), len(work)))
