"""Popularity that fades: the events of the days before a moment, each day weighing less the older it is.

A query on day d knows days before d only. For a half-life s the faded count of an item is sum_{e < d} n_e 2^-((d - 1 - e) / s).
It is kept as it stands after each day on which the item has events, F_k = F_{k-1} 2^-((e_k - e_{k-1}) / s) + n_k, so any other
day costs one binary search and one more fading; nothing dense in time exists, and nothing grows with the length of the log.
"""

from __future__ import annotations

import itertools

import numpy as np

DAY = 86_400  # seconds
SMOOTHING = 1e-2  # events that every item is credited with: no item is impossible


class Trend:
    """Faded popularity at any day, for H half-lives. `offsets` [V + 1], `days`, `counts` [n]: each item's days, ascending."""

    def __init__(self, offsets: np.ndarray, days: np.ndarray, counts: np.ndarray, half_lives: tuple[float, ...]):
        self.num_items = len(offsets) - 1
        self.held: tuple[int, np.ndarray] | None = None  # the day that `all_items` was asked for last, and its answer
        self.half_lives = np.asarray(half_lives, np.float64)
        self.first_day = int(days.min()) if len(days) else 0
        self.span = int(days.max()) - self.first_day + 2 if len(days) else 2  # days, and one after the last
        self.start = np.asarray(offsets[:-1], np.int64)
        day = np.asarray(days, np.int64) - self.first_day
        self.key = np.repeat(np.arange(self.num_items) * self.span, np.diff(offsets)) + day  # ascending: (item, day)
        self.of_item = Faded(np.asarray(offsets, np.int64), day, counts, self.half_lives)
        self.all_days, number = np.unique(day, return_inverse=True)
        of_day = np.bincount(number, weights=counts, minlength=len(self.all_days))
        self.of_all = Faded(np.array([0, len(of_day)]), self.all_days, of_day, self.half_lives)

    def log_p(self, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Log of each item's share of the faded events at each time, float32 [n, H]; times in unix seconds."""
        day = times // DAY - self.first_day
        before = np.searchsorted(self.key, items * self.span + np.clip(day, 0, self.span - 1))  # entries before that day
        counts = self.of_item.on(day, np.where(before > self.start[items], before, 0))
        total = self.of_all.on(day, np.searchsorted(self.all_days, day))
        return np.log((counts + SMOOTHING) / (total + SMOOTHING * self.num_items)).astype(np.float32)

    def all_items(self, time: int) -> np.ndarray:
        """`log_p` of the whole catalogue at one time, float32 [V, H]; not to be written to: the last day's is kept."""
        if self.held is None or self.held[0] != time // DAY:
            items = np.arange(self.num_items)
            self.held = time // DAY, self.log_p(items, np.full(self.num_items, time, np.int64))
        return self.held[1]


class Faded:
    """Faded counts after each entry of ragged rows, whose days ascend. Entry 0 stands for none and counts nothing."""

    def __init__(self, offsets: np.ndarray, days: np.ndarray, counts: np.ndarray, half_lives: np.ndarray):
        self.half_lives = half_lives
        self.days = np.concatenate([[0], days])  # [n + 1]
        self.counts = np.concatenate([[0.0], counts])[:, None].repeat(len(half_lives), 1)  # [n + 1, H]
        sizes = np.diff(offsets)
        place = np.arange(len(days)) - np.repeat(offsets[:-1], sizes)
        by_place = np.argsort(place, kind="stable") + 1
        ends = np.cumsum(np.bincount(place))
        for first, stop in itertools.pairwise(ends):  # all rows' second entries, all rows' third ones, ...
            entry = by_place[first:stop]
            self.counts[entry] += self.counts[entry - 1] * self._fading(self.days[entry] - self.days[entry - 1])

    def on(self, day: np.ndarray, entry: np.ndarray) -> np.ndarray:
        """What of an entry's count is left for a query on a later day, [n, H]."""
        return self.counts[entry] * self._fading(np.maximum(day - 1 - self.days[entry], 0))

    def _fading(self, days: np.ndarray) -> np.ndarray:
        return np.exp2(-days[:, None] / self.half_lives)
