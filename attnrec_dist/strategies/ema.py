"""Averaged weights: an exponential moving average over the steps (Polyak and Juditsky 1992), which is what is evaluated and used.

The average lives in the optimizer's state beside the moments of each parameter, so it is cut, saved and restored with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from attnrec_dist.strategies.shards import local

AVERAGE = "average"


@torch.no_grad()
def update_average(optimizer: torch.optim.Optimizer, decay: float, step: int) -> None:
    """After update `step`, counted from 1. Early on the average forgets faster, as (1 + step) / (10 + step)."""
    if not decay:
        return
    keep = min(decay, (1 + step) / (10 + step))
    for weights, state in optimizer.state.items():
        if not state:  # nothing was updated yet: an average alone would be taken for Adam's state
            continue
        if AVERAGE not in state:
            state[AVERAGE] = weights.detach().clone()
        local(state[AVERAGE]).lerp_(local(weights), 1 - keep)


@contextmanager
def averaged(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the module holds its averaged weights, where there are any."""
    held = [(p, p.data, optimizer.state[p][AVERAGE]) for p in module.parameters() if AVERAGE in optimizer.state.get(p, {})]
    try:
        for parameter, _, average in held:
            parameter.data = average
        yield
    finally:
        for parameter, data, _ in held:
            parameter.data = data
