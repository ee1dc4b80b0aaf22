"""What experts share: the queries of a chunk with the histories that they see, and attention over them.

c queries of a chunk, S places of the longest history among them, m targets, V catalogue, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.models.experts.scoring import Listed, Opinion
from attnrec_dist.ops.trend import Trend

DAY = 86_400.0
NOTHING = -1e4  # log p of what an expert rules out: exp of it is 0, and its gradient is 0 instead of NaN
HALF_LIFE = 60.0  # days in which a shop lets a purchase fade to half, before anything is learnt
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


def lacks_graph(spec: DataSpec) -> str:
    """Why the data set's item graph says nothing; "" where it does."""
    graph = spec.statistics.graph() if spec.statistics is not None else None
    if graph is None:
        return "the data set has no item graph (it was prepared with statistics.graph.kind none)"
    return "" if len(graph.neighbours) else "no two items go together in the data set's item graph"


def lacks_counts(spec: DataSpec) -> str:
    """Why the data set's daily counts say nothing; "" where they do."""
    counted = spec.statistics is not None and len(spec.statistics.daily().counts)
    return "" if counted else "the data set has no daily counts (of the kinds of events that statistics.events names)"


LACKS: dict[str, Callable[[DataSpec], str]] = {"neighbours": lacks_graph, "trend": lacks_counts}  # by need


class Expert(nn.Module):
    """One opinion on what comes next. Subclasses set `needs` and give probabilities."""

    needs: tuple[str, ...] = ()
    of_the_unknown = True  # speaks of items that the customer need not have had: Mixture weighs them by their rise

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__()

    @classmethod
    def lacks(cls, spec: DataSpec) -> str:
        """Why the data set leaves this expert nothing to say; "" where it has all that the expert needs."""
        return next(filter(None, (LACKS[need](spec) for need in cls.needs if need in LACKS)), "")

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        """Log p of each target of the chunk, [m]."""
        raise TypeError(f"{type(self).__name__} does not say how likely a target is")

    def opinion(self, chunk: QueryChunk) -> Opinion:
        """p of each item of the catalogue."""
        raise TypeError(f"{type(self).__name__} does not say how likely the items are")


class SilentExpert(Expert):
    """Stands where an expert lacks its statistics: rules every item out, and Mixture gives it no weight."""

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__(config, spec)
        self.num_items = spec.num_items

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        return wide(chunk.state).new_full((len(chunk.target_query),), NOTHING)

    def opinion(self, chunk: QueryChunk) -> Listed:
        state = wide(chunk.state)
        return Listed(state.new_zeros(0, dtype=torch.int64), state.new_zeros(0), self.num_items)


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


def wide(values: Tensor) -> Tensor:
    """In fp32 at least: what goes into a softmax or a logarithm is not to be rounded to bf16."""
    return values if values.dtype == torch.float64 else values.float()


def segment_log_sum_exp(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Log of the sum of exp of the values of each segment, [segments]; NOTHING for an empty one."""
    highest = values.new_full((segments,), NOTHING).scatter_reduce(0, segment, values.detach(), "amax")
    total = values.new_zeros(segments).index_add(0, segment, (values - highest[segment]).exp())
    empty = total == 0
    return torch.where(empty, NOTHING, total.masked_fill(empty, 1.0).log() + highest)
