"""What is kept of a step whose loss or gradient is not finite, so that it can be looked into: RUN/not-finite.json."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from attnrec_dist.data import order as order_of
from attnrec_dist.data.loader import GlobalBatch
from attnrec_dist.engine.run import Run
from attnrec_dist.errors import FaultError
from attnrec_dist.run_dir import write_whole
from attnrec_dist.strategies.base import Strategy

SHOWN = 5


def not_finite(run: Run, strategy: Strategy, batch: GlobalBatch, losses: list[Tensor]) -> FaultError:
    """The error to stop with, all ranks alike; rank 0 writes not-finite.json. A collective.

    Samples are those of the micro-batches whose loss is not finite, of all ranks; where all losses are finite and only the
    gradient is not, those of the whole step. On a GPU losses are looked at every few steps: one of those before may be the first.
    """
    parameters = strategy.not_finite()
    bad = [micro.sample_ids.cpu() for micro, loss in zip(batch.micro_batches, losses, strict=True) if not bool(loss.isfinite())]
    mine = torch.cat(bad).numpy() if bad else np.empty(0, np.int64)
    samples = np.concatenate(run.world.gather(mine))
    step, total = batch.step + 1, run.world.sum(torch.stack(losses).sum()).item() / batch.target_weight
    earlier = run.metrics.first_not_finite()
    step, total = earlier or (step, total)
    if earlier or not len(samples):
        samples = order_of.samples(run.steps.order, step - 1)
    samples = np.sort(samples[samples >= 0]).tolist()
    path = run.run_dir.path / "not-finite.json"
    report = {"step": step, "loss": str(total), "parameters": parameters, "samples": samples}
    if not run.replayed:
        run.world.on_main(lambda: write_whole(path, json.dumps(report, indent=1) + "\n"))
    first = f"of {parameters[0]} and {len(parameters) - 1} other parameters" if parameters else "of no single parameter"
    shown = ", ".join(map(str, samples[:SHOWN])) + (", ..." if len(samples) > SHOWN else "")
    return FaultError(
        f"the loss of step {step} is {total}, and the gradient {first} is not finite; samples {shown}: all of them in {path}. "
        "The newest checkpoint is from before it: lower --optimizer.lr or set --optimizer.clip_norm 1.0, and run again"
    )
