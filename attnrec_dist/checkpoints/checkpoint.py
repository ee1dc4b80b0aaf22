"""Checkpoints that are whole or absent: written aside, synced, renamed, marked last; older ones are pruned only afterwards.

A checkpoint is a directory of safetensors and JSON, so reading one never runs code. Its marker holds the size and checksum
of every file, the step, and the fingerprint of the data; one that is truncated, damaged or foreign is refused. Weights are whole
in it, whatever the strategy; the optimizer's state is as the strategy cuts it, and cut anew on load (optimizer_state.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attnrec_dist.checkpoints.optimizer_state import load_parts, part_name, part_tensors
from attnrec_dist.distributed import World
from attnrec_dist.errors import DamagedError, StorageError
from attnrec_dist.run_dir import (
    ASIDE,
    AVERAGE_FILE,
    CHECKPOINT_FORMAT,
    MARKER,
    OBJECTIVE_FILE,
    PROGRESS,
    RunDir,
    is_checkpoint,
    verify,
    write_whole,
)
from attnrec_dist.settings import Section
from attnrec_dist.storage.outputs import sync
from attnrec_dist.storage.stored import read_tree, sealed, sha256_of
from attnrec_dist.strategies.base import Strategy
from attnrec_dist.strategies.ema import AVERAGE

LEFTOVER = re.compile(r"\.step-\d+(\.\d+\.partial|\.aside)")  # of an attempt that was killed


class CheckpointConfig(Section):
    asynchronous: bool = Field(
        True, description="written by a thread while training goes on, from a copy in RAM of weights and optimizer"
    )
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
    lost_seconds: float = 0.0  # on starting, and on steps that were lost with an attempt
    extra: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)  # of fp16: the loss scale, and how many steps it has cost

    @property
    def goodput(self) -> float:
        """Share of the jobs' time that went into training that was kept."""
        return self.seconds / max(self.seconds + self.lost_seconds, 1e-9)


Content = tuple[str, dict[str, Tensor], dict[str, str] | None]  # file, its tensors, its header
Items = Iterable[Content | None]


def save(run_dir: RunDir, progress: Progress, strategy: Strategy, identity: dict[str, Any]) -> Path:
    """`write` of what the strategy holds now. A collective."""
    return write(run_dir, progress, contents(strategy), identity, strategy.world)


def contents(strategy: Strategy) -> Iterator[Content | None]:
    """What each rank has to write, as many items on all ranks; good until the next item is asked for. A collective.

    Rank 0 writes whole weights, and their average where there is one. Each rank writes the optimizer's state of its pieces; where
    nothing is cut, rank 0 does.
    """
    world = strategy.world
    has_average = any(AVERAGE in state for state in strategy.optimizer.state.values())
    for average, file in ((False, OBJECTIVE_FILE), (True, AVERAGE_FILE))[: 1 + has_average]:
        with strategy.whole(average) as objective:
            yield (file, objective.state_dict(), None) if world.is_main else None
    if strategy.sharded or world.is_main:
        tensors, header = part_tensors(strategy.pieces, strategy.optimizer, strategy.sharded)
        yield part_name(world.rank, world.size, strategy.sharded), tensors, header or None
    else:
        yield None


def copied(items: Items) -> list[Content | None]:
    """The same, in memory of its own, whatever the next steps do."""
    return [
        item and (item[0], {key: value.detach().to("cpu", copy=True) for key, value in item[1].items()}, item[2])
        for item in items
    ]


def write(run_dir: RunDir, progress: Progress, items: Items, identity: dict[str, Any], world: World) -> Path:
    """Writes the checkpoint of `progress.step`, each rank its part. A collective; raises StorageError on all ranks where one
    cannot write, and leaves nothing behind. One of the same step is stepped aside until the new one is whole, so the run is never
    without."""
    name = f"step-{progress.step:08d}"
    final = run_dir.checkpoints / name
    attempt = run_dir.checkpoints / world.on_main(lambda: f".{name}.{os.getpid()}.partial")
    doing = f"saving the checkpoint of step {progress.step}"

    def begin() -> None:
        _remove(attempt)
        attempt.mkdir(mode=0o700)

    try:
        world.on_main(told(doing, begin))
        for item in items:
            world.together(told(doing, partial(_write, attempt, item)))
        world.on_main(told(doing, lambda: _finish(attempt, final, progress, identity)))
    except Exception:
        if world.is_main:
            _remove(attempt)
            if not (final / MARKER).exists():
                _remove(final)
        raise
    finally:
        if world.is_main:
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


def _write(attempt: Path, item: Content | None) -> None:
    if item is not None:
        file, tensors, header = item
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, attempt / file, header)
        sync(attempt / file)


def _finish(attempt: Path, final: Path, progress: Progress, identity: dict[str, Any]) -> None:
    """What makes the files a checkpoint. Rank 0."""
    (attempt / PROGRESS).write_text(json.dumps(asdict(progress)))
    sync(attempt / PROGRESS)
    if (final / MARKER).is_file():
        final.rename(final.with_name(f".{final.name}{ASIDE}"))
    _remove(final)  # an unmarked leftover of a killed attempt
    attempt.rename(final)
    sync(final.parent)
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(final.iterdir())}
    marker = {"format_version": CHECKPOINT_FORMAT, **identity, "step": progress.step, "files": files}
    write_whole(final / MARKER, json.dumps(sealed(marker)))


def told(doing: str, function: Callable[[], None]) -> Callable[[], None]:
    """The function, its failures to write told as StorageError."""

    def told() -> None:
        try:
            function()
        except OSError as error:
            raise StorageError.of(error, doing) from None
        except Exception as error:
            if type(error).__name__ == "SafetensorError":
                raise StorageError(f"{doing}: {error}; older checkpoints are untouched") from None
            raise

    return told


def prune(run_dir: RunDir, keep: int, best_step: int) -> None:
    """Removes all but the newest `keep` checkpoints and the best one, and what killed attempts left; nobody else's files."""
    complete = run_dir.complete_checkpoints()
    spared = set(complete[-keep:]) | {run_dir.checkpoints / f"step-{best_step:08d}"}
    for path in run_dir.checkpoints.iterdir():
        if path not in spared and (is_checkpoint(path) or LEFTOVER.fullmatch(path.name)):
            (path / MARKER).unlink(missing_ok=True)  # first, so that a half-removed one is no checkpoint
            _remove(path)


def link(run_dir: RunDir, name: str, checkpoint: Path) -> None:
    """Points `best` or `last` at a checkpoint, in one move. What stands there and is no link is moved aside: it is not ours."""
    place, target = run_dir.path / name, checkpoint.relative_to(run_dir.path)
    if place.is_symlink() and Path(os.readlink(place)) == target:
        return
    if place.exists() and not place.is_symlink():
        place.rename(place.with_name(f"{name}.moved-aside-{time.time_ns()}"))
    partial = run_dir.path / f".{name}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(place)


def load_weights(checkpoint: Path, objective: nn.Module) -> None:
    """Restores the weights of a plain objective, before it is spread. `run_dir.verify` comes first."""
    objective.load_state_dict(load_file(checkpoint / OBJECTIVE_FILE))


def load(checkpoint: Path, strategy: Strategy) -> Progress:
    """Restores the optimizer of this rank's pieces and the loss scale, and returns where the run was."""
    load_parts(checkpoint, strategy.pieces, strategy.optimizer)
    progress = read_progress(checkpoint)
    if strategy.scaler is not None:
        strategy.scaler.load(progress.scaler)
    return progress


def read_progress(checkpoint: Path) -> Progress:
    """Raises DamagedError where it is no such thing; `run_dir.verify` comes first."""
    try:
        return TypeAdapter(Progress).validate_python(read_tree(checkpoint / PROGRESS))
    except (OSError, ValueError) as error:
        raise DamagedError(
            f"{checkpoint / PROGRESS}: cannot be read ({str(error).splitlines()[0]}); remove {checkpoint}"
        ) from None


def newest(run_dir: RunDir, identity: dict[str, Any]) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest checkpoint that is whole, checked, None where there is none; and damaged ones after it, and how. Writes nothing.

    Raises DamagedError where all are, CheckpointError where one is not of this run.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(run_dir.complete_checkpoints()):
        try:
            verify(path, identity)
            read_progress(path)
        except DamagedError as error:
            damaged.append((path, str(error).rpartition("; ")[0]))
            continue
        return path, damaged
    if damaged:
        raise DamagedError(
            f"{damaged[0][1]}; none is left that is whole: remove {run_dir.checkpoints} to begin anew, or choose "
            "another --run_dir"
        )
    return None, damaged


def pass_over(damaged: Iterable[Path]) -> None:
    """These are no checkpoints from now on. Rank 0."""
    for path in damaged:
        (path / MARKER).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
