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

from attnrec_dist.errors import ConfigError
from attnrec_dist.ops.attention import attention, attention_at_ends
from attnrec_dist.ops.packed import Layout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


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

    recomputed = False  # in the backward pass: engine/activation_checkpointing.py
    compiled = False  # its second half, in training: engine/compile.py

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
