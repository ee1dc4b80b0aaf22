"""BSARec (Shin et al. 2024, "An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention").

Beside self-attention each block has a filter that weighs the low frequencies of the row against the high ones:

    filtered = low + beta^2 (x - low)        block: alpha norm(x + filtered) + (1 - alpha) norm(x + attended), then feed-forward

The published filter transforms the whole row, so that a token knows of later ones. That does no harm where every sample asks
at its end only: `causal: false`, with data.targets prefixes or last. By default each token's filter ends with its own basket,
which in the first block gives the row's end the same, and all places of a row can be trained at once.

The published code pads rows on the left with a learned vector, which its filter transforms as well; here the padding is zero,
and rows are filtered without it. As there, positions are counted from a row's end, but for `causal`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, Output, SequenceBatch
from attnrec_dist.errors import ConfigError
from attnrec_dist.models.base import ModelConfig, NextItemModel
from attnrec_dist.models.layers.embedding import TokenEmbedding
from attnrec_dist.models.layers.initial import reset_parameters
from attnrec_dist.models.layers.transformer import Block, BlockShape
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.low_pass import kernel, low_pass
from attnrec_dist.ops.packed import Layout, pool_baskets


class BSARecConfig(ModelConfig):
    name: Literal["bsarec"] = "bsarec"
    width: int = Field(64, ge=1, description="width D of items and hidden states; a multiple of heads")
    heads: int = Field(2, ge=1, description="attention heads a block")
    blocks: int = Field(2, ge=1, description="blocks, each filter beside attention + feed-forward network")
    feed_forward: int = Field(4, ge=1, description="inner width of the feed-forward network, as a multiple of the width")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of embeddings and of each block's additions set to zero in training"
    )
    attention_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of attention weights set to zero in training; above 0 attention takes longer"
    )
    activation: Literal["relu", "gelu"] = Field("gelu", description="of the feed-forward network")
    alpha: float = Field(0.7, ge=0, le=1, description="weight of the filter; attention has the rest")
    cutoff: int = Field(
        5, ge=1, description="c: frequencies 0 to c // 2 of a window are low, so longer waves than 2 max_length / c are"
    )
    causal: bool = Field(
        True,
        description="true: the filter sees a token's past; false: the whole row, as published, for targets prefixes or last",
    )

    @property
    def is_causal(self) -> bool:
        return self.causal


class BSARec(NextItemModel):
    Config = BSARecConfig

    def __init__(self, config: BSARecConfig, spec: DataSpec):
        super().__init__()
        self.config = config
        self.max_length = spec.max_length
        shape = BlockShape(
            width=config.width,
            heads=config.heads,
            feed_forward=config.feed_forward,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            norm="post",
            activation=config.activation,
        )
        self.table = ItemTable(spec.num_items, config.width)
        self.embedding = TokenEmbedding(spec, config.width, dropout=0.0)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(FilterBlock(shape, config) for _ in range(config.blocks))
        self.register_buffer("response", kernel(spec.max_length, config.cutoff), persistent=False)
        reset_parameters(self)

    def forward(self, batch: SequenceBatch, explain: bool = False) -> Output:
        """Hidden state after each token, [T, D]. Raises ConfigError where `causal: false` is asked for more than rows' ends."""
        layout = Layout.of(batch)
        return Output(hidden=pool_baskets(self._encode(batch, layout), layout))

    def at_ends(self, batch: SequenceBatch) -> Tensor:
        """`forward(batch).hidden` at the rows' last tokens, [B, D], where these are baskets of their own: for evaluation."""
        return self._encode(batch, Layout.of(batch), at_ends=True)

    def _encode(self, batch: SequenceBatch, layout: Layout, at_ends: bool = False) -> Tensor:
        if not self.config.causal and len(batch.queries) > layout.num_rows:
            raise ConfigError(
                "model.causal: false may be asked at the end of a row only; type --data.targets prefixes, or --model.causal true"
            )
        x = self.dropout(self.norm(self.embedding(self._placed(batch, layout), self.table)))  # [T, D]
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x, layout, self.response)  # [T, D]
        return last(x, layout, self.response, at_ends)

    def _placed(self, batch: SequenceBatch, layout: Layout) -> SequenceBatch:
        """The batch with the positions that are embedded in the place of its baskets."""
        if self.config.causal:
            return batch
        last = batch.baskets[layout.offsets[1:].long() - 1]  # [B]
        return dataclasses.replace(batch, baskets=(self.max_length - 1 - last[layout.rows] + batch.baskets).clamp(min=0))


class FilterBlock(Block):
    """A post-norm block whose attention shares its place with the frequency filter."""

    def __init__(self, shape: BlockShape, config: BSARecConfig):
        super().__init__(shape)
        self.alpha, self.causal = config.alpha, config.causal
        self.norm_filter = nn.LayerNorm(shape.width)
        self.sqrt_beta = nn.Parameter(torch.randn(shape.width))

    def computed(self, x: Tensor, layout: Layout, response: Tensor, at_ends: bool = False) -> Tensor:  # type: ignore[override]
        low = low_pass(x, layout, response, self.causal)
        attend = self._attend_at_ends if at_ends else self._attend
        mine = x.index_select(0, layout.ends) if at_ends else x
        low = low.index_select(0, layout.ends) if at_ends else low
        filtered = self.norm_filter(mine + self.dropout(low + self.sqrt_beta.square() * (mine - low)))
        attended = self.norm_attention(mine + attend(x, layout))
        return self.transformed(self.alpha * filtered + (1 - self.alpha) * attended)
