"""What prepare counts over the catalogue, made up: daily counts and an item graph in dicts, with the arrays that readers see."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from attnrec_dist.batch import Needs, SequenceBatch
from attnrec_dist.data.expert_features import EvidenceFinder
from attnrec_dist.data.statistics import DailyCounts, ItemGraph


@dataclass(frozen=True)
class FakeStatistics:
    """`events`: {(item, day): count}; `edges`: {(item, neighbour): (weight, pairs)}."""

    num_items: int
    events: dict[tuple[int, int], int] = field(default_factory=dict)
    edges: dict[tuple[int, int], tuple[float, int]] = field(default_factory=dict)
    within: int = 0

    def daily(self) -> DailyCounts:
        keys = sorted(self.events)
        return DailyCounts(
            offsets=self._offsets(keys),
            days=np.array([day for _, day in keys], np.int32),
            counts=np.array([self.events[key] for key in keys], np.int32),
        )

    def popularity(self) -> np.ndarray:
        counts = np.zeros(self.num_items, np.int64)
        for (item, _), count in self.events.items():
            counts[item] += count
        return counts

    def graph(self) -> ItemGraph:
        keys = sorted(self.edges, key=lambda edge: (edge[0], -self.edges[edge][0], edge[1]))
        return ItemGraph(
            offsets=self._offsets(keys),
            neighbours=np.array([other for _, other in keys], np.int32),
            weights=np.array([self.edges[key][0] for key in keys], np.float32),
            pairs=np.array([self.edges[key][1] for key in keys], np.int32),
            baskets=np.full(self.num_items, 9, np.int32),
            within=self.within,
        )

    def _offsets(self, keys: list[tuple[int, int]]) -> np.ndarray:
        sizes = np.bincount([item for item, _ in keys], minlength=self.num_items) if keys else np.zeros(self.num_items, int)
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def make_statistics(num_items: int = 30, seed: int = 0, days: tuple[int, int] = (8, 20), isolated: float = 0.2) -> FakeStatistics:
    """Random counts on the days around `strategies.make_batch`'s times (11, 12, ...), and a graph in which a share of the
    items has no neighbours. One item in five was never bought at all."""
    draw = np.random.default_rng(seed)
    events = {
        (item, int(day)): int(draw.integers(1, 9))
        for item in range(num_items)
        if draw.random() > 0.2
        for day in draw.integers(*days, size=draw.integers(1, 6))
    }
    edges = {}
    for item in range(num_items):
        if draw.random() < isolated:
            continue
        for other in draw.choice(num_items, size=min(num_items, int(draw.integers(1, 9))), replace=False):
            if other != item:
                edges[item, int(other)] = (float(draw.uniform(0.05, 1)), int(draw.integers(1, 4)))
    return FakeStatistics(num_items, events, edges)


def with_evidence(batch: SequenceBatch, needs: Needs, statistics: FakeStatistics) -> SequenceBatch:
    """The batch with what the needs ask for, looked up anew."""
    batch = dataclasses.replace(batch, evidence={})
    if needs.names:
        EvidenceFinder(needs, statistics).add(batch)
    return batch
