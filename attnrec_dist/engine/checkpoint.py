"""Checkpoints that are whole or absent: written aside, synced, renamed, marked last; older ones are pruned only afterwards.

A checkpoint is a directory of safetensors and JSON, so reading one never runs code. Its marker holds the size and checksum
of every file, the step, and the fingerprint of the data; one that is truncated, damaged or foreign is refused.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

from attnrec_dist.engine.average import AVERAGE
from attnrec_dist.engine.optim import load_optimizer_tensors, optimizer_tensors
from attnrec_dist.errors import StorageError
from attnrec_dist.run_dir import AVERAGE_FILE, CHECKPOINT_FORMAT, MARKER, OBJECTIVE_FILE, RunDir, checksum, write_whole
from attnrec_dist.settings import Section

ASIDE = ".aside"


class CheckpointConfig(Section):
    every_steps: int | None = Field(None, ge=1, description="steps between checkpoints; null: at every evaluation")
    keep: int = Field(2, ge=1, description="newest checkpoints kept; the best one is kept besides")


@dataclass
class Progress:
    """Where a run is: all that a resume needs besides weights and optimizer."""

    step: int = 0
    best_value: float | None = None
    best_step: int = 0
    evaluations_without_gain: int = 0
    owes_evaluation: bool = False  # this step's: a stop request came before it
    finished: str = ""  # why no further step is to be done; "" while there are some
    seconds: float = 0.0  # of training, over all attempts
    extra: dict[str, Any] = field(default_factory=dict)


def save(
    run_dir: RunDir, progress: Progress, objective: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> Path:
    """Writes the checkpoint of `progress.step`; called on rank 0. Raises StorageError and leaves nothing behind.

    One of the same step is stepped aside until the new one is whole, so the run is never without.
    """
    name = f"step-{progress.step:08d}"
    final = run_dir.checkpoints / name
    attempt = run_dir.checkpoints / f".{name}.{os.getpid()}.partial"
    try:
        _remove(attempt)
        attempt.mkdir(mode=0o700)
        save_file({key: value.contiguous() for key, value in objective.state_dict().items()}, attempt / OBJECTIVE_FILE)
        tensors = optimizer_tensors(objective, optimizer)
        averages = {name.removesuffix(f"/{AVERAGE}"): tensors.pop(name) for name in list(tensors) if name.endswith(f"/{AVERAGE}")}
        save_file(tensors, attempt / "optimizer.safetensors")
        if averages:
            save_file(averages, attempt / AVERAGE_FILE)
        (attempt / "progress.json").write_text(json.dumps(asdict(progress)))
        for file in attempt.iterdir():
            _sync(file)
        if (final / MARKER).is_file():
            final.rename(final.with_name(f".{name}{ASIDE}"))
        _remove(final)  # an unmarked leftover of a killed attempt
        attempt.rename(final)
        _sync(run_dir.checkpoints)
        files = {file.name: {"bytes": file.stat().st_size, "sha256": checksum(file)} for file in sorted(final.iterdir())}
        write_whole(
            final / MARKER, json.dumps({"format_version": CHECKPOINT_FORMAT, **identity, "step": progress.step, "files": files})
        )
    except OSError as error:
        _remove(attempt)
        raise StorageError.of(error, f"saving the checkpoint of step {progress.step}") from None
    except StorageError:
        _remove(final)  # unmarked: the marker is what could not be written
        raise
    except Exception as error:
        _remove(attempt)
        if type(error).__name__ == "SafetensorError":
            raise StorageError(
                f"saving the checkpoint of step {progress.step}: {error}; older checkpoints are untouched"
            ) from None
        raise
    finally:
        put_asides_back(run_dir)
    return final


def put_asides_back(run_dir: RunDir) -> None:
    """Puts back a checkpoint that was stepped aside for one that never became whole, and removes it where that did. Rank 0."""
    for aside in run_dir.checkpoints.glob(f".step-*{ASIDE}"):
        final = aside.with_name(aside.name.removeprefix(".").removesuffix(ASIDE))
        if (final / MARKER).is_file():
            _remove(aside)
        else:
            _remove(final)
            aside.rename(final)


def prune(run_dir: RunDir, keep: int, best_step: int) -> None:
    """Removes all but the newest `keep` checkpoints and the best one, and what killed attempts left behind."""
    complete = run_dir.complete_checkpoints()
    spared = set(complete[-keep:]) | {run_dir.checkpoints / f"step-{best_step:08d}"}
    for path in run_dir.checkpoints.iterdir():
        if path not in spared:
            (path / MARKER).unlink(missing_ok=True)  # first, so that a half-removed one is no checkpoint
            _remove(path)


def link(run_dir: RunDir, name: str, checkpoint: Path) -> None:
    """Points `best` or `last` at a checkpoint, in one move."""
    partial = run_dir.path / f".{name}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(checkpoint.relative_to(run_dir.path))
    partial.replace(run_dir.path / name)


def load(checkpoint: Path, objective: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restores weights and optimizer in place and returns where the run was. `run_dir.verify` comes first."""
    objective.load_state_dict(load_file(checkpoint / OBJECTIVE_FILE))
    load_optimizer_tensors(objective, optimizer, load_file(checkpoint / "optimizer.safetensors"))
    if (checkpoint / AVERAGE_FILE).is_file():
        averages = load_file(checkpoint / AVERAGE_FILE)
        load_optimizer_tensors(objective, optimizer, {f"{name}/{AVERAGE}": tensor for name, tensor in averages.items()})
    return Progress(**json.loads((checkpoint / "progress.json").read_text()))


def newest(run_dir: RunDir) -> str:
    """The name of the newest complete checkpoint, or "" where there is none."""
    complete = run_dir.complete_checkpoints()
    return complete[-1].name if complete else ""


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
