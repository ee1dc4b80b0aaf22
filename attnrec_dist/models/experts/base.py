"""What experts share: the queries of a chunk with the histories that they see, and attention over them.

c queries of a chunk, S places of the longest history among them, m targets, V catalogue, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.ops.trend import Trend

DAY = 86_400.0
NOTHING = -1e4  # log p of what an expert rules out: exp of it is 0, and its gradient is 0 instead of NaN
HALF_LIFE = 60.0  # days in which a shop lets a purchase fade to half, before anything is learnt
FORTNIGHT = 14.0  # days
PACE = 10.0  # how much faster than other weights a handful of scalars may move
AGES, AGOS = 24, 64  # buckets of age (half-octaves of days) and of baskets ago


@dataclass(frozen=True)
class ExpertConfig:
    """What all experts are made of."""

    width: int
    half_lives: tuple[float, ...]
    trend: Trend | None = None  # faded popularity, where the data set keeps daily counts


@dataclass
class QueryChunk:
    """Some queries, each with the tokens of its row up to its own basket, newest included; padded to the longest."""

    state: Tensor  # [c, D] the customer's state
    keys: Tensor  # [c, S, D] what the body made of each token
    items: Tensor  # [c, S]
    seen: Tensor  # [c, S] bool; False: padding
    age: Tensor  # [c, S] int64 bucket of the token's age at the query's time
    ago: Tensor  # [c, S] int64 how many baskets ago, from 0
    times: Tensor  # [c] unix seconds of the queries
    target_query: Tensor  # [m] row in the chunk of each target
    evidence: dict[str, Tensor]  # of these targets; `*.target` counts within the chunk, `*.token` is a place in the history


@dataclass
class Listed:
    """Log p of the few items that an expert does not rule out, n over all queries: a catalogue may be far larger."""

    place: Tensor  # [n] query * V + item, ascending
    log_p: Tensor  # [n]
    num_items: int

    @property
    def query(self) -> Tensor:
        return self.place // self.num_items

    @property
    def item(self) -> Tensor:
        return self.place % self.num_items

    def add_to(self, total: Tensor) -> None:
        """Puts these probabilities on top of log p [c, V], in place."""
        flat = total.view(-1)
        flat[self.place] = torch.logaddexp(flat[self.place], self.log_p.to(total.dtype))

    def gather(self, items: Tensor) -> Tensor:
        """Log p of these items, [c, k]; NOTHING for those that are not listed."""
        wanted = torch.arange(len(items), device=items.device)[:, None] * self.num_items + items
        found = torch.searchsorted(self.place, wanted).clamp(max=max(len(self.place) - 1, 0))
        if not len(self.place):
            return self.log_p.new_full(items.shape, NOTHING)
        return torch.where(self.place[found] == wanted, self.log_p[found], NOTHING)

    def dense(self, queries: int) -> Tensor:
        """Log p of every item, [c, V]; NOTHING for those that are not listed."""
        full = self.log_p.new_full((queries * self.num_items,), NOTHING)
        return full.index_copy(0, self.place, self.log_p).view(queries, self.num_items)


class Expert(nn.Module):
    """One opinion on what comes next. Subclasses set `needs` and give log probabilities."""

    needs: tuple[str, ...] = ()

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__()

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        """Log p of each target of the chunk, [m]."""
        raise TypeError(f"{type(self).__name__} does not say how likely a target is")

    def all_log_p(self, chunk: QueryChunk) -> Tensor | Listed:
        """Log p of each item of the catalogue, [c, V]; or of those that are not ruled out."""
        raise TypeError(f"{type(self).__name__} does not say how likely the items are")


class HistoryAttention(nn.Module):
    """Attention of the customer's state over the history: content, age in days, baskets ago. Log weights that sum to 1.

    It starts as what a shop does by hand: content says nothing yet, and a token weighs half for every HALF_LIFE days of age.
    What is learnt of age and place are a handful of scalars with far to go: they move PACE times as fast as the rest.
    """

    fading: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.by_age, self.by_ago = nn.Embedding(AGES, 1), nn.Embedding(AGOS, 1)
        days = torch.exp2(torch.arange(AGES) / 2 + 0.25) - 1  # of the middle of each bucket
        self.register_buffer("fading", -math.log(2) * (days / HALF_LIFE).clamp(max=20), persistent=False)

    def reset_parameters(self) -> None:
        """Age and place start from the prior alone."""
        nn.init.zeros_(self.by_age.weight)
        nn.init.zeros_(self.by_ago.weight)

    def forward(self, chunk: QueryChunk, bias: Tensor | float = 0.0) -> Tensor:
        """[c, S] log weights, from scores to which `bias` [c, S] is added; NOTHING on the padding."""
        score = torch.einsum("cd,csd->cs", self.query(chunk.state), self.key(chunk.keys)) / chunk.state.shape[-1] ** 0.5
        score = wide(score) + self.fading[chunk.age] + PACE * (self.by_age(chunk.age) + self.by_ago(chunk.ago)).squeeze(-1)
        return (score + bias).masked_fill(~chunk.seen, NOTHING).log_softmax(-1)


def by_day(trend: Trend, chunk: QueryChunk) -> Iterator[tuple[Tensor, Tensor]]:
    """Each day among the queries: (which of them ask on it, bool [c]; log of every item's faded popularity on it, [V, H])."""
    days = chunk.times // int(DAY)
    kind = torch.promote_types(chunk.state.dtype, torch.float32)
    for day in days.unique().tolist():
        yield days == day, torch.from_numpy(trend.all_items(day * int(DAY))).to(chunk.state.device, kind)


def wide(values: Tensor) -> Tensor:
    """In fp32 at least: what goes into a softmax or a logarithm is not to be rounded to bf16."""
    return values if values.dtype == torch.float64 else values.float()


def segment_log_sum_exp(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Log of the sum of exp of the values of each segment, [segments]; NOTHING for an empty one."""
    highest = values.new_full((segments,), NOTHING).scatter_reduce(0, segment, values.detach(), "amax")
    total = values.new_zeros(segments).index_add(0, segment, (values - highest[segment]).exp())
    empty = total == 0
    return torch.where(empty, NOTHING, total.masked_fill(empty, 1.0).log() + highest)


def spread(log_weights: Tensor, items: Tensor, num_items: int) -> Listed:
    """Adds up weights by item: log [c, n] and items [c, n] -> log p of those on which weight falls."""
    p = log_weights.new_zeros(len(items), num_items).scatter_add(1, items, log_weights.exp()).flatten()
    place = p.nonzero().squeeze(1)
    return Listed(place, p[place].clamp(min=torch.finfo(p.dtype).tiny).log(), num_items)
