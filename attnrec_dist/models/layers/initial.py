"""Where parameters begin."""

from __future__ import annotations

from torch import nn

from attnrec_dist.ops.item_table import ItemTable


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
