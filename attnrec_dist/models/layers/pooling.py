"""A history as one vector, for the example that it belongs to. B examples, T tokens of all histories, D width: see batch.py."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, RankingBatch
from attnrec_dist.errors import ConfigError
from attnrec_dist.ops.packed import Layout
from attnrec_dist.ops.segments import row_means, row_softmax, row_sums

AGES = 64  # half-octaves of seconds between a token and the example: the last begins after a century
Pooling = Literal["mean", "attention", "gru", "lstm"]


def history_layout(batch: RankingBatch) -> Layout:
    return Layout(batch.offsets, None, batch.max_length, len(batch.items))


def check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ConfigError(
            f"model.width {width} is not divisible by model.heads {heads}; try --model.width {-(-width // heads) * heads}"
        )


class HistoryTokens(nn.Module):
    """Item + event type + age of the token at the example's moment, each learned."""

    def __init__(self, spec: DataSpec, width: int, dropout: float):
        super().__init__()
        self.events = nn.Embedding(len(spec.event_types), width) if len(spec.event_types) > 1 else None
        self.ages = nn.Embedding(AGES, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, items: Tensor, batch: RankingBatch, layout: Layout) -> Tensor:
        """Vectors of the tokens' items, [T, D] -> [T, D]"""
        seconds = (batch.times.index_select(0, layout.rows) - batch.history_times).clamp(min=0)
        age = (2 * (seconds.double() + 1).log2()).long().clamp(max=AGES - 1)
        x = items + self.ages(age)
        if self.events is not None:
            x = x + self.events(batch.events["event"])
        tokens: Tensor = self.dropout(x)
        return tokens


class TargetAttention(nn.Module):
    """Multi-head attention with one query a row, the candidate, over the row's history; packed, so no padding is computed."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, candidates: Tensor, tokens: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """[B, D], [T, D] -> what the candidate reads in its history [B, D], the weights' mean over the heads [T]."""
        each = tokens.shape[1] // self.heads  # written out: of no tokens it cannot be inferred
        q = self.query(candidates).index_select(0, layout.rows).unflatten(1, (self.heads, each))  # [T, H, D/H]
        k, v = self.key_value(tokens).view(len(tokens), 2, self.heads, each).unbind(1)
        weights = row_softmax((q * k).sum(-1) * k.shape[-1] ** -0.5, layout)  # [T, H]
        read = row_sums(weights[..., None] * v, layout).flatten(1)  # [B, D]
        return self.out(read.to(candidates.dtype)), weights.mean(1)


class HistoryPool(nn.Module):
    """mean, attention (the candidate asks), or the last state of a GRU or LSTM; an empty history has a learned vector."""

    def __init__(self, kind: Pooling, width: int, heads: int):
        super().__init__()
        self.kind = kind
        self.empty = nn.Parameter(torch.zeros(width))
        self.attention = TargetAttention(width, heads) if kind == "attention" else None
        recurrent = {"gru": nn.GRU, "lstm": nn.LSTM}.get(kind)
        self.recurrent = recurrent(width, width, batch_first=True) if recurrent else None

    def forward(self, candidates: Tensor, tokens: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
        """[B, D], [T, D] -> [B, D], and what weight each token had, [T], where that can be told."""
        weights: Tensor | None = None
        if self.attention is not None:
            pooled, weights = self.attention(candidates, tokens, layout)
        elif self.recurrent is not None:
            pooled = self._last_state(tokens, layout)
        else:
            pooled = row_means(tokens, layout)
            weights = 1 / layout.lengths.clamp(min=1).to(pooled.dtype).index_select(0, layout.rows)
        is_empty = (layout.lengths == 0)[:, None]
        return torch.where(is_empty, self.empty, pooled.to(candidates.dtype)), weights

    def _last_state(self, tokens: Tensor, layout: Layout) -> Tensor:
        """[B, D]; padding comes last, so no state that is read has seen it."""
        padded = tokens.new_zeros(layout.num_rows, max(1, layout.max_length), tokens.shape[1])  # [B, L, D]
        padded = padded.index_put((layout.rows, layout.places), tokens)
        with torch.autocast("cpu", enabled=False):  # CPUs without AVX-512 have no LSTM in bf16, and torch fails on them
            states, _ = self.recurrent(padded)  # type: ignore[misc]
        last = (layout.lengths - 1).clamp(min=0)
        chosen: Tensor = states[torch.arange(layout.num_rows, device=last.device), last]
        return chosen
