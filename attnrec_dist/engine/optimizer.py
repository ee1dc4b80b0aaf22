"""The `optimizer` section: Adam and AdamW with decay groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from attnrec_dist.settings import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    name: Literal["adam", "adamw"] = Field(
        "adamw", description="adam: no decay, or decay in the gradient; adamw: decoupled decay"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="on matrices only: biases, norms and embeddings are left alone")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="decay of the running mean and of the running square")
    eps: float = Field(1e-8, gt=0, description="added to the denominator of an update")
    schedule: Literal["constant", "cosine"] = Field("constant", description="after the warm-up: stay, or fall to min_lr_ratio")
    warmup_steps: int = Field(0, ge=0, description="steps of linear rise from 0")
    min_lr_ratio: float = Field(0.0, ge=0, le=1, description="where cosine ends at the last step, as a share of lr")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the whole gradient; null: not clipped")


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over two groups: matrices with weight decay, the rest (vectors and embedding tables) without."""
    tables = {id(p) for part in module.modules() if _is_table(part) for p in part.parameters(recurse=False)}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim >= 2 and id(parameter) not in tables].append(parameter)
    make = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return make(
        [{"params": groups[True], "weight_decay": config.weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def _is_table(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding) or type(module).__name__ in ("ItemTable", "NumericFields")


def learning_rate(config: OptimizerConfig, step: int, max_steps: int) -> float:
    """The learning rate of update `step`, counted from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
