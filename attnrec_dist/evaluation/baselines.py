"""What a model has to beat: five recommenders without training, from counts alone.

    popularity      share of the training events
    trend           share of the training events of the last `trend_days` before the cut
    own_frequency   share of the customer's own events, each weighing half for every `half_life_days` of age
    own_trend       own_frequency + `trend_weight` x trend
    item_graph      the neighbours of what the customer had: cosine of two items over the training baskets

`collect` reads the training events once, in pieces; `scores` then scores the catalogue for any histories. Only the item
graph holds the events in memory, so it has a limit, above which it is left out and a note says so.

No two items of a customer score the same: ranks count ties against a recommender, and how a short history's many ties are
broken moves its figures by .002 and more. Equal items are ordered by popularity, then by lower index (`break_ties`).

S history events of B customers, V catalogue.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation.item_graph import ItemGraphBuilder
from attnrec_dist.settings import Section

DAY = 86_400  # seconds


class BaselinesConfig(Section):
    """The baselines printed beside the model."""

    trend_days: float = Field(14, gt=0, description="days before the cut that the trend counts")
    half_life_days: float | None = Field(60, gt=0, description="age at which a customer's own event weighs half; null: no decay")
    trend_weight: float = Field(3, ge=0, description="weight of the trend beside the customer's own frequency")
    neighbours: int = Field(100, ge=1, description="item graph: neighbours kept of each item")
    graph_events: int = Field(5_000_000, ge=0, description="item graph: left out above this many training events; 0: never built")
    graph_pairs: int = Field(2_000_000_000, ge=0, description="item graph: left out above this many pairs of items in one basket")


class Events(NamedTuple):
    """A piece of the training events, [n] each, in row order: items of the catalogue only, before the cut only."""

    rows: np.ndarray  # int64
    items: np.ndarray  # int32, 0 <= item < V
    times: np.ndarray  # int64, unix seconds
    baskets: np.ndarray  # int64, running number of (row, time) over all pieces


class Histories(NamedTuple):
    """What is known of B customers: their events before the moment of the prediction. Items >= V are ignored."""

    items: np.ndarray  # int [S]
    times: np.ndarray  # int64 [S], unix seconds
    rows: np.ndarray  # int [S], 0 <= row < B
    num_rows: int  # B


@dataclass(frozen=True)
class Statistics:
    """What the baselines know of the training part."""

    popularity: np.ndarray  # int64 [V], training events of each item
    trend: np.ndarray  # int64 [V], those of the last days
    graph: sparse.csr_array | None  # float64 [V, V], rows sum to 1 (or 0): neighbours of each item
    notes: tuple[str, ...]  # what was left out, and why
    config: BaselinesConfig

    @property
    def names(self) -> list[str]:
        """The baselines that can be computed."""
        return [name for name in BASELINES if name != "item_graph" or self.graph is not None]


def collect(events: Iterable[Events], num_items: int, now: int, config: BaselinesConfig) -> Statistics:
    """Counts the training events in one pass; `now` is the cut, unix seconds."""
    popularity, trend = np.zeros(num_items, np.int64), np.zeros(num_items, np.int64)
    builder = ItemGraphBuilder(num_items, config.graph_events, config.graph_pairs)
    for piece in events:
        popularity += np.bincount(piece.items, minlength=num_items)
        recent = (piece.times >= now - config.trend_days * DAY) & (piece.times < now)
        trend += np.bincount(piece.items[recent], minlength=num_items)
        builder.add(piece.items, piece.baskets)
    graph = builder.build(config.neighbours, priority(popularity))
    return Statistics(popularity, trend, graph, tuple(filter(None, [builder.note])), config)


def scores(name: str, statistics: Statistics, histories: Histories) -> Tensor:
    """A baseline's scores of the whole catalogue, float64 [B, V] from 0 to 1, no two of a row equal."""
    known = histories.items < len(statistics.popularity)
    warm = Histories(histories.items[known], histories.times[known], histories.rows[known], histories.num_rows)
    values = BASELINES[name](statistics, warm)  # [B, V] or, the same for all, [V]
    return torch.from_numpy(break_ties(values, statistics.popularity)).expand(histories.num_rows, -1)


def priority(popularity: np.ndarray) -> np.ndarray:
    """Each item's place from the least wanted, int64 [V]: by popularity, among equals the lower index is the better."""
    place = np.empty(len(popularity), np.int64)
    place[np.lexsort((-np.arange(len(popularity)), popularity))] = np.arange(len(popularity))
    return place


def break_ties(values: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Values from 0 to 1, [..., V], rounded to a grid between whose points there is room for every item's priority.

    A float64 has 52 bits below 1; b = log2 V of them (rounded up) take the priority, the others the value. So a row of a
    million items keeps 32 bits of value, sums that differ by rounding only count as equal, and all is exact.

    >>> break_ties(np.array([0.5, 0.5, 0.25]), popularity=np.array([3, 8, 8])).argsort()[::-1]
    array([1, 0, 2])
    """
    bits = max(len(popularity) - 1, 1).bit_length()
    grid = 2.0 ** (52 - bits)
    return np.rint(values * grid) / grid + priority(popularity) * 2.0**-52


def _share(counts: np.ndarray) -> np.ndarray:
    """Counts [..., V] over their sum; all zero where there are none."""
    total = counts.sum(-1, keepdims=True)
    return counts / np.where(total > 0, total, 1)


def _popularity(statistics: Statistics, histories: Histories) -> np.ndarray:
    return _share(statistics.popularity)


def _trend(statistics: Statistics, histories: Histories) -> np.ndarray:
    return _share(statistics.trend)


def _own_frequency(statistics: Statistics, histories: Histories) -> np.ndarray:
    # Ages count from the customer's newest event: any other moment gives the same shares, and this one cannot underflow.
    newest = np.full(histories.num_rows, np.iinfo(np.int64).min)
    np.maximum.at(newest, histories.rows, histories.times)
    half_life = statistics.config.half_life_days
    age = (newest[histories.rows] - histories.times) / DAY
    weight = np.ones(len(age)) if half_life is None else 0.5 ** (age / half_life)
    shape = (histories.num_rows, len(statistics.popularity))
    cell = histories.rows.astype(np.int64) * shape[1] + histories.items
    return _share(np.bincount(cell, weights=weight, minlength=shape[0] * shape[1]).reshape(shape))


def _own_trend(statistics: Statistics, histories: Histories) -> np.ndarray:
    weight = statistics.config.trend_weight
    return (_own_frequency(statistics, histories) + weight * _trend(statistics, histories)) / (1 + weight)


def _item_graph(statistics: Statistics, histories: Histories) -> np.ndarray:
    if statistics.graph is None:
        raise ConfigError("the item graph was not built: " + " ".join(statistics.notes))
    shape = (histories.num_rows, len(statistics.popularity))
    counts = sparse.csr_array((np.ones(len(histories.items)), (histories.rows, histories.items)), shape=shape)
    total = np.maximum(counts.sum(1), 1)
    return (counts @ statistics.graph).toarray() / total[:, None]


BASELINES: dict[str, Callable[[Statistics, Histories], np.ndarray]] = {
    "popularity": _popularity,
    "trend": _trend,
    "own_frequency": _own_frequency,
    "own_trend": _own_trend,
    "item_graph": _item_graph,
}


def tune(
    value: Callable[[BaselinesConfig], float], config: BaselinesConfig, grid: Mapping[str, Sequence[Any]]
) -> BaselinesConfig:
    """The settings of a grid ({key: values}) with the highest validation value; the earlier one of equals.

    >>> tune(lambda c: -abs(c.trend_weight - 2), BaselinesConfig(), {"trend_weight": [0, 1, 3]}).trend_weight
    1
    """
    choices = [config.model_copy(update=dict(zip(grid, cell, strict=True))) for cell in itertools.product(*grid.values())]
    return max(choices, key=value)
