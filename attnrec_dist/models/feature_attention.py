"""Attention over the fields of an example: which of a customer's behaviour features matter for this item now.

Each of K fields is a vector x_k (declared features, the candidate item, the moment, the history). Multi-head self-attention over
the fields lets each know of the others and gives one number e_k a field, and then

    alpha = softmax(e) over the K fields, sum 1
    logit of a task = M(sum_k alpha_k x_k)          combine: inputs
    logit of a task = M(sum_k alpha_k h_k)          combine: hidden
    logit of a task = sum_k alpha_k M(x_k)          combine: outputs

with M a small network for each task. Outputs adds up functions of single fields, which only alpha lets know of each other; the
other two let M see all fields together, as a layer of D units over them. With `blocks` a transformer over the fields comes first,
h = blocks(x), and e is asked of h; without, h = x. `context` fields take part in e, but have no share of the sum. `attention:
uniform` is the ablation: alpha_k = 1 / K, everything else as it is. Shapes: x and h [B, K, D], e and alpha [B, K], logits [B].
The self-attention over fields is AutoInt's (Song et al. 2019, section 4.4). Letters: see batch.py.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, RankingBatch, RankingOutput
from attnrec_dist.errors import ConfigError
from attnrec_dist.models.base import ModelConfig, RankingModel
from attnrec_dist.models.layers.field_vectors import FieldVectors
from attnrec_dist.models.layers.fields import (
    CategoricalFields,
    KnownItems,
    Moment,
    NumericFields,
    Output,
    examples_of,
    field_vectors,
    prior_logits,
    reset_ranking_parameters,
)
from attnrec_dist.models.layers.pooling import HistoryPool, HistoryTokens, Pooling, check_heads, history_layout

CANDIDATE, MOMENT, HISTORY = "candidate", "moment", "history"


class FeatureAttentionConfig(ModelConfig):
    name: Literal["feature_attention"] = "feature_attention"
    width: int = Field(32, ge=1, description="width D of every field's vector; a multiple of heads")
    heads: int = Field(2, ge=1, description="heads of the self-attention over the fields")
    blocks: int = Field(0, ge=0, description="transformer blocks over the fields before the self-attention that gives e")
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

    @property
    def reads_history(self) -> bool:
        return self.history != "none"


class FeatureAttention(RankingModel):
    Config = FeatureAttentionConfig
    shared: Tensor

    def __init__(self, config: FeatureAttentionConfig, spec: DataSpec):
        super().__init__()
        self.config, examples = config, examples_of(spec, config.name)
        self.tasks = tuple(examples.tasks)
        self.fields = Fields(config, spec)
        self.field_names = tuple(name for name in self.fields.names if name not in config.context)  # of alpha's columns
        weighs = config.attention == "softmax"
        if config.context and not weighs:
            raise ConfigError("model.context steers alpha, which attention: uniform fixes; leave it out")
        if config.combine == "hidden" and not config.blocks:
            raise ConfigError(
                "model.combine: hidden adds up what blocks make of the fields; type --model.blocks 1 or more with it"
            )
        self.transformer = FieldTransformer(config) if config.blocks and (weighs or config.combine == "hidden") else None
        self.score = FieldScore(len(self.fields.names), config.width, config.heads) if weighs else None
        self.heads = nn.ModuleList(head(config) for _ in self.tasks)
        shared = [name in self.field_names for name in self.fields.names]
        self.register_buffer("shared", torch.tensor(shared), persistent=False)  # [K]
        reset_ranking_parameters(self)
        if self.score is not None:
            self.score.reset_own_parameters()
        self.bias = nn.Parameter(torch.tensor(prior_logits(examples)))

    def forward(self, batch: RankingBatch, explain: bool = False) -> RankingOutput:
        x, history_weights = self.fields(batch)
        h = x if self.transformer is None else FieldVectors(self.transformer(x.whole()))
        alpha = self._alpha(h)  # [B, K], 0 for the context's fields
        values = h if self.config.combine == "hidden" else x
        # K times the mean, a sum over fields as a layer forms it: with less AUC falls by .001 to .002 on the bundled log
        pooled = None if self.config.combine == "outputs" else values.summed(alpha * len(self.field_names))
        logits = {}
        for task, m, bias in zip(self.tasks, self.heads, self.bias):
            y = (alpha * m(x.whole()).squeeze(-1)).sum(-1) if pooled is None else m(pooled).squeeze(-1)
            logits[task] = y.to(torch.promote_types(y.dtype, torch.float32)) + bias
        if not explain:
            return RankingOutput(logits)
        explanation = {"fields": alpha[:, self.shared]}
        if history_weights is not None:
            explanation["history"] = history_weights
        return RankingOutput(logits, explanation)

    def _alpha(self, h: FieldVectors) -> Tensor:
        """[B, K], fp32 or float64"""
        if self.score is None:
            return self.shared.to(h.vectors.dtype).expand(len(h.vectors), -1) / len(self.field_names)
        e = self.score(h)
        if self.config.context:
            e = e.masked_fill(~self.shared, float("-inf"))
        return e.softmax(-1)


class Fields(nn.Module):
    """All fields of an example; `names` in their order, those of numbers last."""

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
        self.names = (*(name for name, is_there in builtin if is_there), *(each.name for each in categorical + numeric))
        self._check(self.names, config.context)

    @staticmethod
    def _check(made: tuple[str, ...], context: list[str]) -> None:
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

    def forward(self, batch: RankingBatch) -> tuple[FieldVectors, Tensor | None]:
        """The vectors, and the weights of the history's tokens, [T], where the pooling has some."""
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
        if self.categorical is not None:
            parts.append(self.categorical(batch))
        return field_vectors(parts, self.numeric, batch, self.dropout), weights


class FieldScore(nn.Module):
    """e: a layer of multi-head self-attention over the K fields, of which one number a field is asked.

        e_k = b_k + w . x_k + sum over heads, sum_j P_kj (r . x_j)        P = softmax over j of q_k . k_j / sqrt(D/H)

    That is b_k + w . (x_k + W_out read_k): the product of w, W_out and W_value is one vector r a head, so that values are numbers
    instead of vectors, and nothing of the width of D is read.
    """

    def __init__(self, num_fields: int, width: int, heads: int):
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.query_key = nn.Linear(width, 2 * width, bias=False)
        self.read = nn.Linear(width, heads + 1, bias=False)  # r of each head, w
        self.prior = nn.Parameter(torch.zeros(num_fields))  # b

    def reset_own_parameters(self) -> None:
        nn.init.zeros_(self.read.weight)  # alpha begins as 1 / K, where the ablation stays

    def forward(self, x: FieldVectors) -> Tensor:
        """[B, K, D] -> [B, K], fp32 or float64"""
        width = self.query_key.in_features
        made = x.projected(torch.cat([self.query_key.weight, self.read.weight])).transpose(0, 1)  # [B, K, 2 D + H + 1]
        q, k, r, own = made.split([width, width, self.heads, 1], dim=-1)
        q, k = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q, k))  # each [B, H, K, D/H]
        logits = q @ k.transpose(-1, -2) * k.shape[-1] ** -0.5
        p = logits.to(self.prior.dtype).softmax(-1)  # [B, H, K, K]
        read = p @ r.transpose(1, 2)[..., None].to(p.dtype)  # [B, H, K, 1]
        e: Tensor = self.prior + own.squeeze(-1) + read.squeeze(-1).sum(1)
        return e


class FieldTransformer(nn.Module):
    """Blocks over the fields, and a norm after the last."""

    def __init__(self, config: FeatureAttentionConfig):
        super().__init__()
        shape = (config.width, config.heads, config.feed_forward, config.dropout)
        self.blocks = nn.ModuleList(FieldBlock(*shape) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, K, D] -> [B, K, D]"""
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed


class FieldBlock(nn.Module):
    """Self-attention over the K fields of each example, all seeing all, then a feed-forward network; pre-norm, residual."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float):
        super().__init__()
        check_heads(width, heads)
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
