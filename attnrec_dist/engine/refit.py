"""`attnrec refit`: a run's configuration once more, for the length that validation chose, on data that holds nothing back.

Validation tells when to stop, and its events teach nothing. Whoever puts a model to use trains it again with them.
"""

from __future__ import annotations

import statistics
from typing import Any

from attnrec_dist.data.manifest import read_manifest
from attnrec_dist.errors import DataError, RunDirError
from attnrec_dist.monitoring.metrics_log import metric_lines
from attnrec_dist.run_dir import RunDir, read_marker, refuse_other_keys, step_of
from attnrec_dist.settings import read_yaml

ROUNDED = 1e-3  # the epochs in metrics.jsonl have four decimals


def refit_overrides(run: RunDir, data: Any) -> dict[str, Any]:
    """What to change in the run's configuration: the data set, and the length.

    As many epochs as the best checkpoint had, which are more steps where there is more data; a falling learning rate falls
    within them. Raises RunDirError when the run is not done, DataError when the data set still has a validation part.
    """
    status = run.status()
    if status["state"] != "done":
        raise RunDirError(f"{run.path}: is {status['state']}, so its length is not chosen yet; finish it with attnrec train")
    best = run.checkpoint("best")
    refuse_other_keys(best, read_marker(best), read_yaml(run.config))
    manifest = read_manifest(data)
    held_back = manifest.counts.validation_events
    if held_back and manifest.split.is_by_user:
        raise DataError(
            f"{data}: {manifest.split.kind} keeps events of every customer for validation, so there is nothing to refit on; use "
            f"{run.path} as it is, or prepare a log that has times with split.kind time"
        )
    if held_back:
        raise DataError(
            f"{data}: keeps {held_back:,} events for validation, which a refit has no use for; prepare it again elsewhere, "
            "for example with --split.train 0.9 --split.validation 0 --split.test 0.1 --output DIR"
        )
    return {"data.path": str(data), "train.max_epochs": chosen_epochs(run), "train.max_steps": None, "evaluation.patience": None}


def chosen_epochs(run: RunDir) -> float:
    """The length of the run's best checkpoint. Raises RunDirError."""
    step = step_of(run.checkpoint("best"))
    epochs = {values["step"]: float(values["epoch"]) for _, values in metric_lines(run.metrics) if values and "epoch" in values}
    if step not in epochs:
        raise RunDirError(f"{run.path}: does not tell how long its best checkpoint was trained; train it anew")
    by_others = step * statistics.median(epoch / of for of, epoch in epochs.items() if of > 0)
    if abs(epochs[step] - by_others) > 0.01 * by_others + ROUNDED:
        raise RunDirError(
            f"{run.metrics}: damaged: step {step} has epoch {epochs[step]:g}, by the other steps it was {by_others:.4g}; put "
            "that right in the file"
        )
    return epochs[step]
