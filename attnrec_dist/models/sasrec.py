"""SASRec (Kang and McAuley 2018, section III): self-attention over a user's past items. Letters: see batch.py."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, Output, SequenceBatch
from attnrec_dist.models.base import ModelConfig, NextItemModel
from attnrec_dist.models.layers.embedding import TokenEmbedding
from attnrec_dist.models.layers.initial import reset_parameters
from attnrec_dist.models.layers.transformer import Block, BlockShape
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.packed import Layout, pool_baskets


class SASRecConfig(ModelConfig):
    name: Literal["sasrec"] = "sasrec"
    width: int = Field(64, ge=1, description="width D of items and hidden states; a multiple of heads")
    heads: int = Field(2, ge=1, description="attention heads a block")
    blocks: int = Field(2, ge=1, description="blocks, each attention + feed-forward network")
    feed_forward: int = Field(1, ge=1, description="inner width of the feed-forward network, as a multiple of the width")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of embeddings and of each block's additions set to zero in training"
    )
    attention_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of attention weights set to zero in training; above 0 attention takes longer"
    )
    norm: Literal["pre", "post"] = Field("pre", description="layer norm before each half of a block, or after its addition")
    activation: Literal["relu", "gelu"] = Field("relu", description="of the feed-forward network")
    time: bool = Field(False, description="embeds days since the basket before, weekday and month; needs a log with real times")


class SASRec(NextItemModel):
    Config = SASRecConfig

    def __init__(self, config: SASRecConfig, spec: DataSpec):
        super().__init__()
        shape = BlockShape(
            width=config.width,
            heads=config.heads,
            feed_forward=config.feed_forward,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            norm=config.norm,
            activation=config.activation,
        )
        self.table = ItemTable(spec.num_items, config.width)
        self.embedding = TokenEmbedding(spec, config.width, config.dropout, config.time)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        reset_parameters(self)

    def forward(self, batch: SequenceBatch, explain: bool = False) -> Output:
        """Hidden state after each token, [T, D]: it knows its row's baskets up to its own, whole, and nothing else."""
        layout = Layout.of(batch)
        return Output(hidden=self.norm(pool_baskets(self.encode(batch, layout), layout)))

    def at_ends(self, batch: SequenceBatch) -> Tensor:
        """`forward(batch).hidden` at the rows' last tokens, [B, D], where these are baskets of their own: for evaluation."""
        return self.norm(self.encode(batch, Layout.of(batch), at_ends=True))

    def encode(self, batch: SequenceBatch, layout: Layout, at_ends: bool = False) -> Tensor:
        """What the blocks make of each token, [T, D], before its basket is pooled; or of each row's last one, [B, D]."""
        x = self.embedding(batch, self.table)  # [T, D]
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x, layout)  # [T, D]
        return last(x, layout, at_ends)
