"""A run put together: configuration, processes, data, directory. `start` meets the user's mistakes before any training."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnrec_dist.checkpoints.checkpoint import Progress, newest, pass_over, put_asides_back, read_progress
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.fingerprint import confirm
from attnrec_dist.data.loader import GlobalBatch, Share, Steps
from attnrec_dist.data.order import Order
from attnrec_dist.data.samples import Samples
from attnrec_dist.distributed import World
from attnrec_dist.engine.config import RunConfig
from attnrec_dist.engine.preemption import StopRequest
from attnrec_dist.engine.task import Task, make_task
from attnrec_dist.errors import ConfigError, RunDirError, StopRequested
from attnrec_dist.monitoring.environment import note_job
from attnrec_dist.monitoring.metrics_log import Metrics, ProgressBar
from attnrec_dist.monitoring.throughput import Figures
from attnrec_dist.monitoring.trackers import require
from attnrec_dist.monitoring.watchdog import Watchdog
from attnrec_dist.run_dir import RunDir, read_marker, write_whole
from attnrec_dist.settings import build, flatten, read_yaml, to_yaml
from attnrec_dist.strategies.launch import Job
from attnrec_dist.strategies.precision import LossScaler

# keys that a resumed run may change; all others decide what the run computes and are frozen (docs/resume.md)
FREE_SECTIONS = ("checkpoint.", "tracking.", "watchdog.", "evaluation.baselines.")
FREE_KEYS = (
    "data.path",
    "data.workers",
    "data.loader_timeout",
    "data.verify",
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.min_lr_ratio",
    "optimizer.clip_norm",
    "train.activation_checkpointing",
    "train.compile",
    "train.deterministic",
    "train.max_epochs",
    "train.max_hours",
    "train.max_steps",
    "train.micro_batch_tokens",
    "train.threads",
    "train.timeout",
    "evaluation.patience",
)


@dataclass
class Run:
    """Everything the loop needs; the methods are its questions, so that it reads as prose."""

    config: RunConfig
    run_dir: RunDir
    job: Job
    world: World
    data: DataSet
    task: Task
    steps: Steps
    metrics: Metrics
    figures: Figures
    stop: StopRequest
    watchdog: Watchdog
    max_steps: int
    found: Path | None  # the checkpoint to go on from, whole; None at a beginning
    progress: Progress  # where the run was then
    damaged: list[tuple[str, str]]  # newer checkpoints, and what is wrong with them
    replayed: bool = False  # nothing is to be written

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on with the run that loads it."""
        return identity_of(self.config, self.data)

    @property
    def place(self) -> Path:
        """Of the checkpoint to go on from, once what a killed job has stepped aside is back."""
        return self.run_dir.checkpoints / f"step-{self.progress.step:08d}"

    def say(self, text: str) -> None:
        if self.world.is_main:
            print(text, file=sys.stderr, flush=True)

    def log(
        self, progress: Progress, loss: Tensor, rate: float, batch: GlobalBatch, scaler: LossScaler | None, waited: float
    ) -> None:
        epoch = round(progress.step / self.steps.order.steps_per_epoch, 4)
        values: dict[str, Any] = {"epoch": epoch, "loss": loss, "learning_rate": rate, "tokens": batch.tokens}
        if scaler is not None:
            values |= {"loss_scale": scaler.scale, "skipped_steps": scaler.skipped}
        goodput = round(progress.goodput, 4)
        self.metrics.log(progress.step, **values, seconds=round(progress.seconds, 3), data_wait=round(waited, 4), goodput=goodput)

    def look_due(self, step: int) -> bool:
        """Whether losses and stop requests are read off the device at this step; on a GPU that waits for the queue to empty."""
        if self.world.device.type == "cpu":
            return True
        every = (self.config.tracking.log_every, self.checkpoint_steps)  # so that no checkpoint holds what is not finite
        return any(step % each == 0 for each in every) or step == self.max_steps or self.evaluation_due(step)

    def evaluation_due(self, step: int) -> bool:
        return step % self.evaluation_steps == 0 or step == self.max_steps

    @property
    def evaluation_steps(self) -> int:
        config = self.config.evaluation
        return config.every_steps or max(1, round(config.every_epochs * self.steps.order.steps_per_epoch))

    @property
    def checkpoint_steps(self) -> int:
        return self.config.checkpoint.every_steps or self.evaluation_steps

    def checkpoint_due(self, progress: Progress) -> bool:
        return progress.step % self.checkpoint_steps == 0 or progress.step == self.max_steps or bool(progress.finished)

    def finished(self, progress: Progress) -> bool:
        return not progress.owes_evaluation and (progress.step >= self.max_steps or bool(progress.finished))

    def out_of_patience(self, progress: Progress) -> str:
        """Why the training ends early; "" while evaluation.patience, which a resumed run may raise, is not used up."""
        config = self.config.evaluation
        if config.patience is None or progress.evaluations_without_gain < config.patience:
            return ""
        return (
            f"{config.metric} has not improved for {config.patience} evaluations; best {progress.best_value:.4f} "
            f"at step {progress.best_step}"
        )

    def between_parts(self) -> None:
        """Between two parts of an evaluation. Raises StopRequested."""
        self.watchdog.moved()
        self.stop.check()

    def validate(self, objective: nn.Module, progress: Progress, bar: ProgressBar) -> bool:
        """Evaluates on the validation part and takes it to the books; True when it is the best so far.

        A stop request leaves it undone: the run still owes it then.
        """
        config = self.config.evaluation
        progress.owes_evaluation = True
        speed = self.figures.so_far()
        try:
            found = self.task.validate(objective.model, self.between_parts)
        except StopRequested:
            return False
        progress.owes_evaluation = False
        if found is None:
            return False
        measured = {f"eval/{name}": value for name, value in found.values.items() if not math.isnan(value)}
        self.metrics.log(progress.step, **measured, **speed)
        self.metrics.flush()
        if found.kept:
            progress.extra = {"step": progress.step, **found.kept}
        value = found.values[config.metric]
        improved = self.task.improves(value, progress.best_value)
        if improved:
            progress.best_value, progress.best_step, progress.evaluations_without_gain = value, progress.step, 0
        else:
            progress.evaluations_without_gain += 1
            progress.finished = self.out_of_patience(progress)
        bar.say(f"step {progress.step}  validation {config.metric} {value:.4f}{'  best so far' if improved else ''}")
        return improved


def start(config: RunConfig, run_dir: RunDir, job: Job, watchdog: Watchdog, stop: StopRequest) -> Run:
    """Locks the run directory and checks everything, writing nothing in it yet. Raises UserError on every rank alike."""
    world = job.world
    if config.train.global_batch_size < world.size:
        raise ConfigError(
            f"train.global_batch_size: {config.train.global_batch_size} samples cannot be dealt to {world.size} processes; "
            f"type --train.global_batch_size {world.size} or more"
        )
    world.on_main(lambda: require(config.tracking.trackers))
    world.on_main(lambda: claim(run_dir, config))
    return assemble(config, run_dir, job, watchdog, stop)


def begin(run: Run) -> None:
    """The first that is written of a training, once its model stands, too. Rank 0."""
    run_dir, text = run.run_dir, to_yaml(run.config)
    run.metrics.require_usable()
    run_dir.begun = True
    pass_over([run_dir.checkpoints / name for name, _ in run.damaged])
    put_asides_back(run_dir)
    for _, why in run.damaged:
        run.say(f"attnrec: {why}; going on from the one before it")
    write_whole(run_dir.config, f"# versions, commit, processes, data of each job: {run_dir.jobs.name}\n{text}")
    run_dir.write_status("running", run.progress.step)
    note_job(run_dir.jobs, run.job, run.data.manifest.fingerprint)


def assemble(config: RunConfig, run_dir: RunDir, job: Job, watchdog: Watchdog, stop: StopRequest) -> Run:
    """A run without a claim on its directory. Raises UserError on every rank alike."""
    world, train = job.world, config.train
    if train.threads:
        torch.set_num_threads(train.threads)
    data = open_data(config, world)
    name, progress, damaged = world.on_main(lambda: resume_point(run_dir, config, data))
    task = make_task(config, data, run_dir, world)
    order = make_order(config, data, task.samples)
    run = Run(
        config=config,
        run_dir=run_dir,
        job=job,
        world=world,
        data=data,
        task=task,
        steps=Steps(task.samples, config.data, order, Share(world.rank, world.size, train.micro_batch_tokens)),
        metrics=Metrics(run_dir.metrics, world.is_main),
        figures=Figures(world, train.precision, config.tracking.peak_tflops, not job.asked.cuts_weights),
        stop=stop,
        watchdog=watchdog,
        max_steps=last_step(config, order),
        found=run_dir.checkpoints / name if name else None,
        progress=Progress(**progress),
        damaged=damaged,
    )
    run.progress.finished = run.out_of_patience(run.progress) if name else ""
    return run


def resume_point(run_dir: RunDir, config: RunConfig, data: DataSet) -> tuple[str, dict[str, Any], list[tuple[str, str]]]:
    """The name of the checkpoint to go on from, "" for none; where the run was then; newer ones that are damaged, and how. Writes
    nothing. Raises DamagedError, CheckpointError, DataError. Rank 0."""
    path, damaged = newest(run_dir, identity_of(config, data))
    if path is None:
        return "", asdict(Progress()), []
    known = read_marker(path).manifest
    if known is not None and known != data.manifest.checksum:
        confirm(data)
    return path.name, asdict(read_progress(path)), [(each.name, why) for each, why in damaged]


def watchdog_of(config: RunConfig, run_dir: RunDir, world: World) -> Watchdog:
    """Watches from the first check on; what it ends is told in status.json where the directory is this job's."""

    def tell(why: str) -> None:
        if run_dir.locked:
            run_dir.write_status("fault", int(run_dir.status()["step"]), why)

    return Watchdog(config.watchdog, world, tell, run_dir.path)


def make_order(config: RunConfig, data: DataSet, samples: Samples) -> Order:
    return Order(
        data.manifest.fingerprint,
        config.train.seed,
        len(samples),
        config.train.global_batch_size,
        config.data.block_size,
        config.data.shuffle_blocks,
    )


def last_step(config: RunConfig, order: Order) -> int:
    """Where the training ends if nothing ends it earlier; one step at least."""
    limits = config.train
    by_epochs = sys.maxsize if limits.max_epochs is None else max(1, round(limits.max_epochs * order.steps_per_epoch))
    return min(limits.max_steps or sys.maxsize, by_epochs)


def open_data(config: RunConfig, world: World) -> DataSet:
    """The data set, its shards' checksums compared by all ranks together, each its share."""

    def opened() -> DataSet:
        data = DataSet.open(Path(config.data.path), verify=False)
        if config.data.verify:
            data.verify(world.rank, world.size)
        return data

    result: DataSet = world.together(opened)
    if result.note and world.is_main:
        print(f"attnrec: {result.note}", file=sys.stderr, flush=True)
    return result


def claim(run_dir: RunDir, config: RunConfig) -> None:
    """Makes or reopens the run directory, locks it, and refuses a configuration that would make another run of it."""
    run_dir.create()
    run_dir.lock()
    if run_dir.complete_checkpoints():  # an attempt that never got that far binds nobody
        refuse_changes(run_dir, config)


def identity_of(config: RunConfig, data: DataSet) -> dict[str, Any]:
    """What a checkpoint is bound to, by the names of run_dir.Marker."""
    return {
        "data fingerprint": data.manifest.fingerprint,
        "model": config.model.name,
        "manifest checksum": data.manifest.checksum,
        "config": frozen(config.model_dump(mode="json")),
    }


def is_free(key: str) -> bool:
    """Whether a resumed run may change it."""
    return key in FREE_KEYS or key.startswith(FREE_SECTIONS)


def frozen(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration without the keys that are free."""
    return {
        key: frozen(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in tree.items()
        if not is_free(f"{prefix}{key}" + ("." if isinstance(value, dict) else ""))
    }


def refuse_changes(run_dir: RunDir, config: RunConfig) -> None:
    """Raises RunDirError naming each frozen key that differs from what the directory was started with."""
    before, now = flatten(started_with(run_dir, config)), flatten(config.model_dump(mode="json"))
    changed = [
        f"{key}: was {before.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not is_free(key)
    ]
    if changed:
        raise RunDirError(
            f"{run_dir.path}: holds a run that was started with another configuration; choose another --run_dir, or set back:\n  "
            + "\n  ".join(changed)
        )


def started_with(run_dir: RunDir, config: RunConfig) -> dict[str, Any]:
    """The directory's configuration; keys that are younger than the run have their defaults, which are what it ran with."""
    tree = read_yaml(run_dir.config)
    try:
        return build(type(config), tree, str(run_dir.config)).model_dump(mode="json")
    except ConfigError:  # of another model or loss, or with keys that are no more
        return tree
