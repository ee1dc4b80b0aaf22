"""The training loop: one global batch after another, from wherever the last attempt ended."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import PADDING, Batch
from attnrec_dist.data.loader import GlobalBatch, batches, worker_errors
from attnrec_dist.data.order import derive_key
from attnrec_dist.engine import checkpoint
from attnrec_dist.engine.announce import announce
from attnrec_dist.engine.average import update_average
from attnrec_dist.engine.checkpoint import Progress
from attnrec_dist.engine.compiled import compile_model, eagerly
from attnrec_dist.engine.figures import Flops
from attnrec_dist.engine.guard import not_finite
from attnrec_dist.engine.optim import learning_rate, make_optimizer, set_learning_rate
from attnrec_dist.engine.precision import Precision, PrecisionName
from attnrec_dist.engine.profile import StepProfile
from attnrec_dist.engine.recompute import recompute_blocks
from attnrec_dist.engine.run import Run, begin
from attnrec_dist.engine.saving import Saver, settle
from attnrec_dist.engine.spread import spread
from attnrec_dist.engine.strategy import Strategy
from attnrec_dist.engine.tracking import ProgressBar, Waiting
from attnrec_dist.errors import ExitCode
from attnrec_dist.losses.base import Loss
from attnrec_dist.models.base import Model
from attnrec_dist.settings import Section


class TrainConfig(Section):
    max_epochs: float | None = Field(10, gt=0, description="epochs to train at most; null: only max_steps counts")
    max_hours: float | None = Field(
        None, gt=0, description="hours after which a job stops with a checkpoint, to be run again; null: no limit"
    )
    max_steps: int | None = Field(None, ge=1, description="steps to train at most; null: only max_epochs counts")
    global_batch_size: int = Field(128, ge=1, description="samples of one step, over all processes and accumulation")
    micro_batch_tokens: int = Field(
        16384, ge=1, description="tokens that one forward may hold, long rows counted dearer; more are accumulated"
    )
    precision: PrecisionName = Field(
        "fp32", description="bf16, fp16: autocast, weights stay fp32; tf32: fp32 with faster products on a GPU; fp64: for tests"
    )
    activation_checkpointing: bool = Field(
        False, description="blocks compute their inner values again in the backward pass: less memory, a third more arithmetic"
    )
    compile: bool = Field(
        False,
        description="torch.compile of a ranking model; of blocks of self-attention the second half, slower on CPUs",
    )
    deterministic: bool = Field(
        False, description="on a GPU: only algorithms that give the same bits each time, slower; an error where one has none"
    )
    seed: int = Field(0, description="of initial weights, order and dropout")
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the running average of the weights that is evaluated and used; 0: the weights themselves",
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of a process; null: torch's choice")
    timeout: float = Field(1800.0, gt=0, description="seconds after which a process that waits for another gives up")


def train(run: Run) -> tuple[ExitCode, Progress]:
    """Train to the last step, a stop request or a fault; a restart goes on where this ended (promises 3, 4, 7)."""
    if run.finished(run.progress):
        return ExitCode.DONE, nothing_left(run)
    strategy = build(run, run.found)
    run.world.on_main(lambda: begin(run))
    progress = restore(run, strategy)
    announce(run)
    strategy.warm_up(run.steps.micro_batch(torch.tensor([PADDING]).numpy()))
    started, targets = time.monotonic() - progress.seconds, 0
    run.figures.begin()
    progress.lost_seconds += time.monotonic() - run.job.began
    waiting, traces, traced = Waiting(), run.run_dir.path / "profile", run.config.tracking.profile_steps
    with (
        worker_errors(),
        ProgressBar(progress.step, run.max_steps, run.world.is_main) as bar,
        StepProfile(traces, run.world.rank, traced, bar.say) as profiled,
        Saver(run, strategy) as saver,
    ):
        leaving = progress.owes_evaluation and round_off(run, saver, progress, bar)
        for batch in () if leaving else waiting.over(batches(run.steps, progress.step, run.max_steps, run.world.device)):
            loss, stop, rate = update(run, strategy, batch)
            progress.step += 1
            run.figures.step(batch)
            run.figures.seconds["data"] += waiting.last
            progress.seconds = time.monotonic() - started
            targets += batch.targets * run.world.size
            run.log(progress, loss, rate, batch, strategy.scaler, waiting.last)
            run.watchdog.moved(progress.step)
            look = run.look_due(progress.step)
            stopping = look and stop.item() > 0  # added up over ranks: all leave at the same step
            if look:
                run.metrics.flush()
                bar.show(progress.step, loss.item(), targets, waiting.total)
                targets = 0
            profiled.step()
            progress.owes_evaluation = run.evaluation_due(progress.step)
            if round_off(run, saver, progress, bar, stopping):
                break
        with run.figures.timed("saving"):
            saver.finish()
    return ExitCode.DONE if run.finished(progress) else ExitCode.RUN_AGAIN, progress


def update(run: Run, strategy: Strategy, batch: GlobalBatch) -> tuple[Tensor, Tensor, float]:
    """What `train_step` returns, and the learning rate: the step with all that surrounds it."""
    rate = learning_rate(run.config.optimizer, batch.step, run.max_steps)
    set_learning_rate(strategy.optimizer, rate)
    loss, stop = train_step(run, strategy, batch)
    update_average(strategy.optimizer, run.config.train.average, batch.step + 1)
    return loss, stop, rate


def train_step(run: Run, strategy: Strategy, batch: GlobalBatch) -> tuple[Tensor, Tensor]:
    """One update from one global batch: (loss per unit of target weight over all ranks, number of ranks asked to stop).

    Both stay on the device. They travel together, in the step's only collective beside the gradients'.
    """
    strategy.module.train()
    losses = []
    for place, micro in enumerate(batch.micro_batches):
        seed_generators(run.config.train.seed, batch.step, place, run.world.rank)
        with strategy.accumulating(last=place + 1 == len(batch.micro_batches)):
            with run.figures.timed("forward"):
                loss_sum = strategy(micro.to(run.world.device))
            strategy.backward(loss_sum, batch.target_weight)
        losses.append(loss_sum.detach())
    norm = strategy.gradient_norm()
    look = strategy.scaler is not None or run.look_due(batch.step + 1)
    if not look or norm.isfinite():
        strategy.update(norm, run.config.optimizer.clip_norm)
    elif strategy.scaler is not None and strategy.scaler.overflowed():
        strategy.skip()  # its batch is consumed
    else:
        raise not_finite(run, strategy, batch, losses)
    total = sum(losses[1:], losses[0])
    asked = torch.full_like(total, float(run.stop.requested))
    summed = run.world.sum(torch.stack([total, asked]))
    return summed[0] / batch.target_weight, summed[1]


def round_off(run: Run, saver: Saver, progress: Progress, bar: ProgressBar, stopping: bool = False) -> bool:
    """What is due after a step: evaluation, then a checkpoint. True when no step is to follow.

    A stop request comes before the evaluation and cuts it short; the checkpoint then tells that the next job has to do it.
    """
    with run.figures.timed("evaluation"):
        improved = progress.owes_evaluation and not stopping and validate(run, saver.strategy, progress, bar)
    if stopping or improved or progress.owes_evaluation or run.checkpoint_due(progress):
        with run.figures.timed("saving"):
            saver.save(progress)
        stopping = run.world.any(run.stop.requested) or stopping  # before the save, or while it went on
    if progress.finished:
        bar.say(f"stopped: {progress.finished}")
    return stopping or bool(progress.finished)


def validate(run: Run, strategy: Strategy, progress: Progress, bar: ProgressBar) -> bool:
    """Measures the averaged weights, where there are any, on the validation part; True when they are the best so far."""
    with strategy.whole(average=True) as objective, eagerly():
        return run.validate(objective, progress, bar)


def seed_generators(*place: int) -> None:
    """Whatever is random in a micro-batch depends on (seed, step, micro-batch, rank) alone; no generator state is ever stored."""
    seed = int(derive_key("dropout", *place)[0] >> 1)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # torch.manual_seed asks at every call, and notes the stack where there is no GPU: .7 ms
        torch.cuda.manual_seed_all(seed)


def build(run: Run, found: Path | None) -> Strategy:
    """The objective with its optimizer, spread; its weights are a checkpoint's, or initial ones that are equal on all ranks."""
    torch.manual_seed(run.config.train.seed)
    objective = Objective(*run.task.model_and_loss(), run.job.precision).to(run.world.device, run.job.precision.weight_dtype)
    if found:
        checkpoint.load_weights(found, objective)
    if run.config.train.activation_checkpointing:
        recompute_blocks(objective.model)
    if run.config.train.compile:
        compile_model(objective.model, run.job)
    run.figures.parameters = sum(each.numel() for each in objective.parameters())
    run.figures.flops = Flops.of(objective.model, run.config.loss.draws)
    return spread(run.job, objective, lambda module: make_optimizer(module, run.config.optimizer))


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


def nothing_left(run: Run) -> Progress:
    """Says so. Only what a kill may have left undone after the last checkpoint is done."""
    progress = run.progress

    def put_right() -> None:
        checkpoint.put_asides_back(run.run_dir)
        settle(run, progress, run.place)

    run.world.on_main(put_right)
    run.say(f"nothing left to do: {progress.finished or f'step {progress.step} of {run.max_steps} is done'}")
    return progress


def restore(run: Run, strategy: Strategy) -> Progress:
    """Goes back to a checkpoint whose weights are there already, on every rank; a fresh run begins at step 0."""
    progress, path = run.progress, run.place
    if run.found:
        run.world.together(lambda: checkpoint.load(path, strategy))
        run.world.on_main(lambda: settle(run, progress, path))  # a kill may have come between the checkpoint and this
        run.say(f"going on from step {progress.step} ({path.name})")
    reached = run.metrics.cut_back(progress.step, not progress.owes_evaluation, run.say)
    progress.lost_seconds += max(0.0, reached - progress.seconds)
    return progress
