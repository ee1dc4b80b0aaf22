"""The training loop: one global batch after another, from wherever the last attempt ended."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from attnrec_dist.batch import PADDING
from attnrec_dist.checkpoints import checkpoint
from attnrec_dist.checkpoints.checkpoint import Progress
from attnrec_dist.data.loader import GlobalBatch, batches, worker_errors
from attnrec_dist.data.order import derive_key
from attnrec_dist.engine.announce import announce
from attnrec_dist.engine.compile import eagerly
from attnrec_dist.engine.nonfinite import not_finite
from attnrec_dist.engine.objective import build
from attnrec_dist.engine.optimizer import learning_rate, set_learning_rate
from attnrec_dist.engine.run import Run, begin
from attnrec_dist.engine.saver import Saver, settle
from attnrec_dist.errors import ExitCode
from attnrec_dist.monitoring.metrics_log import ProgressBar, Waiting
from attnrec_dist.monitoring.profiler import StepProfile
from attnrec_dist.strategies.base import Strategy
from attnrec_dist.strategies.ema import update_average


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
