"""When a checkpoint is due: written at once, or behind the training's back from a copy, over a group of processes of its own."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from attnrec_dist.checkpoints import checkpoint
from attnrec_dist.checkpoints.checkpoint import Progress
from attnrec_dist.distributed import World
from attnrec_dist.engine.run import Run
from attnrec_dist.strategies.base import Strategy


class Saver(AbstractContextManager["Saver"]):
    """Made and used by all ranks together. Whatever fails in the background is raised by the next call, on all ranks alike."""

    def __init__(self, run: Run, strategy: Strategy):
        self.run, self.strategy = run, strategy
        self.behind = run.world.of_its_own(run.config.train.timeout) if run.config.checkpoint.asynchronous else None
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def __exit__(self, *exc: object) -> None:
        """An error of the training does not cut a checkpoint off."""
        if self._thread is not None:
            self._thread.join()
        if self._failed is not None:  # beside the error that ends the training
            self.run.say(f"attnrec: {self._failed}")
            self._failed = None

    def save(self, progress: Progress) -> None:
        """A checkpoint of this step, and the links to the last and the best one. Raises StorageError."""
        self.finish()
        self.run.metrics.flush()
        if self.strategy.scaler is not None:
            progress.scaler = self.strategy.scaler.state()
        if self.behind is None:
            self._write(progress, checkpoint.contents(self.strategy), self.run.world)
            return
        held = checkpoint.copied(checkpoint.contents(self.strategy))
        progress = dataclasses.replace(progress, extra=dict(progress.extra), scaler=dict(progress.scaler))
        self._thread = threading.Thread(
            target=self._kept, args=(partial(self._write, progress, held, self.behind),), name="checkpoint", daemon=True
        )
        self._thread.start()

    def finish(self) -> None:
        """Waits for what is being written. Raises StorageError."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def _kept(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._failed = error

    def _write(self, progress: Progress, items: checkpoint.Items, world: World) -> None:
        run = self.run
        world.on_main(run.metrics.sync)  # a checkpoint counts on the lines up to its step
        path = checkpoint.write(run.run_dir, progress, items, run.identity, world)

        def settled() -> None:
            settle(run, progress, path)
            run.run_dir.write_status("running", progress.step)

        world.on_main(checkpoint.told(f"the links to the checkpoint of step {progress.step}", settled))
        run.watchdog.moved()


def settle(run: Run, progress: Progress, path: Path) -> None:
    """What follows a whole checkpoint: the links to the last and the best one, and older ones removed. Rank 0."""
    checkpoint.link(run.run_dir, "last", path)
    best = run.run_dir.checkpoints / f"step-{progress.best_step:08d}"
    checkpoint.link(run.run_dir, "best", best if best in run.run_dir.complete_checkpoints() else path)
    checkpoint.prune(run.run_dir, run.config.checkpoint.keep, progress.best_step)
