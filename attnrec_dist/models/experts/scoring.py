"""What an expert says of the catalogue at each query of a chunk, in ranking: p_k of every item, or of a few when asked again.

An opinion adds itself to the mixture's p [c, V] and tells p of given items [c, k] without holding [c, V] itself, so a
catalogue of millions costs one dense matrix whatever the number of experts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.trend import DAY, Trend

FORTNIGHT = 14.0  # days
ELEMENTS_AT_ONCE = 2**22  # of a [rows, V] piece in the accumulator's type


class Opinion(Protocol):
    def add_to(self, p: Tensor, share: Tensor) -> None:
        """Adds share [c] times p_k to p [c, V], in place."""

    def of(self, items: Tensor) -> Tensor:
        """p_k of these items [c, k], [c, k]."""


@dataclass
class Softmax:
    """Over the item table, from states [c, D]."""

    state: Tensor
    table: ItemTable
    log_sum: Tensor | None = None  # [c] of the logits; known once they were made

    def add_to(self, p: Tensor, share: Tensor) -> None:
        logits = self.table.logits(self.state)
        self.log_sum = log_sum(logits)
        for rows in runs(torch.arange(len(p)), p.shape[1]):
            piece = logits[rows].to(p.dtype).sub_(self.log_sum[rows, None])
            p[rows].addcmul_(piece.exp_(), share[rows, None].to(p.dtype))

    def of(self, items: Tensor) -> Tensor:
        if self.log_sum is None:
            self.log_sum = log_sum(self.table.logits(self.state))
        logits = (self.table(items) * self.state[:, None]).sum(-1)
        return (logits - self.log_sum[:, None]).exp()


@dataclass
class Faded:
    """Popularity on each query's day, the half-lives mixed by weights [c, H]."""

    weights: Tensor
    times: Tensor  # [c] unix seconds
    trend: Trend

    def add_to(self, p: Tensor, share: Tensor) -> None:
        weights = self.weights * share[:, None].to(self.weights.dtype)
        with torch.autocast(p.device.type, enabled=False):  # or it would round the product
            for rows, log_p in by_day(self.trend, self.times, self.weights):
                popularity = log_p.exp().t().contiguous()  # [H, V]
                for run in runs(rows, p.shape[1]):
                    p[run] += weights[run] @ popularity

    def of(self, items: Tensor) -> Tensor:
        found = self.weights.new_empty(items.shape)
        for rows, log_p in by_day(self.trend, self.times, self.weights):
            found[rows] = (log_p.exp()[items[rows]] * self.weights[rows][:, None]).sum(-1)
        return found


@dataclass
class Listed:
    """The few items that an expert does not rule out, n over all queries: a catalogue may be far larger."""

    place: Tensor  # [n] query * V + item, ascending
    p: Tensor  # [n]
    num_items: int

    @property
    def query(self) -> Tensor:
        return self.place // self.num_items

    @property
    def item(self) -> Tensor:
        return self.place % self.num_items

    def add_to(self, p: Tensor, share: Tensor) -> None:
        p.view(-1).index_add_(0, self.place, self.p.to(p.dtype) * share.to(p.dtype)[self.query])

    def of(self, items: Tensor) -> Tensor:
        wanted = torch.arange(len(items), device=items.device)[:, None] * self.num_items + items
        if not len(self.place):
            return self.p.new_zeros(items.shape)
        found = torch.searchsorted(self.place, wanted).clamp(max=len(self.place) - 1)
        return torch.where(self.place[found] == wanted, self.p[found], 0)


@dataclass
class Rise:
    """(popularity of late / popularity of long)^power at each query's day."""

    power: float
    trend: Trend
    half_lives: tuple[float, ...]
    times: Tensor  # [P]

    def weigh(self, p: Tensor) -> None:
        """Multiplies p [P, V], in place."""
        for rows, log_p in by_day(self.trend, self.times, p):
            factor = self._of(log_p)
            for run in runs(rows, p.shape[1]):
                p[run] *= factor

    def of(self, items: Tensor) -> Tensor:
        """Of items [P, k], float64 [P, k]."""
        found = torch.empty(items.shape, dtype=torch.float64, device=items.device)
        for rows, log_p in by_day(self.trend, self.times, found):
            found[rows] = self._of(log_p)[items[rows]]
        return found

    def _of(self, log_p: Tensor) -> Tensor:
        longest = self.half_lives.index(max(self.half_lives))
        return (self.power * (log_p[:, lately(self.half_lives)] - log_p[:, longest])).double().exp()


@dataclass
class Answer:
    """The experts' opinions on P queries and their weights alpha [P, K]."""

    opinions: list[Opinion]
    alpha: Tensor
    rising: list[bool]  # of each expert: whether its items are weighed by their rise
    rise: Rise | None
    num_items: int

    @torch.no_grad()
    def p(self) -> Tensor:
        """Of every item, float64 [P, V]: one such matrix is held, whatever the number of experts."""
        p = torch.zeros(len(self.alpha), self.num_items, dtype=torch.float64, device=self.alpha.device)
        for speaks_of_the_unknown in (True, False):
            for place, opinion in enumerate(self.opinions):
                if self.rising[place] is speaks_of_the_unknown:
                    opinion.add_to(p, self.alpha[:, place])
            if speaks_of_the_unknown and self.rise is not None:
                self.rise.weigh(p)
        return p

    @torch.no_grad()
    def shares(self, items: Tensor) -> Tensor:
        """What part of the p of these items [P, k] each expert gave, [P, k, K]; sums to 1 over the experts."""
        p = torch.stack([opinion.of(items).double() for opinion in self.opinions], -1) * self.alpha[:, None].double()
        if self.rise is not None:
            p[..., torch.tensor(self.rising)] *= self.rise.of(items)[..., None]
        return p / p.sum(-1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)


def log_sum(logits: Tensor) -> Tensor:
    """Log of the sum of exp over the catalogue, [c], in fp32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).logsumexp(1)


def by_day(trend: Trend, times: Tensor, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each day among the queries: (which of them ask on it, int64 [n]; log of every item's faded popularity on it, [V, H])."""
    days = times // DAY
    kind = torch.promote_types(like.dtype, torch.float32)
    for day in days.unique().tolist():
        log_p = torch.from_numpy(trend.all_items(day * DAY)).to(times.device, kind)
        yield (days == day).nonzero().squeeze(1), log_p


def runs(chosen: Tensor, width: int) -> Iterator[slice]:
    """Rows [n], ascending, as slices of neighbours, of ELEMENTS_AT_ONCE at most: a slice is worked on in place, uncopied."""
    longest = max(1, ELEMENTS_AT_ONCE // width)
    rows = chosen.tolist()
    first = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place] != rows[place - 1] + 1 or place - first == longest:
            yield slice(rows[first], rows[place - 1] + 1)
            first = place


def lately(half_lives: tuple[float, ...]) -> int:
    """The place of the half-life nearest to a fortnight."""
    return min(range(len(half_lives)), key=lambda place: abs(math.log(half_lives[place] / FORTNIGHT)))


def spread(log_weights: Tensor, items: Tensor, num_items: int) -> Listed:
    """Adds up weights by item: log [c, n] and items [c, n] -> p of those on which weight falls."""
    row = torch.arange(len(items), device=items.device)[:, None]
    place, number = (row * num_items + items).flatten().unique(return_inverse=True)
    p = log_weights.new_zeros(len(place)).index_add_(0, number, log_weights.exp().flatten())
    kept = p > 0
    return Listed(place[kept], p[kept], num_items)
