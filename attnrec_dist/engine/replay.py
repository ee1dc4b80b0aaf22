"""`attnrec when` and `attnrec replay`: which steps trained on a customer, what a step trained on, and its loss computed again.

Nothing was recorded for it: the order is arithmetic, and it has an inverse. Steps are numbered as in metrics.jsonl, from 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnrec_dist.batch import Batch
from attnrec_dist.checkpoints.checkpoint import load
from attnrec_dist.data.loader import Share, Steps, batches
from attnrec_dist.data.order import slots_of
from attnrec_dist.distributed import World
from attnrec_dist.engine.config import RunConfig
from attnrec_dist.engine.objective import build
from attnrec_dist.engine.preemption import StopRequest
from attnrec_dist.engine.run import Run, assemble, watchdog_of
from attnrec_dist.engine.train import update
from attnrec_dist.errors import ConfigError
from attnrec_dist.monitoring.metrics_log import metric_lines
from attnrec_dist.run_dir import RunDir, step_of, verify, write_whole
from attnrec_dist.strategies.launch import Job, join
from attnrec_dist.strategies.precision import Precision

EVERYTHING = 2**62  # tokens of a micro-batch: the whole global batch in one


def reopen(run_dir: RunDir, config: RunConfig, launched: bool = False) -> Run:
    """A run's samples, their order and, where it is `launched`, the device it computes on; nothing of it is written.

    Raises UserError, also where the data set is not the one that the run was trained on.
    """
    train = config.train
    plain = Job(World(), Precision(train.precision, torch.device("cpu")))
    job = join(train.precision, train.timeout, train.deterministic) if launched else plain
    run = assemble(config, run_dir, job, watchdog_of(config, run_dir, job.world), StopRequest())
    run.replayed = True
    return run


def tell_user(past: Run, user: str) -> None:
    """Prints the steps that trained on a customer. Raises ConfigError."""
    done = max([int(past.run_dir.status()["step"]), *map(step_of, past.run_dir.complete_checkpoints())])
    found = when(past, user, done)
    print(f"{user}: in {len({step for step, _, _ in found})} of {done} steps")
    for step, epoch, sample in found:
        print(f"step {step}  epoch {epoch}  sample {sample}")


def when(past: Run, user: str, done: int) -> list[tuple[int, int, int]]:
    """(step, epoch, sample) of all that the first `done` steps trained of a customer, in order. Raises ConfigError."""
    index = int(past.data.user_index([user])[0])
    if index < 0:
        raise ConfigError(f"--user {user}: nobody of this name is in {past.data.path}")
    ids, order = past.steps.samples.of_user(index), past.steps.order
    found = []
    for epoch in range(-(-done // order.steps_per_epoch)):
        steps = 1 + epoch * order.steps_per_epoch + slots_of(order, epoch, ids) // order.global_batch
        found += [(int(step), epoch + 1, int(sample)) for step, sample in zip(steps, ids) if step <= done]
    return sorted(found)


def tell_step(past: Run, step: int, output: Path | None, again: bool) -> None:
    """Prints what a step trained on, and writes it to a JSON file where one is named; `again` computes it. Raises ConfigError."""
    found = replay(past, step)
    loss = "not done yet" if found["logged_loss"] is None else f"loss {found['logged_loss']:.6g}"
    print(f"step {found['step']}, epoch {found['epoch']}: {found['targets']} targets, {found['tokens']} tokens, {loss}")
    print(f"batch sha256 {found['sha256']}")
    for each in found["samples"]:
        print(f"sample {each['sample']}  user {each['user']}")
    if output:
        write_whole(output, json.dumps(found, indent=1) + "\n")
    if again:
        found |= recompute(past, step)
        print(f"recomputed: loss {found['recomputed_loss']:.6g}, from {found['recomputed_from']}{apart(found)}")
        if output:
            write_whole(output, json.dumps(found, indent=1) + "\n")


def replay(past: Run, step: int) -> dict[str, Any]:
    """What a step trained on, or would: its samples with their customers, and a checksum of the packed batch, which is the same
    on any machine. Raises ConfigError."""
    if not 1 <= step <= past.max_steps:
        raise ConfigError(f"--step {step}: the steps of this run are 1 to {past.max_steps}")
    steps = Steps(past.task.samples, past.config.data, past.steps.order, Share(0, 1, EVERYTHING))
    (batch,) = (found := steps[step - 1]).micro_batches
    sample, user = np.asarray(batch.sample_ids), np.asarray(batch.users)
    real = sample >= 0
    names = past.data.users()["id"].take(user[real]).to_pylist()
    return {
        "step": step,
        "epoch": 1 + (step - 1) // steps.order.steps_per_epoch,
        "targets": found.targets,
        "tokens": found.tokens,
        "logged_loss": logged_loss(past.run_dir, step),
        "sha256": digest(batch),
        "samples": [{"sample": int(each), "user": str(name)} for each, name in zip(sample[real], names)],
    }


def recompute(past: Run, step: int) -> dict[str, Any]:
    """The step's loss, computed again on this process, from the newest checkpoint before it or else from the start. Raises
    FaultError, as the training did, where it is not finite."""
    before = [each for each in past.run_dir.complete_checkpoints() if step_of(each) < step]
    found = before[-1] if before else None
    if found:
        verify(found, past.identity)
    strategy = build(past, found)
    first = load(found, strategy).step if found else 0
    for batch in batches(past.steps, first, step, past.world.device):
        loss, _, _ = update(past, strategy, batch)
    return {"recomputed_loss": loss.item(), "recomputed_from": found.name if found else "initial weights"}


def apart(found: dict[str, Any]) -> str:
    """How far the recomputed loss is from the logged one, and what may be why."""
    if found["logged_loss"] is None:
        return ""
    difference = abs(found["recomputed_loss"] - found["logged_loss"])
    if not difference:
        return ": the same to the last bit"
    return f": {difference:.2g} apart (other processes draw other dropout, other devices round otherwise, keys may have changed)"


def logged_loss(run_dir: RunDir, step: int) -> float | None:
    lines = (found for _, found in metric_lines(run_dir.metrics) if found)
    return next((float(found["loss"]) for found in lines if found["step"] == step and "loss" in found), None)


def digest(batch: Batch) -> str:
    """Of every array of a batch, by name."""
    found = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                add(f"{name}.{key}", value[key])
        elif isinstance(value, torch.Tensor | np.ndarray):
            array = np.ascontiguousarray(np.asarray(value))
            found.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
        elif value is not None:
            found.update(f"{name} {value}\n".encode())

    for field in dataclasses.fields(batch):
        add(field.name, getattr(batch, field.name))
    return found.hexdigest()
