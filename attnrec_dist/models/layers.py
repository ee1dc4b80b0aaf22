"""Parts that models share. Everything here works on T packed tokens; only attention knows about rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnrec_dist.batch import BEGIN, DataSpec, SequenceBatch
from attnrec_dist.errors import ConfigError, DataError
from attnrec_dist.ops.attention import attention, attention_at_ends
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.packed import Layout

DAY, YEAR = 86_400, 365.2425  # seconds; days
GAPS = 24  # buckets of days between baskets
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class TokenEmbedding(nn.Module):
    """Item + position + event type (+ time), each learned. The tokens of a basket share a position, its place in the row.

    BEGIN has a vector of its own, which is not in the table: it is never recommended.
    """

    def __init__(self, spec: DataSpec, width: int, dropout: float, time: bool = False):
        super().__init__()
        self.positions = nn.Embedding(spec.max_length, width)
        self.events = nn.Embedding(len(spec.event_types), width) if len(spec.event_types) > 1 else None
        self.begin = nn.Embedding(1, width) if spec.empty_history else None
        self.time = TimeEmbedding(width) if time else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: SequenceBatch, table: ItemTable) -> Tensor:
        """[T, D]. Places beyond the table share its last position. Raises DataError when event types are missing."""
        x = self._items(batch.items, table) + self.positions(batch.baskets.clamp(max=self.positions.num_embeddings - 1))
        if self.events is not None:
            if "event" not in batch.events:
                raise DataError("the model embeds event types but the batch has none; prepare the data with columns.event")
            x = x + self.events(batch.events["event"])
        if self.time is not None:
            x = x + self.time(batch)
        return self.dropout(x)

    def _items(self, items: Tensor, table: ItemTable) -> Tensor:
        if self.begin is None:
            return table(items)
        return torch.where((items == BEGIN)[:, None], self.begin.weight, table(items.clamp(min=0)))


class TimeEmbedding(nn.Module):
    """When a token was: days since the basket before it (half-octaves), weekday, month (UTC), each learned."""

    def __init__(self, width: int):
        super().__init__()
        self.gaps = nn.Embedding(GAPS, width)
        self.weekdays = nn.Embedding(7, width)
        self.months = nn.Embedding(12, width)

    def forward(self, batch: SequenceBatch) -> Tensor:
        """[T, D]"""
        days = (batch.times - basket_before(batch)).clamp(min=0) / DAY
        gap = (2 * (days + 1).log2()).long().clamp(max=GAPS - 1)
        return self.gaps(gap) + self.weekdays(weekday(batch.times)) + self.months(month(batch.times))


def basket_before(batch: SequenceBatch) -> Tensor:
    """The time of the basket before each token's own, int64 [T]; of a row's first basket its own time."""
    token = torch.arange(len(batch.times), device=batch.times.device)
    begins = torch.ones_like(token, dtype=torch.bool)  # a basket
    begins[1:] = batch.baskets[1:] != batch.baskets[:-1]
    begins[batch.offsets[:-1].long()] = True
    first = torch.where(begins, token, 0).cummax(0).values  # token of the basket
    row_start = torch.zeros_like(begins)
    row_start[batch.offsets[:-1].long()] = True
    return batch.times[torch.where(row_start[first], first, first - 1)]


def weekday(times: Tensor) -> Tensor:
    """0 for Monday, UTC; of unix seconds."""
    return (times.div(DAY, rounding_mode="floor") + 3) % 7  # 1970 began on a Thursday


def month(times: Tensor) -> Tensor:
    """Twelfths of a year, 0 to 11, UTC; of unix seconds."""
    return ((times.double() / DAY % YEAR) / (YEAR / 12)).long().clamp(0, 11)


@dataclass(frozen=True)
class BlockShape:
    """What a block looks like inside."""

    width: int
    heads: int
    feed_forward: int  # inner width as a multiple of the width
    dropout: float  # on what each half adds to the residual stream
    attention_dropout: float
    norm: Literal["pre", "post"]
    activation: Literal["relu", "gelu"]


class Block(nn.Module):
    """Self-attention, then a pointwise feed-forward network, each with a residual connection and a layer norm."""

    recomputed = False  # in the backward pass: engine/recompute.py
    compiled = False  # its second half, in training: engine/compiled.py

    def __init__(self, shape: BlockShape):
        super().__init__()
        if shape.width % shape.heads:
            raise ConfigError(
                f"model.width {shape.width} is not divisible by model.heads {shape.heads}; "
                f"try --model.width {-(-shape.width // shape.heads) * shape.heads}"
            )
        self.shape = shape
        self.norm_attention = nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.norm_feed_forward = nn.LayerNorm(shape.width)
        self.widen = nn.Linear(shape.width, shape.feed_forward * shape.width)
        self.narrow = nn.Linear(shape.feed_forward * shape.width, shape.width)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """[T, D] -> [T, D]; with `at_ends` as last argument [B, D], at the rows' last tokens alone: for evaluation."""
        if self.recomputed and self.training:
            again: Tensor = checkpoint(self.computed, x, *rest, use_reentrant=False)
            return again
        return self.computed(x, *rest)

    def computed(self, x: Tensor, layout: Layout, at_ends: bool = False) -> Tensor:
        attend = self._attend_at_ends if at_ends else self._attend
        mine = x.index_select(0, layout.ends) if at_ends else x
        if self.shape.norm == "pre":
            return self.transformed(mine + attend(self.norm_attention(x), layout))
        return self.transformed(self.norm_attention(mine + attend(x, layout)))

    def transformed(self, x: Tensor) -> Tensor:
        """The second half, which looks at each token alone, [T, D] -> [T, D]: one graph for the blocks of all models."""
        half = compiled_half() if self.compiled and self.training else Block._transformed
        found: Tensor = half(self, x)
        return found

    def _transformed(self, x: Tensor) -> Tensor:
        if self.shape.norm == "pre":
            return x + self._feed_forward(self.norm_feed_forward(x))
        return self.norm_feed_forward(x + self._feed_forward(x))

    def _attend(self, x: Tensor, layout: Layout) -> Tensor:
        q, k, v = (
            self.qkv(x).view(len(x), 3, self.shape.heads, self.shape.width // self.shape.heads).unbind(1)
        )  # each [T, H, D/H]
        dropout = self.shape.attention_dropout if self.training else 0.0
        return self.dropout(self.out(attention(q, k, v, layout, dropout).flatten(1)))

    def _attend_at_ends(self, x: Tensor, layout: Layout) -> Tensor:
        """[T, D] -> [B, D]: of all tokens only keys and values are needed."""
        sizes = [self.shape.width, 2 * self.shape.width]
        (weight_q, weight_kv), (bias_q, bias_kv) = self.qkv.weight.split(sizes), self.qkv.bias.split(sizes)
        heads = (self.shape.heads, self.shape.width // self.shape.heads)
        q = F.linear(x.index_select(0, layout.ends), weight_q, bias_q).view(-1, *heads)  # [B, H, D/H]
        k, v = F.linear(x, weight_kv, bias_kv).view(-1, 2, *heads).unbind(1)  # each [T, H, D/H]
        return self.out(attention_at_ends(q, k, v, layout).flatten(1))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.narrow(ACTIVATIONS[self.shape.activation](self.widen(x))))


@cache
def compiled_half() -> Callable[[Block, Tensor], Tensor]:
    """A function of the block, not a method kept by it: a copy of a block shall use its own weights. Sizes are symbols."""
    return torch.compile(Block._transformed, dynamic=True)


def reset_parameters(module: nn.Module) -> None:
    """Initial values of every part of a model, drawn from torch's default generator in the order of the parts.

    part                          weight                        bias
    ItemTable                     normal, std 0.02              -
    nn.Embedding                  normal, std 0.02              -
    nn.Linear                     normal, std 0.02              0
    nn.LayerNorm                  1                             0
    anything else                 its own reset_parameters      its own
    """
    for part in module.modules():
        if isinstance(part, ItemTable | nn.LayerNorm):
            part.reset_parameters()
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
