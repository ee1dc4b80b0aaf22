"""Activation checkpointing: a block keeps its input alone and computes again, in the backward pass, what it needs beside it.

About a third more arithmetic for the memory of all blocks but one (Chen et al. 2016, "Training Deep Nets with Sublinear Memory
Cost"). Dropout draws the same again, so losses and gradients are equal to the last bit.
"""

from __future__ import annotations

from torch import nn

from attnrec_dist.errors import ConfigError
from attnrec_dist.models.layers.transformer import Block


def recompute_blocks(model: nn.Module) -> None:
    """Has every block of the model recomputed in training. Raises ConfigError where there is none."""
    blocks = [part for part in model.modules() if isinstance(part, Block)]
    if not blocks:
        raise ConfigError(
            "train.activation_checkpointing: the model has no blocks of self-attention over histories; leave it out"
        )
    for block in blocks:
        block.recomputed = True
