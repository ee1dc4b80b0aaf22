"""What a run says to a person when it starts and when it ends; rank 0 alone says it."""

from __future__ import annotations

from typing import Any

import torch

from attnrec_dist.checkpoints.checkpoint import Progress
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.samples import Cut
from attnrec_dist.engine.run import Run
from attnrec_dist.strategies.launch import Asked
from attnrec_dist.terminal.layout import counted, named, paragraph

NEVER = 0.0005  # a share of the time that rounds to nothing


def announce(run: Run) -> None:
    """Tells what is about to be trained, and what of it is off on these data."""
    if run.world.is_main:
        run.say("\n".join([started(run), *(paragraph(f"note: {remark}", "  ", "") for remark in run.task.remarks())]))


def started(run: Run) -> str:
    """Five lines: data, model, strategy, device, where it is written; below the first what of the data is not read as it is."""
    config, world, manifest = run.config, run.world, run.data.manifest
    size = f"{run.data.path}: {manifest.counts.rows:,} users, {manifest.num_items:,} items"
    epochs = run.max_steps / run.steps.order.steps_per_epoch
    length = f"{counted(run.max_steps, 'step')} ({_epochs(epochs)})"
    most = "" if config.evaluation.patience is None else "at most "
    return named(
        [
            ("data", f"{size}, {manifest.counts.train_events:,} training events"),
            *(("", each) for each in (cut_told(run.task.samples.cut(), config.data.max_length), cold_told(run.data)) if each),
            ("model", f"{config.model.name}, {run.figures.parameters:,} parameters, loss {config.loss.name}"),
            (
                "strategy",
                f"{strategy_told(run.job.asked, world.size)}; {most}{length}, "
                f"{counted(config.train.global_batch_size, 'sample')} a step",
            ),
            ("device", f"{device_told(world.device)}, {config.train.precision}"),
            ("writes to", str(run.run_dir.path)),
        ]
    )


def cut_told(cut: Cut, max_length: int) -> str:
    """
    >>> cut_told(Cut(30, 1200, told="the newest 50 events are read"), 50)
    '30 of 1,200 histories to train on (2.5%) are longer than data.max_length 50: the newest 50 events are read'
    """
    if not cut.longer:
        return ""
    return (
        f"{cut.longer:,} of {cut.of:,} {cut.what} ({share(cut.longer, cut.of)}) are longer than data.max_length {max_length:,}: "
        f"{cut.told}"
    )


def cold_told(data: DataSet) -> str:
    """Items that training never sees; "" where there are none."""
    manifest = data.manifest
    inside = int((data.popularity() == 0).sum())  # leave-one-out numbers all items
    outside = manifest.num_all_items - manifest.num_items
    if not inside + outside:
        return ""
    told = f"{inside + outside:,} of {manifest.num_all_items:,} items ({share(inside + outside, manifest.num_all_items)})"
    return f"{told} have no training event: {'nothing is learnt of them' if inside else 'they are never recommended'}"


def share(part: float, whole: float) -> str:
    """
    >>> share(1, 3), share(1, 30_000), share(0, 3)
    ('33.3%', 'under 0.1%', '0.0%')
    """
    found = part / max(whole, 1e-9)
    return "under 0.1%" if 0 < found < 0.0005 else f"{found:.1%}"


def strategy_told(asked: Asked, processes: int) -> str:
    """
    >>> strategy_told(Asked(), 1), strategy_told(Asked(), 4)
    ('one process', 'DDP, 4 processes')
    >>> strategy_told(Asked("fsdp2", replicas=2), 4), strategy_told(Asked("zero", 2, offload=True), 4)
    ('FSDP2 in 2 groups, 4 processes', 'ZeRO 2 with the optimizer in RAM, 4 processes')
    """
    if asked.kind == "plain":
        return "one process" if processes == 1 else f"DDP, {processes} processes"
    groups = f" in {asked.replicas} groups" if asked.replicas > 1 else ""
    name = f"FSDP2{groups}" if asked.kind == "fsdp2" else f"ZeRO {asked.stage}"
    return f"{name}{' with the optimizer in RAM' if asked.offload else ''}, {counted(processes, 'process', 'processes')}"


def device_told(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}" + (" a process" if torch.distributed.is_initialized() else "")


def ended(run: Run, progress: Progress, figures: dict[str, Any]) -> str:
    """What this job came to: speed, where its time went, the best checkpoint."""
    epochs = progress.step / run.steps.order.steps_per_epoch
    lines = [
        (
            "trained",
            f"{counted(figures['steps'], 'step')} in {seconds(figures['seconds'])}: {figures['targets/s']:,.0f} targets/s, "
            f"{figures['tokens/s']:,.0f} tokens/s; {figures['peak MiB']:,.0f} MiB of memory",
        ),
        ("time", time_told(figures)),
    ]
    if figures["MFU"] is not None:
        speed = f"{figures['TFLOP/s a process']:.3g} TFLOP/s a process, {figures['MFU']:.1%} of the device's peak (MFU)"
        lines.append(("arithmetic", f"{speed}, counted as {figures['FLOPs of a batch']}"))
    jobs = jobs_of(run)
    if jobs > 1 and progress.lost_seconds:
        kept = f"{seconds(progress.seconds)} of training kept, {seconds(progress.lost_seconds)} spent on starts and lost steps"
        lines.append(("all starts", f"{jobs}: {kept} (goodput {progress.goodput:.1%})"))
    if progress.best_step:
        best = f"{run.config.evaluation.metric} {progress.best_value:.4f} on validation"
        lines.append(("best", f"{best}, step {progress.best_step:,} of {progress.step:,} ({_epochs(epochs)})"))
    return named(lines)


def jobs_of(run: Run) -> int:
    """How many jobs have worked on the run."""
    try:
        return run.run_dir.jobs.read_bytes().count(b"\n")
    except OSError:
        return 1


def time_told(figures: dict[str, Any]) -> str:
    """Where the time of a job went, parts that took none left out.

    >>> time_told({"data": 0.12, "evaluation": 0.25, "saving": 0.0, "slowest rank": 0, "its lag, ms a step": 0.0, "processes": 1})
    '63% training steps, 25% validation, 12% waiting for data'
    """
    parts = {"validation": figures["evaluation"], "waiting for data": figures["data"], "saving checkpoints": figures["saving"]}
    parts = {"training steps": max(0.0, 1 - sum(parts.values())), **parts}
    told = ", ".join(f"{part:.{0 if part >= 0.01 else 1}%} {name}" for name, part in parts.items() if part > NEVER)
    if figures["processes"] > 1 and figures["slowest rank"] is not None:
        told += f"; slowest: rank {figures['slowest rank']}, {figures['its lag, ms a step']:.1f} ms a step behind the median"
    return told


def seconds(count: float) -> str:
    """
    >>> seconds(14.2), seconds(200), seconds(5000)
    ('14 s', '3 min 20 s', '1 h 23 min')
    """
    whole = round(count)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _epochs(count: float) -> str:
    return f"{count:.3g} epoch{'' if count == 1 else 's'}"
