"""Attention over the fields of an example: which of a customer's behaviour features matter for this item now.

Each of K fields is a vector x_k (declared features, the candidate item, the moment, the history). Multi-head self-attention over
the fields, h = blocks(x), lets each know of the others, and then

    e_k = w . norm(h_k)        alpha = softmax(e) over the K fields, sum 1
    logit of a task = M(sum_k alpha_k x_k)          combine: inputs
    logit of a task = M(sum_k alpha_k h_k)          combine: hidden
    logit of a task = sum_k alpha_k M(x_k)          combine: outputs

with M a small network for each task. Outputs adds up functions of single fields, which only alpha lets know of each other; the
other two let M see all fields together, as a layer of D units over them. `context` fields take part in h and so in e, but have no
share of the sum. `attention: uniform` is the ablation: alpha_k = 1 / K, everything else as it is. Shapes: x and h [B, K, D], e
and alpha [B, K], logits [B]. The self-attention over fields is AutoInt's (Song et al. 2019, section 4.4). Letters: see batch.py.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, RankingBatch, RankingOutput, TaskName
from attnrec_dist.errors import ConfigError
from attnrec_dist.models.fields import (
    CategoricalFields,
    KnownItems,
    Moment,
    NumericFields,
    Output,
    examples_of,
    prior_logits,
    reset_ranking_parameters,
)
from attnrec_dist.models.pooling import HistoryPool, HistoryTokens, Pooling, history_layout
from attnrec_dist.settings import Section

CANDIDATE, MOMENT, HISTORY = "candidate", "moment", "history"


class FeatureAttentionConfig(Section):
    name: Literal["feature_attention"] = "feature_attention"
    width: int = Field(32, ge=1, description="width D of every field's vector; a multiple of heads")
    heads: int = Field(2, ge=1, description="heads of the self-attention over the fields")
    blocks: int = Field(1, ge=1, description="blocks of self-attention over the fields, before e")
    feed_forward: int = Field(2, ge=1, description="inner width of a block's feed-forward network, as a multiple of the width")
    attention: Literal["softmax", "uniform"] = Field("softmax", description="alpha = softmax(e), or 1 / K for all: the ablation")
    combine: Literal["inputs", "hidden", "outputs"] = Field(
        "inputs", description="inputs: y = M(sum alpha_k x_k); hidden: y = M(sum alpha_k h_k); outputs: y = sum alpha_k M(x_k)"
    )
    head_width: int = Field(64, ge=0, description="hidden width of M; 0: M is linear")
    history: Pooling | Literal["none"] = Field(
        "attention", description="the history as one field: its mean, attention by the candidate, a recurrent network; or none"
    )
    candidate: bool = Field(True, description="the candidate item's own vector as a field; false: known by its features only")
    moment: bool = Field(True, description="hour and weekday as a field")
    context: list[str] = Field(
        [], description="fields that only steer alpha: features by name, candidate, moment or history; they have no share of y"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="share of vectors' entries set to zero in training")
    unseen: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="share of items and categorical values shown as unseen in training, to learn what that means",
    )


class FeatureAttention(nn.Module):
    Config = FeatureAttentionConfig
    task: TaskName = "ranking"

    def __init__(self, config: FeatureAttentionConfig, spec: DataSpec):
        super().__init__()
        self.config, examples = config, examples_of(spec, config.name)
        self.tasks = tuple(examples.tasks)
        self.fields = Fields(config, spec)
        self.field_names = self.fields.shared  # of alpha's columns
        self.num_shared = len(self.field_names)
        needs_h = config.attention == "softmax" or config.combine == "hidden"
        if config.context and not needs_h:
            raise ConfigError("model.context steers alpha, which attention: uniform fixes; leave it out")
        self.blocks = nn.ModuleList(
            FieldBlock(config.width, config.heads, config.feed_forward, config.dropout) for _ in range(config.blocks * needs_h)
        )
        self.norm = nn.LayerNorm(config.width) if config.attention == "softmax" else None
        self.score = nn.Linear(config.width, 1, bias=False) if config.attention == "softmax" else None
        self.heads = nn.ModuleList(head(config) for _ in self.tasks)
        reset_ranking_parameters(self)
        if self.score is not None:
            nn.init.zeros_(self.score.weight)  # alpha begins as 1 / K, where the ablation stays
        self.bias = nn.Parameter(torch.tensor(prior_logits(examples)))

    def forward(self, batch: RankingBatch, explain: bool = False) -> RankingOutput:
        x, history_weights = self.fields(batch)  # [B, K, D], the context's fields last
        h = x
        for block in self.blocks:
            h = block(h)
        x, h = x[:, : self.num_shared], h[:, : self.num_shared]
        if self.score is not None and self.norm is not None:
            e = self.score(self.norm(h)).squeeze(-1)
            alpha = e.to(torch.promote_types(e.dtype, torch.float32)).softmax(-1)  # [B, K]
        else:
            alpha = x.new_full(x.shape[:2], 1 / self.num_shared)
        logits = {}
        for task, m, bias in zip(self.tasks, self.heads, self.bias):
            if self.config.combine == "outputs":
                y = (alpha * m(x).squeeze(-1)).sum(-1)
            else:
                values = h if self.config.combine == "hidden" else x
                # K times the mean, a sum over fields as a layer forms it: with less AUC falls by .001 to .002 on the bundled log
                y = m(self.num_shared * (alpha[..., None] * values).sum(1)).squeeze(-1)
            logits[task] = y.to(torch.promote_types(y.dtype, torch.float32)) + bias
        if not explain:
            return RankingOutput(logits)
        explanation = {"fields": alpha}
        if history_weights is not None:
            explanation["history"] = history_weights
        return RankingOutput(logits, explanation)


class Fields(nn.Module):
    """All fields of an example, those that share the sum first: `shared` are their names, `names` those of all."""

    order: Tensor

    def __init__(self, config: FeatureAttentionConfig, spec: DataSpec):
        super().__init__()
        declared = examples_of(spec, config.name).fields
        categorical = [each for each in declared if each.kind == "categorical"]
        numeric = [each for each in declared if each.kind == "numeric"]
        asks = config.candidate or config.history != "none"
        self.items = KnownItems(spec.num_items, config.width, config.unseen) if asks else None
        self.categorical = CategoricalFields(categorical, config.width, config.unseen) if categorical else None
        self.numeric = NumericFields(numeric, config.width) if numeric else None
        self.moment = Moment(config.width) if config.moment else None
        self.tokens = self.pool = None
        if config.history != "none" and self.items is not None:
            self.tokens = HistoryTokens(spec, config.width, config.dropout)
            self.pool = HistoryPool(config.history, config.width, config.heads)
        self.candidate = config.candidate
        self.dropout = nn.Dropout(config.dropout)
        builtin = [(CANDIDATE, config.candidate), (MOMENT, config.moment), (HISTORY, config.history != "none")]
        made = [*(name for name, is_there in builtin if is_there), *(each.name for each in categorical + numeric)]
        self._check(made, config.context)
        order = sorted(range(len(made)), key=lambda place: made[place] in config.context)  # stable
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.names = tuple(made[place] for place in order)
        self.shared = self.names[: len(made) - len(set(config.context))]

    @staticmethod
    def _check(made: list[str], context: list[str]) -> None:
        twice = sorted({name for name in made if made.count(name) > 1})
        if twice:
            raise ConfigError(
                f"a feature is called {twice[0]}, as the built-in field is; rename it under `features` and prepare again"
            )
        unknown = [name for name in context if name not in made]
        if unknown:
            raise ConfigError(f"model.context: there is no field {unknown[0]!r}; known: {', '.join(made)}")
        if not set(made) - set(context):
            raise ConfigError("model.context names every field, so that nothing is left to predict from")

    def forward(self, batch: RankingBatch) -> tuple[Tensor, Tensor | None]:
        """[B, K, D], and the weights of the history's tokens, [T], where the pooling has some."""
        parts, weights = [], None
        candidates = None if self.items is None else self.items(batch.candidates)  # [B, D]
        if self.candidate:
            parts.append(candidates[:, None])  # type: ignore[index]
        if self.moment is not None:
            parts.append(self.moment(batch.times)[:, None])
        if self.tokens is not None and self.pool is not None:
            layout = history_layout(batch)
            tokens = self.tokens(self.items(batch.items), batch, layout)  # type: ignore[misc]
            pooled, weights = self.pool(candidates, tokens, layout)
            parts.append(pooled[:, None])
        parts += [part(batch) for part in (self.categorical, self.numeric) if part is not None]
        x = torch.cat(parts, dim=1).index_select(1, self.order)
        return self.dropout(x), weights


class FieldBlock(nn.Module):
    """Self-attention over the K fields of each example, all seeing all, then a feed-forward network; pre-norm, residual."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float):
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"model.width {width} is not divisible by model.heads {heads}; try --model.width {-(-width // heads) * heads}"
            )
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.widen = nn.Linear(width, feed_forward * width)
        self.narrow = nn.Linear(feed_forward * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, K, D] -> [B, K, D]"""
        parts = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))  # [B, K, 3, H, D/H]
        q, k, v = parts.transpose(1, 3).unbind(2)  # each [B, H, K, D/H]
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(read))
        inner = F.gelu(self.widen(self.norm_feed_forward(x)))
        result: Tensor = x + self.dropout(self.narrow(inner))
        return result


def head(config: FeatureAttentionConfig) -> nn.Module:
    """M: [..., D] -> [..., 1]. A sum of vectors is a layer's output that is still to be bent."""
    bend = [] if config.combine == "outputs" else [nn.GELU()]
    if not config.head_width:
        return nn.Sequential(*bend, Output(config.width))
    return nn.Sequential(*bend, nn.Linear(config.width, config.head_width), nn.GELU(), Output(config.head_width))
