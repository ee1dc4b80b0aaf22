"""Popularity that fades: what was bought on the days before a moment, each day weighing less the older it is.

A query on day d knows days before d only. For a half-life s the faded count of an item is sum_{e < d} n_e 2^-((d - e) / s),
read off a prefix sum of n_e 2^(e / s) over the item's days: any day costs one binary search, nothing dense in time exists.
"""

from __future__ import annotations

import numpy as np

DAY = 86_400  # seconds
SMOOTHING = 1e-2  # events that every item is credited with: no item is impossible


class Trend:
    """Faded popularity at any day, for H half-lives. `offsets` [V + 1], `days`, `counts` [n]: each item's days, ascending."""

    def __init__(self, offsets: np.ndarray, days: np.ndarray, counts: np.ndarray, half_lives: tuple[float, ...]):
        self.num_items = len(offsets) - 1
        self.half_lives = np.asarray(half_lives, np.float64)
        self.first_day = int(days.min()) if len(days) else 0
        day = np.asarray(days, np.int64) - self.first_day
        self.span = int(day.max()) + 2 if len(day) else 2
        item = np.repeat(np.arange(self.num_items), np.diff(offsets))
        self.key = item * self.span + day  # ascending: (item, day)
        grown = counts[:, None] * np.exp2(day[:, None] / self.half_lives)  # [n, H]
        self.prefix = np.concatenate([np.zeros((1, len(half_lives))), np.cumsum(grown, axis=0)])  # [n + 1, H]
        self.start = np.asarray(offsets[:-1], np.int64)
        of_day = np.zeros((self.span, len(half_lives)))
        np.add.at(of_day, day, grown)
        self.total = np.concatenate([np.zeros((1, len(half_lives))), np.cumsum(of_day, axis=0)])  # [span + 1, H] before a day

    def log_p(self, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Log of each item's share of the faded events at each time, float32 [n, H]; times in unix seconds."""
        day = np.clip(times // DAY - self.first_day, 0, self.span - 1)
        found = np.searchsorted(self.key, items * self.span + day)  # the first entry of that day or later
        scale = np.exp2(-day[:, None] / self.half_lives)
        counts = np.maximum(self.prefix[found] - self.prefix[self.start[items]], 0) * scale
        total = self.total[day] * scale
        return np.log((counts + SMOOTHING) / (total + SMOOTHING * self.num_items)).astype(np.float32)

    def all_items(self, time: int) -> np.ndarray:
        """`log_p` of the whole catalogue at one time, float32 [V, H]."""
        items = np.arange(self.num_items)
        return self.log_p(items, np.full(self.num_items, time, np.int64))
