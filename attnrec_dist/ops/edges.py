"""The item graph's edges as probabilities: an item hands its weight to its neighbours in proportion to the edges' weights."""

from __future__ import annotations

import numpy as np


def row_sums(offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of each item's edge weights, float64 [V]; 0 for an item without edges. Row i is offsets[i] to offsets[i + 1]."""
    sums = np.zeros(len(offsets) - 1)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        sums[filled] = np.add.reduceat(weights, offsets[filled], dtype=np.float64)
    return sums


def log_shares(weights: np.ndarray, sums: np.ndarray, kept: np.ndarray | float = 1.0) -> np.ndarray:
    """Log of what of its item's weight each edge hands on, float32; `kept` is the part of the edge's count that may be used."""
    return np.log(weights / sums * kept).astype(np.float32)
