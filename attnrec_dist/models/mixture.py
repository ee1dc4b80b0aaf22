"""Behaviour experts weighed by attention: p(i) = sum_k alpha_k p_k(i), alpha = softmax over the K experts, sum 1.

    sequence   softmax over the item table, from the body's hidden state       copy    the customer's own items, again
    trend      what everybody buys these days                                  graph   what goes with the customer's items

The weights come from the customer's state: each expert has a key, the state is the query. Everything stays in log space. The
softmax over the catalogue is left to the loss, in chunks; the other experts give log p of the targets alone, a chunk of
queries at a time, so no [targets x history] tensor outlives its chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnrec_dist.batch import DataSpec, Needs, Output, SequenceBatch
from attnrec_dist.errors import ConfigError
from attnrec_dist.models.experts import EXPERTS, SEQUENCE, ExpertConfig, QueryChunk
from attnrec_dist.models.experts.base import AGES, AGOS, DAY, NOTHING, PACE, HistoryAttention, Listed, wide
from attnrec_dist.models.layers import reset_parameters
from attnrec_dist.models.sasrec import SASRec, SASRecConfig
from attnrec_dist.ops.packed import Layout, pool_baskets
from attnrec_dist.ops.trend import Trend
from attnrec_dist.settings import Section

CHUNK_ELEMENTS = 2**23  # of [queries, history, width] held at once
MONTHS = 12
RULE_NOTHING_OUT = (SEQUENCE, "trend")  # experts that give every item some probability


class MixtureConfig(Section):
    name: Literal["mixture"] = "mixture"
    body: SASRecConfig = Field(SASRecConfig(), description="the sequence model that reads the history")
    experts: list[str] = Field([SEQUENCE, *EXPERTS], min_length=1, description=f"which of {SEQUENCE}, {', '.join(EXPERTS)}")
    half_lives: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (3.0, 14.0, 60.0), min_length=1, description="trend: days in which popularity fades to half; mixed"
    )
    expert_dropout: float = Field(0.0, ge=0, lt=1, description="share of (query, expert) pairs left out in training")

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
    def needs(self) -> Needs:
        """What the loader has to look up for these experts."""
        names = dict.fromkeys(need for name in self.experts if name != SEQUENCE for need in EXPERTS[name].needs)
        return Needs(tuple(names), self.half_lives)


class Mixture(nn.Module):
    Config = MixtureConfig

    def __init__(self, config: MixtureConfig, spec: DataSpec):
        super().__init__()
        self.config = config
        self.body = SASRec(config.body, spec)
        shape = ExpertConfig(config.body.width, config.half_lives, trend_of(spec, config.half_lives))
        self.others = nn.ModuleDict({name: EXPERTS[name](shape, spec) for name in config.experts if name != SEQUENCE})
        self.key = nn.Linear(config.body.width, len(config.experts), bias=False)  # a key an expert
        self.prior = nn.Parameter(torch.zeros(len(config.experts)))
        self.season = nn.Embedding(MONTHS, len(config.experts))
        reset_parameters(self)
        nn.init.zeros_(self.season.weight)
        nn.init.zeros_(self.key.weight)
        for part in self.modules():
            if isinstance(part, HistoryAttention):
                part.reset_parameters()

    @property
    def table(self) -> nn.Module:
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
        month = ((times.double() / DAY % 365.2425) / (365.2425 / MONTHS)).long().clamp(0, MONTHS - 1)
        scores = wide(self.key(state)) + PACE * (self.season(month) + self.prior)
        if self.training and self.config.expert_dropout:
            dropped = torch.rand_like(scores) < self.config.expert_dropout
            open_minded = [name in RULE_NOTHING_OUT for name in self.config.experts]  # one of them stays: p > 0 for every item
            dropped[:, open_minded] &= ~dropped[:, open_minded].all(-1, keepdim=True)
            scores = scores.masked_fill(dropped, NOTHING)
        return scores.log_softmax(-1)

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
    def opinions(self, batch: SequenceBatch) -> Iterator[Tensor | Listed]:
        """Log of alpha_k p_k, one expert after another in the order of `config.experts`: of every item, float64 [P, V], or of
        those that the expert does not rule out."""
        layout = Layout.of(batch)
        tokens = self.body.encode(batch, layout)
        hidden = self.body.norm(pool_baskets(tokens, layout))
        state = hidden[batch.queries]
        alpha = self.log_alpha(state, batch.query_times).double()
        chunk = query_chunk(batch, layout, hidden, tokens, (0, len(batch.queries)), (0, 0))
        for place, name in enumerate(self.config.experts):
            if name == SEQUENCE:
                log_p = self.body.table.logits(state).double().log_softmax(-1)
            else:
                log_p = self.others[name].all_log_p(chunk)  # type: ignore[operator]
            if isinstance(log_p, Listed):
                yield Listed(log_p.place, log_p.log_p.double() + alpha[log_p.query, place], log_p.num_items)
            else:
                yield log_p.double().add_(alpha[:, place, None])

    @torch.no_grad()
    def scores(self, batch: SequenceBatch) -> Tensor:
        """Log p of every item after each query, float64 [P, V]."""
        total, listed = None, []
        for opinion in self.opinions(batch):
            if isinstance(opinion, Listed):
                listed.append(opinion)
            else:
                total = opinion if total is None else torch.logaddexp(total, opinion, out=total)
        if total is None:
            raise ConfigError(f"model.experts: one of {' and '.join(RULE_NOTHING_OUT)} is needed")
        for each in listed:
            each.add_to(total)
        return total

    @torch.no_grad()
    def shares(self, batch: SequenceBatch, items: Tensor) -> Tensor:
        """What part of the probability of these items [P, k] each expert gave, [P, k, K]; sums to 1 over the experts."""
        opinions = self.opinions(batch)
        of_items = [each.gather(items) if isinstance(each, Listed) else each.gather(1, items) for each in opinions]
        return torch.stack(of_items, -1).softmax(-1)


def trend_of(spec: DataSpec, half_lives: tuple[float, ...]) -> Trend | None:
    """Faded popularity, where the data set keeps daily counts."""
    if spec.statistics is None:
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
