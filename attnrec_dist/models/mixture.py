"""Behaviour experts weighed by attention: p(i) = sum_k alpha_k p_k(i), alpha = softmax over the K experts, sum 1.

    sequence   softmax over the item table, from the body's hidden state       copy    the customer's own items, again
    trend      what all customers had of late                                  graph   what goes with the customer's items

The weights come from the customer's state: each expert has a key, the state is the query. An expert that the data set has no
statistics for has the weight 0. Training stays in log space. The softmax over the catalogue is left to the loss, in chunks; the
other experts give log p of the targets alone, a chunk of queries at a time, so no [targets x history] tensor outlives its chunk.

In ranking, p(i) = alpha_copy p_copy(i) + (popularity of late / popularity of long, of i)^rise x sum of the others'. Who has not
bought an item that sold for long has declined it often; one that has just begun to sell has not been declined yet. The
likelihood cannot teach `rise`, since its sum over the catalogue would be due for each query; it is chosen on validation. So is
`discount`: the sequence, which remembers its training baskets, earns a weight there that it does not deserve on later ones.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnrec_dist.batch import DataSpec, Needs, Output, SequenceBatch
from attnrec_dist.errors import ConfigError, DataError
from attnrec_dist.models.base import ModelConfig, NextItemModel, Scored
from attnrec_dist.models.experts import EXPERTS, SEQUENCE, ExpertConfig, QueryChunk, SilentExpert
from attnrec_dist.models.experts.base import AGES, AGOS, DAY, NOTHING, PACE, Expert, HistoryAttention, lacks_counts, wide
from attnrec_dist.models.experts.scoring import Answer, Opinion, Rise, Softmax
from attnrec_dist.models.layers.embedding import month, weekday
from attnrec_dist.models.layers.initial import reset_parameters
from attnrec_dist.models.sasrec import SASRec, SASRecConfig
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.packed import Layout, pool_baskets
from attnrec_dist.ops.trend import Trend

CHUNK_ELEMENTS = 2**23  # of [queries, history, width] held at once
RULE_NOTHING_OUT = (SEQUENCE, "trend")  # experts that give every item some probability


class MixtureConfig(ModelConfig):
    name: Literal["mixture"] = "mixture"
    body: SASRecConfig = Field(SASRecConfig(), description="the sequence model that reads the history")
    experts: list[str] = Field([SEQUENCE, *EXPERTS], min_length=1, description=f"which of {SEQUENCE}, {', '.join(EXPERTS)}")
    half_lives: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (3.0, 14.0, 60.0), min_length=1, description="trend: days in which popularity fades to half; mixed"
    )
    rise: float = Field(
        0.0, ge=0, description="in ranking: power by which items that sell better of late than for long are preferred; not learnt"
    )
    discount: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="in ranking: expert -> factor on its weight, for one that knows its training baskets by heart; not learnt"
    )
    weekday: bool = Field(False, description="whether the experts' weights know the query's weekday, beside its month")
    expert_dropout: float = Field(0.0, ge=0, lt=1, description="share of (query, expert) pairs left out in training")

    @model_validator(mode="after")
    def _rise_needs_two(self) -> MixtureConfig:
        if self.rise and len(self.half_lives) < 2:
            raise ValueError("rise compares a short half-life with the longest; give two half_lives at least, or rise: 0")
        return self

    @field_validator("discount")
    @classmethod
    def _discounts_experts(cls, discount: dict[str, float]) -> dict[str, float]:
        """One that is left out may keep its discount."""
        unknown = [name for name in discount if name not in (SEQUENCE, *EXPERTS)]
        if unknown:
            raise ValueError(f"there is no expert {', '.join(unknown)}; known: {SEQUENCE}, {', '.join(EXPERTS)}")
        return discount

    @field_validator("experts")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in (SEQUENCE, *EXPERTS)]
        if unknown:
            raise ValueError(f"there is no expert {', '.join(unknown)}; known: {SEQUENCE}, {', '.join(EXPERTS)}")
        if not set(names) & set(RULE_NOTHING_OUT):
            raise ValueError(f"one of {' and '.join(RULE_NOTHING_OUT)} is needed: the others rule items out altogether")
        return list(dict.fromkeys(names))

    @property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(self.experts)

    @property
    def needs(self) -> Needs:
        names = dict.fromkeys(need for name in self.experts if name != SEQUENCE for need in EXPERTS[name].needs)
        return Needs(tuple(names), self.half_lives)

    def lacking(self, spec: DataSpec) -> dict[str, str]:
        lacks = {name: EXPERTS[name].lacks(spec) for name in self.experts if name != SEQUENCE}
        return {name: why for name, why in lacks.items() if why}


class Mixture(NextItemModel):
    Config = MixtureConfig
    silent: Tensor  # [K] bool: without weight

    def __init__(self, config: MixtureConfig, spec: DataSpec):
        super().__init__()
        if spec.empty_history:
            raise ConfigError("data.empty_history: the mixture's experts count what a history holds; leave it out")
        self.config = config
        lacking = config.lacking(spec)
        self.open_minded = [name in RULE_NOTHING_OUT and name not in lacking for name in config.experts]
        if not any(self.open_minded):
            raise DataError(
                f"model.experts: {lacking['trend']}, and the other experts rule items out altogether; "
                f"type --model.experts '[{', '.join([SEQUENCE, *config.experts])}]'"
            )
        self.register_buffer("silent", torch.tensor([name in lacking for name in config.experts]), persistent=False)
        self.body = SASRec(config.body, spec)
        self.trend = trend_of(spec, config.half_lives)
        shape = ExpertConfig(config.body.width, config.half_lives, self.trend)
        of = {name: SilentExpert if name in lacking else EXPERTS[name] for name in config.experts if name != SEQUENCE}
        self.others = nn.ModuleDict({name: expert(shape, spec) for name, expert in of.items()})
        self.key = nn.Linear(config.body.width, len(config.experts), bias=False)  # a key an expert
        self.prior = nn.Parameter(torch.zeros(len(config.experts)))
        self.season = nn.Embedding(12, len(config.experts))
        self.weekday = nn.Embedding(7, len(config.experts)) if config.weekday else None
        reset_parameters(self)
        for calendar in filter(None, (self.season, self.weekday)):
            nn.init.zeros_(calendar.weight)
        nn.init.zeros_(self.key.weight)
        for part in self.modules():
            if isinstance(part, HistoryAttention):
                part.reset_parameters()

    @property
    def table(self) -> ItemTable:  # type: ignore[override]  # of the body, whose it stays in a checkpoint
        return self.body.table

    def forward(self, batch: SequenceBatch, explain: bool = False) -> Output:
        """Hidden state after each token [T, D], and what the experts beside the softmax make of each target."""
        layout = Layout.of(batch)
        tokens = self.body.encode(batch, layout)
        hidden = self.body.norm(pool_baskets(tokens, layout))
        alpha = self.log_alpha(hidden[batch.queries], batch.query_times)  # [P, K]
        of_target = alpha[batch.target_query]  # [M, K]
        log_p = self._others_log_p(batch, layout, hidden, tokens)
        rest = [of_target[:, place] + log_p[name] for place, name in enumerate(self.config.experts) if name in log_p]
        log_rest = torch.stack(rest).logsumexp(0) if rest else torch.full_like(of_target[:, 0], -torch.inf)
        if SEQUENCE in self.config.experts:
            log_share = of_target[:, self.config.experts.index(SEQUENCE)]
        else:
            log_share = torch.full_like(log_rest, -torch.inf)
        return Output(hidden, beside=(log_share, log_rest), explanation={"alpha": alpha} if explain else {})

    def log_alpha(self, state: Tensor, times: Tensor) -> Tensor:
        """Log weights of the experts, [P, K]."""
        scores = wide(self.key(state)) + PACE * (self.season(month(times)) + self.prior)
        if self.weekday is not None:
            scores = scores + PACE * self.weekday(weekday(times))
        if self.training and self.config.expert_dropout:
            dropped = torch.rand_like(scores) < self.config.expert_dropout
            kept = self.open_minded  # one of them stays: p > 0 for every item
            dropped[:, kept] &= ~dropped[:, kept].all(-1, keepdim=True)
            scores = scores.masked_fill(dropped, NOTHING)
        return scores.masked_fill(self.silent, NOTHING).log_softmax(-1)

    def _others_log_p(self, batch: SequenceBatch, layout: Layout, hidden: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Log p of each target under each expert beside the softmax, [M] each."""
        if not self.others:
            return {}

        def of_chunk(queries: tuple[int, int], targets: tuple[int, int]) -> Tensor:
            chunk = query_chunk(batch, layout, hidden, tokens, queries, targets)  # made in here, so that it does not outlive this
            return torch.stack([expert.target_log_p(chunk) for expert in self.others.values()])  # type: ignore[operator]

        spans = chunk_spans(batch, CHUNK_ELEMENTS // (layout.max_length * hidden.shape[-1]))
        if len(spans) == 1 or not torch.is_grad_enabled():
            parts = [of_chunk(*span) for span in spans]
        else:  # the backward pass makes each chunk anew
            parts = [checkpoint(of_chunk, *span, use_reentrant=False, preserve_rng_state=False) for span in spans]
        return dict(zip(self.others, torch.cat(parts, 1)))

    @torch.no_grad()
    def answer(self, batch: SequenceBatch) -> Answer:
        """What the experts say of the whole catalogue after each query."""
        layout = Layout.of(batch)
        tokens = self.body.encode(batch, layout)
        hidden = self.body.norm(pool_baskets(tokens, layout))
        state = hidden[batch.queries]
        chunk = query_chunk(batch, layout, hidden, tokens, (0, len(batch.queries)), (0, 0))
        opinions: list[Opinion] = [
            Softmax(state, self.table) if name == SEQUENCE else self._expert(name).opinion(chunk) for name in self.config.experts
        ]
        rising = [name == SEQUENCE or self._expert(name).of_the_unknown for name in self.config.experts]
        rise = None
        if self.config.rise and self.trend is not None:
            rise = Rise(self.config.rise, self.trend, self.config.half_lives, batch.query_times)
        return Answer(opinions, self._ranking_alpha(state, batch.query_times), rising, rise, self.table.num_items)

    def _ranking_alpha(self, state: Tensor, times: Tensor) -> Tensor:
        """The experts' weights with the discounts, [P, K]; they still sum to 1."""
        alpha = self.log_alpha(state, times).exp()
        factors = [self.config.discount.get(name, 1.0) for name in self.config.experts]
        if set(factors) == {1.0}:
            return alpha
        alpha = alpha * alpha.new_tensor(factors)
        return alpha / alpha.sum(-1, keepdim=True)

    def scored(self, batch: SequenceBatch, only_ends: bool = False) -> Scored:
        """The scores are p of every item after each query, float64 [P, V]; with `rise`, up to a constant for each query."""
        answer = self.answer(batch)
        return Scored(answer.p(), self.config.expert_names, lambda items: answer.shares(items.to(self.silent.device)))

    def _expert(self, name: str) -> Expert:
        return self.others[name]  # type: ignore[return-value]


def trend_of(spec: DataSpec, half_lives: tuple[float, ...]) -> Trend | None:
    """Faded popularity, where the data set keeps daily counts."""
    if lacks_counts(spec):
        return None
    daily = spec.statistics.daily()
    return Trend(daily.offsets, daily.days, daily.counts, half_lives)


def chunk_spans(batch: SequenceBatch, size: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The batch's queries, at most `size` (one at least) at a time: (first, stop) of the queries and of their targets."""
    bounds = [*range(0, max(1, len(batch.queries)), max(1, size)), len(batch.queries)]
    edges = torch.searchsorted(batch.target_query, torch.tensor(bounds, device=batch.target_query.device)).tolist()
    return list(zip(itertools.pairwise(bounds), itertools.pairwise(edges)))


def query_chunk(
    batch: SequenceBatch, layout: Layout, hidden: Tensor, tokens: Tensor, queries: tuple[int, int], targets: tuple[int, int]
) -> QueryChunk:
    """Queries first to stop with their histories; the evidence of their targets counted anew within the chunk."""
    query = batch.queries[queries[0] : queries[1]]  # [c]
    times = batch.query_times[queries[0] : queries[1]]
    start = layout.offsets.long()[layout.rows[query]]  # [c] first token of the row
    place = torch.arange(layout.max_length, device=query.device)
    token = start[:, None] + place  # [c, S]
    seen = token <= query[:, None]
    token = torch.minimum(token, query[:, None])
    days = ((times[:, None] - batch.times[token]).clamp(min=0) / DAY + 1).log2()
    return QueryChunk(
        state=hidden[query],
        keys=tokens[token],
        items=batch.items[token],
        seen=seen,
        age=(2 * days).long().clamp(0, AGES - 1),
        ago=(batch.baskets[query][:, None] - batch.baskets[token]).clamp(0, AGOS - 1),
        times=times,
        target_query=batch.target_query[targets[0] : targets[1]] - queries[0],
        evidence=_of_chunk(batch, start, queries, targets),
    )


def _of_chunk(batch: SequenceBatch, start: Tensor, queries: tuple[int, int], targets: tuple[int, int]) -> dict[str, Tensor]:
    evidence = {}
    for name, values in batch.evidence.items():
        kind, _, column = name.partition(".")
        if not column:
            evidence[name] = values[targets[0] : targets[1]]  # one entry a target
            continue
        of_target = batch.evidence[f"{kind}.target"]
        first, stop = torch.searchsorted(of_target, torch.tensor(targets, device=of_target.device)).tolist()
        evidence[name] = values[first:stop]
        if column == "target":
            evidence[name] = evidence[name] - targets[0]
        elif column == "token":  # a place in the history of the target's query
            evidence[name] = evidence[name] - start[batch.target_query[of_target[first:stop]] - queries[0]]
    return evidence
