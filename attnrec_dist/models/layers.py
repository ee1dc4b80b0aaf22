"""Parts that models share. Everything here works on T packed tokens; only attention knows about rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, SequenceBatch
from attnrec_dist.errors import ConfigError, DataError
from attnrec_dist.ops.attention import attention
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.packed import Layout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class TokenEmbedding(nn.Module):
    """Item + position + event type, each learned. The tokens of a basket share a position, the basket's place in the row."""

    def __init__(self, spec: DataSpec, width: int, dropout: float):
        super().__init__()
        self.positions = nn.Embedding(spec.max_length, width)
        self.events = nn.Embedding(len(spec.event_types), width) if len(spec.event_types) > 1 else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: SequenceBatch, table: ItemTable) -> Tensor:
        """[T, D]. Places beyond the table share its last position. Raises DataError when event types are missing."""
        x = table(batch.items) + self.positions(batch.baskets.clamp(max=self.positions.num_embeddings - 1))
        if self.events is not None:
            if "event" not in batch.events:
                raise DataError("the model embeds event types but the batch has none; prepare the data with columns.event")
            x = x + self.events(batch.events["event"])
        return self.dropout(x)


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

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """[T, D] -> [T, D]"""
        if self.shape.norm == "pre":
            x = x + self._attend(self.norm_attention(x), layout)
            return x + self._feed_forward(self.norm_feed_forward(x))
        x = self.norm_attention(x + self._attend(x, layout))
        return self.norm_feed_forward(x + self._feed_forward(x))

    def _attend(self, x: Tensor, layout: Layout) -> Tensor:
        q, k, v = (
            self.qkv(x).view(len(x), 3, self.shape.heads, self.shape.width // self.shape.heads).unbind(1)
        )  # each [T, H, D/H]
        dropout = self.shape.attention_dropout if self.training else 0.0
        return self.dropout(self.out(attention(q, k, v, layout, dropout).flatten(1)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.narrow(ACTIVATIONS[self.shape.activation](self.widen(x))))


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
