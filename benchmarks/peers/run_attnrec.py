"""attnrec_dist, as `attnrec train` runs it: the whole loop, loader, logging and all.

--variant: `own`: each query has its own negatives (else the step's queries share them); `attention dropout`: of attention
weights too, as the peers have it (else not); `bf16`: autocast.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import datasets  # noqa: F401  which the data set is read with, imported when one is opened
import protocol
import torch

from attnrec_dist.data.eval_cases import find_views
from attnrec_dist.engine import train as engine
from attnrec_dist.engine.config import RunConfig, load_run_config, run_config_class
from attnrec_dist.engine.preemption import StopRequest
from attnrec_dist.engine.run import Run, start, watchdog_of
from attnrec_dist.engine.saver import Saver
from attnrec_dist.evaluation.evaluate import evaluate
from attnrec_dist.run_dir import RunDir
from attnrec_dist.settings import build
from attnrec_dist.strategies.launch import join


def main() -> None:
    asked = protocol.arguments()
    torch.set_num_threads(1)
    clock = protocol.Clock()
    config = load_run_config(asked.config, {"data.path": asked.data}) if asked.config else settings(asked)
    with tempfile.TemporaryDirectory() as folder:
        run_dir, job = RunDir(Path(folder) / "run"), join(config.train.precision, config.train.timeout)
        run = start(config, run_dir, job, watchdog_of(config, run_dir, job.world), StopRequest())
        if asked.until:
            until(run, protocol.Curve(asked.until))
            return
        objective = watched(run, clock)
        clock.trained()
        more = {"users/s": users_a_second(objective, run)} if asked.evaluate else {}
    clock.report(**more)


def settings(asked) -> RunConfig:
    tree = {
        "data": {"path": asked.data, "basket": "none", "max_length": asked.max_length},
        "model": {"name": "sasrec", "dropout": 0.2, "attention_dropout": 0.2 if "dropout" in asked.variant else 0.0},
        "loss": {"name": "softmax"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "train": {"max_steps": asked.steps, "max_epochs": None, "global_batch_size": asked.batch},
        "evaluation": {"every_steps": None if asked.until else 2**30},
    }
    if asked.loss == "sampled":
        tree["loss"] = {"name": "sampled_softmax", "negatives": asked.negatives, "shared": "own" not in asked.variant}
    if "bf16" in asked.variant:
        tree["train"]["precision"] = "bf16"
    return build(run_config_class(tree), tree, "run_attnrec.py")


def until(run: Run, curve: protocol.Curve) -> None:
    """Trains as far as the curve asks, without checkpoints."""

    def validate(objective, progress, bar) -> bool:
        def measured() -> float:
            found = run.task.validate(objective.model, lambda: None)
            return found.values["next_basket/new/ndcg@10"]

        progress.owes_evaluation = False
        if curve.point(measured):
            progress.finished = "reached"
        return False

    run.validate = validate  # type: ignore[method-assign]
    Saver.save = lambda *_: None  # type: ignore[method-assign]
    engine.train(run)
    curve.report()


def watched(run: Run, clock: protocol.Clock) -> torch.nn.Module:
    """Trains, with the clock looking on at each line of the log; the trained model."""
    log, save, kept = Run.log, Saver.save, []

    def logged(self: Run, progress, loss, rate, batch, *more) -> None:
        log(self, progress, loss, rate, batch, *more)
        clock.step(batch.targets)

    Run.log = logged  # type: ignore[method-assign]
    Saver.save = lambda saver, progress: kept.append(saver.strategy)  # type: ignore[method-assign]
    run.validate = unmeasured  # type: ignore[method-assign]
    engine.train(run)
    Run.log, Saver.save = log, save  # type: ignore[method-assign]
    with kept[-1].whole(average=True) as objective:
        return objective.model


def unmeasured(objective, progress, bar) -> bool:
    progress.owes_evaluation = False
    return False


def users_a_second(model: torch.nn.Module, run: Run) -> float:
    """Everything between the trained model and the table of metrics."""
    started = time.perf_counter()
    views, _ = find_views(run.data, run.config.data, "test")
    values = evaluate(model, views, run.config.evaluation, run.world).flat()
    assert 0 <= values["next_basket/new/ndcg@10"] <= 1
    return len(views) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
