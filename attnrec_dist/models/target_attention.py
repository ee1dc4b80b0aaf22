"""Attention over the history with the candidate item as the query, then an MLP over what it read and all fields. Two kinds:

din          a local activation unit weighs each token h_j by the candidate c: w_j = unit([h_j, c, h_j - c, h_j * c]), u = sum_j
             w_j h_j; no softmax, so that the strength of an interest is not lost (Zhou et al. 2018, section 4.3)
transformer  the history reads itself in causal blocks, then the candidate asks it with multi-head attention (the idea of BST,
             Chen et al. 2019, with the candidate outside the sequence)

Packed: nothing is computed on padding. The activations are PReLU, not the paper's Dice, which would make the result of an
example depend on the others of its batch. Letters: see batch.py.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, RankingBatch, RankingOutput
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
from attnrec_dist.models.layers.pooling import HistoryTokens, TargetAttention, history_layout
from attnrec_dist.models.layers.transformer import Block, BlockShape
from attnrec_dist.ops.packed import Layout
from attnrec_dist.ops.segments import row_sums


class TargetAttentionConfig(ModelConfig):
    name: Literal["target_attention"] = "target_attention"
    kind: Literal["din", "transformer"] = Field("din", description="local activation unit, or a transformer over the history")
    width: int = Field(32, ge=1, description="width D of items, fields and hidden states; a multiple of heads")
    unit_width: int = Field(36, ge=1, description="din: hidden width of the activation unit")
    heads: int = Field(2, ge=1, description="transformer: attention heads")
    blocks: int = Field(1, ge=1, description="transformer: blocks over the history")
    layers: list[int] = Field([128, 64], min_length=1, description="hidden widths of the MLP")
    moment: bool = Field(True, description="hour and weekday as a field")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of vectors' entries set to zero in training")
    unseen: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="share of items and categorical values shown as unseen in training, to learn what that means",
    )


class TargetAttentionModel(RankingModel):
    Config = TargetAttentionConfig

    def __init__(self, config: TargetAttentionConfig, spec: DataSpec):
        super().__init__()
        examples = examples_of(spec, config.name)
        self.tasks = tuple(examples.tasks)
        self.items = KnownItems(spec.num_items, config.width, config.unseen)
        self.tokens = HistoryTokens(spec, config.width, config.dropout)
        self.reader = ActivationUnit(config) if config.kind == "din" else HistoryTransformer(config)
        categorical = [each for each in examples.fields if each.kind == "categorical"]
        numeric = [each for each in examples.fields if each.kind == "numeric"]
        self.categorical = CategoricalFields(categorical, config.width, config.unseen) if categorical else None
        self.numeric = NumericFields(numeric, config.width) if numeric else None
        self.moment = Moment(config.width) if config.moment else None
        inputs = (3 + config.moment + len(examples.fields)) * config.width  # candidate, what it read, their product, fields
        self.dropout = nn.Dropout(config.dropout)
        self.body = Mlp(inputs, config.layers, config.dropout)
        self.heads = nn.ModuleList(Output(config.layers[-1]) for _ in self.tasks)
        reset_ranking_parameters(self)
        self.bias = nn.Parameter(torch.tensor(prior_logits(examples)))

    def forward(self, batch: RankingBatch, explain: bool = False) -> RankingOutput:
        layout = history_layout(batch)
        candidates = self.items(batch.candidates)  # [B, D]
        tokens = self.tokens(self.items(batch.items), batch, layout)  # [T, D]
        read, weights = self.reader(candidates, tokens, layout)  # [B, D], [T]
        parts = [torch.stack([candidates, read, candidates * read], dim=1)]
        if self.moment is not None:
            parts.append(self.moment(batch.times)[:, None])
        if self.categorical is not None:
            parts.append(self.categorical(batch))
        x = self.body(field_vectors(parts, self.numeric, batch, self.dropout))
        logits = {}
        for task, head, bias in zip(self.tasks, self.heads, self.bias):
            y = head(x).squeeze(-1)
            logits[task] = y.to(torch.promote_types(y.dtype, torch.float32)) + bias
        return RankingOutput(logits, {"history": shares(weights, layout)} if explain else {})


class ActivationUnit(nn.Module):
    """DIN's: how much each token of a history matters for this candidate."""

    def __init__(self, config: TargetAttentionConfig):
        super().__init__()
        self.unit = nn.Sequential(nn.Linear(4 * config.width, config.unit_width), PReLU(), nn.Linear(config.unit_width, 1))

    def forward(self, candidates: Tensor, tokens: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """[B, D], [T, D] -> sum of the weighted tokens [B, D], weights [T] of any size and sign."""
        first, bend, last = cast("tuple[nn.Linear, PReLU, nn.Linear]", tuple(self.unit))
        # W [h, c, h - c, h c] = (W1 + W3) h + (W2 - W3) c + W4 (h c): the candidate's share once an example, not once a token
        of_token, of_candidate, of_difference, of_product = first.weight.chunk(4, dim=1)  # each [U, D]
        c = torch.cat([candidates, F.linear(candidates, of_candidate - of_difference, first.bias)], dim=1)  # [B, D + U]
        c, share = c.index_select(0, layout.rows).split([candidates.shape[1], len(first.weight)], dim=1)  # [T, D], [T, U]
        pair = torch.cat([tokens, tokens * c], dim=1)
        hidden = share + F.linear(pair, torch.cat([of_token + of_difference, of_product], dim=1))  # [T, U]
        weights = last(bend(hidden)).squeeze(-1)
        return row_sums(weights[:, None] * tokens, layout).to(candidates.dtype), weights


class HistoryTransformer(nn.Module):
    """Causal self-attention over each history, then the candidate's question to it."""

    def __init__(self, config: TargetAttentionConfig):
        super().__init__()
        shape = BlockShape(config.width, config.heads, 2, config.dropout, 0.0, "pre", "gelu")
        self.blocks = nn.ModuleList(Block(shape) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.attention = TargetAttention(config.width, config.heads)

    def forward(self, candidates: Tensor, tokens: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """[B, D], [T, D] -> what the candidate reads [B, D], the weights' mean over the heads [T]."""
        for block in self.blocks:
            tokens = block(tokens, layout)
        read, weights = self.attention(candidates, self.norm(tokens), layout)
        return read, weights


class PReLU(nn.Module):
    """x above 0, a x below, a learned from .25: torch.nn.PReLU, whose backward pass takes four times as long on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.25]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x.relu(), x, self.weight.to(x.dtype))


class Mlp(nn.Module):
    """Over the vectors of all fields laid side by side."""

    def __init__(self, inputs: int, layers: list[int], dropout: float):
        super().__init__()
        self.first = nn.Linear(inputs, layers[0])
        rest: list[nn.Module] = []
        for before, after in pairwise(layers):
            rest += [nn.Linear(before, after), PReLU(), nn.Dropout(dropout)]
        self.rest = nn.Sequential(PReLU(), nn.Dropout(dropout), *rest)

    def forward(self, fields: FieldVectors) -> Tensor:
        """[B, K, D] -> [B, layers[-1]]"""
        result: Tensor = self.rest(fields.joined(self.first.weight, self.first.bias))
        return result


def shares(weights: Tensor, layout: Layout) -> Tensor:
    """Each weight over the sum of its row's absolute weights, [T]: DIN's may be negative, which says the token speaks against."""
    total = row_sums(weights.abs(), layout).index_select(0, layout.rows)
    return weights / total.clamp(min=1e-12)
