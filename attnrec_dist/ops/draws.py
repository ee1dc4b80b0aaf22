"""Random items as a pure function of a key: the same on any device, on any number of processes, in any micro-batch.

A key is 64 bits; the n-th number drawn under it is the n-th output of splitmix64 (Steele, Lea and Flood 2014) seeded with
the key. int64 arithmetic wraps round, on the CPU and on a GPU alike, so there is no generator and no state.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the constants of splitmix64, as the int64 of the same bits
FIRST, SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def mix(values: Tensor) -> Tensor:
    """splitmix64's finaliser, a bijection of int64 in which every bit reaches every other. Any shape."""
    values = (values ^ _shifted(values, 30)).mul_(FIRST)
    values = values.bitwise_xor_(_shifted(values, 27)).mul_(SECOND)
    return values.bitwise_xor_(_shifted(values, 31))


def combine(key: Tensor | int, *parts: Tensor) -> Tensor:
    """A key for each element of `parts` (int64, one shape): another part, or another order of them, is another key."""
    for part in parts:
        key = mix(part + key)
    return torch.as_tensor(key)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """`count` numbers of [0, 1) under each key: int64 [...] -> float64 [..., count], on a grid of 2^-53."""
    steps = torch.arange(1, count + 1, device=keys.device).mul_(GOLDEN)
    return _shifted(mix(keys[..., None] + steps), 11).double().mul_(2.0**-53)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's own copies the sign."""
    return (values >> bits).bitwise_and_(2 ** (64 - bits) - 1)


class ItemSampler(nn.Module):
    """Draws items with replacement, uniformly or in proportion to counts, in O(1) an item (alias method, Walker 1977)."""

    keep: Tensor  # [V] float64
    alias: Tensor  # [V] int64
    log_share: Tensor  # [V] float64

    def __init__(self, num_items: int, counts: np.ndarray | None = None):
        """`counts` [V], not negative and not all 0; None: all items alike."""
        super().__init__()
        self.num_items = num_items
        self.uniform = counts is None
        if counts is None:
            return
        share = np.asarray(counts, np.float64) / np.sum(counts, dtype=np.float64)
        keep, alias = alias_table(share)
        with np.errstate(divide="ignore"):
            log_share = np.log(share)
        # Made anew at every start, so in no checkpoint.
        self.register_buffer("keep", torch.from_numpy(keep), persistent=False)
        self.register_buffer("alias", torch.from_numpy(alias), persistent=False)
        self.register_buffer("log_share", torch.from_numpy(log_share), persistent=False)

    def forward(self, keys: Tensor, count: int) -> Tensor:
        """`count` items under each key: int64 [...] -> int64 [..., count]."""
        place = uniforms(keys, count).mul_(self.num_items)
        item = place.long().clamp_(max=self.num_items - 1)
        if self.uniform:
            return item
        inside = place.sub_(item)  # what is left of the same number is uniform too, to 2^-53 V
        return torch.where(inside < self.keep[item], item, self.alias[item])

    def log_p(self, items: Tensor) -> Tensor:
        """Log of the probability that one draw is this item, float64 of the shape of `items`."""
        if self.uniform:
            log_p = torch.full((), -float(np.log(self.num_items)), dtype=torch.float64, device=items.device)
            return log_p.expand(items.shape)
        return self.log_share[items]


def alias_table(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(keep [V], alias [V]): cell i of V equal ones gives item i with probability keep[i], else item alias[i].

    Without a loop: laid out one after another, what the rare items' cells lack is covered by what the frequent ones have too
    much, in order. Where a lack reaches over the end of an excess, that frequent item's own cell is completed by the next one.

    >>> [each.tolist() for each in alias_table(np.array([0.5, 0.25, 0.25, 0.0]))]
    [[1.0, 1.0, 1.0, 0.0], [0, 1, 2, 0]]
    """
    scaled = share * len(share)
    keep, alias = np.ones(len(share)), np.arange(len(share))
    rare, frequent = np.flatnonzero(scaled < 1), np.flatnonzero(scaled > 1)
    if not len(rare) or not len(frequent):
        return keep, alias
    lack, excess = np.cumsum(1 - scaled[rare]), np.cumsum(scaled[frequent] - 1)
    last = len(frequent) - 1
    begins = np.concatenate([[0.0], lack[:-1]])
    keep[rare] = scaled[rare]
    alias[rare] = frequent[np.minimum(np.searchsorted(excess, begins, side="right"), last)]
    over = np.minimum(np.searchsorted(lack, excess, side="right"), len(rare) - 1)  # the lack where each excess ends
    crossed = np.flatnonzero((begins[over] < excess) & (excess < lack[over]) & (np.arange(len(frequent)) < last))
    keep[frequent[crossed]] = np.clip(1 - (lack[over[crossed]] - excess[crossed]), 0, 1)
    alias[frequent[crossed]] = frequent[crossed + 1]
    return keep, alias
