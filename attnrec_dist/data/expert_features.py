"""What the experts of a mixture need to know of each target, looked up by the loader's workers.

    repeats     the tokens of the history that are the target itself              repeats.target, repeats.token [N]
    neighbours  the tokens that have the target among their neighbours            neighbours.target, .token, .log_weight [N]
    trend       the log of the target's faded popularity at the query's time      trend [M, H]

Pairs (target, token) are sorted by target. The graph has counted the training samples themselves; what a query's own basket to
come added to an edge is taken back: the once that both items stand in it, and, where the graph counts which item follows which,
each time that the token's item stands among the last few before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnrec_dist.batch import Needs, SequenceBatch
from attnrec_dist.data.gather import ranges
from attnrec_dist.ops.edges import log_shares, row_sums
from attnrec_dist.ops.trend import Trend


class EvidenceFinder:
    """Adds the evidence that a model needs to each batch. Its tables are memory-mapped and shared by the workers.

    What the data set has no table for is left out.
    """

    def __init__(self, needs: Needs, statistics: Any):
        self.needs = needs
        graph = statistics.graph() if "neighbours" in needs.names else None
        self.graph = None if graph is None else Edges.of(graph)
        self.trend = trend_of(statistics.daily(), needs.half_lives) if "trend" in needs.names else None
        self.mark = np.zeros(len(self.graph.offsets) if self.graph else 0, np.int32)  # scratch: item -> target of the row

    def add(self, batch: SequenceBatch) -> None:
        finders: dict[str, Callable[[Lookup], dict[str, np.ndarray]]] = {"repeats": repeats, "trend": self._trend}
        if self.graph is not None:
            finders["neighbours"] = functools.partial(neighbours, graph=self.graph, mark=self.mark)
        lookup = Lookup(batch)
        for name in filter(finders.__contains__, self.needs.names):
            batch.evidence |= {key: torch.from_numpy(value) for key, value in finders[name](lookup).items()}

    def _trend(self, lookup: Lookup) -> dict[str, np.ndarray]:
        return {"trend": self.trend.log_p(lookup.targets, lookup.times[lookup.query])}  # type: ignore[union-attr]


def trend_of(daily: Any, half_lives: tuple[float, ...]) -> Trend:
    return Trend(daily.offsets, daily.days, daily.counts, half_lives)


@dataclass(frozen=True)
class Edges:
    """The item graph as rows of edges."""

    offsets: np.ndarray  # int64 [V + 1]
    neighbours: np.ndarray  # int32 [E]
    pairs: np.ndarray  # int32 [E] baskets that hold both
    weights: np.ndarray  # float32 [E]
    sums: np.ndarray  # float64 [V] of each row's weights
    within: int  # events that count as following; 0: pairs are of baskets

    @classmethod
    def of(cls, graph: Any) -> Edges:
        offsets = graph.offsets.astype(np.int64)
        return cls(offsets, graph.neighbours, graph.pairs, graph.weights, row_sums(offsets, graph.weights), graph.within)


class Lookup:
    """A batch as numpy arrays, and its tokens sorted by (row, item)."""

    def __init__(self, batch: SequenceBatch):
        self.items, self.targets = batch.items.numpy(), batch.targets.numpy()
        self.query, self.times = batch.target_query.numpy(), batch.query_times.numpy()
        self.last_token = batch.queries.numpy()[self.query]  # [M] the newest token that each target's query sees
        self.offsets = batch.offsets.numpy().astype(np.int64)
        rows = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        self.row = rows[self.last_token] if len(self.last_token) else np.empty(0, np.int64)  # [M]
        self.span = int(max(self.items.max(initial=0), self.targets.max(initial=0))) + 1
        key = rows * self.span + self.items
        self.by_item = np.argsort(key, kind="stable")  # tokens; of one item in time order
        self.key = key[self.by_item]
        baskets = batch.baskets.numpy()
        ends = np.flatnonzero(np.append((np.diff(rows) != 0) | (np.diff(baskets) != 0), True)) if len(rows) else rows
        self.basket_end = ends[np.searchsorted(ends, np.arange(len(rows)))]  # [T] the last token of each token's basket

    def tokens_of(self, target: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each (target, item): its tokens in the target's row that the query sees: (place in the arguments, token), [N]."""
        key = self.row[target] * self.span + items
        first, stop = np.searchsorted(self.key, key), np.searchsorted(self.key, key, side="right")
        place, pair = ranges(first, stop - first)
        token = self.by_item[place]
        seen = token <= self.last_token[target[pair]]
        return pair[seen], token[seen]


def repeats(lookup: Lookup) -> dict[str, np.ndarray]:
    target, token = lookup.tokens_of(np.arange(len(lookup.targets)), lookup.targets)
    return {"repeats.target": target, "repeats.token": token}


def neighbours(lookup: Lookup, graph: Edges, mark: np.ndarray) -> dict[str, np.ndarray]:
    """Pairs whose token's item leads to the target in the item graph, with the log of the edge's share of its item's edges."""
    target, item, log_weight = edges_to_targets(lookup, graph, mark)
    pair, token = lookup.tokens_of(target, item)
    order = np.argsort(target[pair], kind="stable")
    pair, token = pair[order], token[order]
    return {
        "neighbours.target": target[pair],
        "neighbours.token": token,
        "neighbours.log_weight": log_weight[pair],
    }


def edges_to_targets(lookup: Lookup, graph: Edges, mark: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(target, item of the history that leads to it, log share of the edge), [E] each; the target's own basket not counted."""
    found: list[tuple[np.ndarray, ...]] = []
    starts = np.searchsorted(lookup.row, np.arange(len(lookup.offsets)))
    for row in np.unique(lookup.row):
        items = np.unique(lookup.items[lookup.offsets[row] : lookup.offsets[row + 1]])
        edge, source = ranges(graph.offsets[items], graph.offsets[items + 1] - graph.offsets[items])
        of_row = np.arange(starts[row], starts[row + 1])  # its targets; one item may be the target of several queries
        order = of_row[np.argsort(lookup.targets[of_row], kind="stable")]
        wanted, first = np.unique(lookup.targets[order], return_index=True)
        sizes = np.diff(np.append(first, len(order)))
        mark[wanted] = np.arange(1, len(wanted) + 1)
        slot = mark[graph.neighbours[edge]]
        mark[wanted] = 0
        hit = np.flatnonzero(slot)
        place, of_hit = ranges(first[slot[hit] - 1], sizes[slot[hit] - 1])
        found.append((order[place], items[source[hit[of_hit]]], edge[hit[of_hit]]))
    empty = np.empty(0, np.int64)
    target, item, edge = (np.concatenate(parts) for parts in zip(*found)) if found else (empty, empty, empty)
    pairs = graph.pairs[edge].astype(np.float64)
    left = (pairs - own_counts(lookup, graph.within, target, item)) / pairs
    kept = left > 0
    target, item, edge = target[kept], item[kept], edge[kept]
    return target, item, log_shares(graph.weights[edge], graph.sums[item], left[kept])


def own_counts(lookup: Lookup, within: int, target: np.ndarray, item: np.ndarray) -> np.ndarray:
    """How often the target's own basket was counted on the edge from an item to it, int64 [E].

    Rather too often than too rarely: the order inside a basket means nothing here, so a basket that reaches into the last few
    events before the target counts whole.
    """
    own = in_same_basket(lookup, target, item).astype(np.int64)
    if within:
        pair, token = lookup.tokens_of(target, item)
        recent = lookup.last_token[target[pair]] - lookup.basket_end[token] < within
        own += np.bincount(pair[recent], minlength=len(target))
    return own


def in_same_basket(lookup: Lookup, target: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Whether an item stands in the basket that the target's query has to predict, bool [E]."""
    key = np.sort(lookup.query * lookup.span + lookup.targets)
    wanted = lookup.query[target] * lookup.span + item
    place = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
    return key[place] == wanted if len(key) else np.zeros(len(target), bool)
