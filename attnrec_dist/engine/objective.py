"""Model and loss as one module, with an optimizer, spread over the processes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from attnrec_dist.batch import Batch
from attnrec_dist.checkpoints.checkpoint import load_weights
from attnrec_dist.engine.activation_checkpointing import recompute_blocks
from attnrec_dist.engine.compile import compile_model
from attnrec_dist.engine.optimizer import make_optimizer
from attnrec_dist.engine.run import Run
from attnrec_dist.losses.base import Loss
from attnrec_dist.models.base import Model
from attnrec_dist.monitoring.throughput import Flops
from attnrec_dist.strategies.base import Strategy
from attnrec_dist.strategies.make import make_strategy
from attnrec_dist.strategies.precision import Precision


def build(run: Run, found: Path | None) -> Strategy:
    """The objective with its optimizer, spread; its weights are a checkpoint's, or initial ones that are equal on all ranks."""
    torch.manual_seed(run.config.train.seed)
    objective = Objective(*run.task.model_and_loss(), run.job.precision).to(run.world.device, run.job.precision.weight_dtype)
    if found:
        load_weights(found, objective)
    if run.config.train.activation_checkpointing:
        recompute_blocks(objective.model)
    if run.config.train.compile:
        compile_model(objective.model, run.job)
    run.figures.parameters = sum(each.numel() for each in objective.parameters())
    run.figures.flops = Flops.of(objective.model, run.config.loss.draws)
    return make_strategy(run.job, objective, lambda module: make_optimizer(module, run.config.optimizer))


class Objective(nn.Module):
    """Model and loss as one module, so that whatever wraps it sees every use of every weight."""

    def __init__(self, model: Model, loss: Loss, precision: Precision):
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision

    def forward(self, batch: Batch) -> Tensor:
        """The sum of a micro-batch's weighted losses, a scalar."""
        with self.precision.autocast():
            total: Tensor = self.loss(self.model(batch), batch, self.model.table)
        return total
