"""`attnrec ...` with a notebook: what each rank trains is written down, and a rank can be made to stand still at a named place.

The package knows nothing of this. Settings come from the environment:
    RECORD_DIR   where the notebooks go, rank-R.jsonl: one line an executed step
    PAUSE_AT     PLACE:STEP:RANK, for example before_step:7:0 or marker:8:0: there the rank writes the file `paused` and waits
                 until it is gone, so that whoever watches can kill it exactly there; PLACES says which places there are
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnrec_dist.cli
from attnrec_dist.checkpoints import checkpoint
from attnrec_dist.engine import train as training
from attnrec_dist.evaluation import evaluate, predict
from attnrec_dist.evaluation import run as evaluate_run
from attnrec_dist.recommendation import run as recommend_run

RANK = int(os.environ.get("RANK", "0"))
RECORD = Path(os.environ["RECORD_DIR"])
# before_step: the batch is there, nothing computed     after_step: weights updated, nothing logged
# optimizer: weights written, optimizer not             marker: checkpoint renamed, its marker missing
# prune: checkpoint complete, older ones there          evaluation: validation begins      logging: half a line of metrics
# testing: `attnrec evaluate` has its model (step 0)     opening: the processes have met, no data yet (step 0)
# part: `attnrec recommend` has made the lists of part N, and not written them
PLACES = ("before_step", "after_step", "optimizer", "marker", "prune", "evaluation", "logging", "testing", "opening", "part")


def pause(place: str, step: int) -> None:
    """Stands still where PAUSE_AT says so."""
    wanted, _, rest = os.environ.get("PAUSE_AT", "").partition(":")
    if wanted == place and rest == f"{step}:{RANK}":
        (RECORD / "paused").touch()
        while (RECORD / "paused").exists():
            time.sleep(0.02)


def note(batch: Any) -> None:
    micro = batch.micro_batches
    line = {
        "step": batch.step,
        "samples": [each.sample_ids.tolist() for each in micro],
        "users": [each.users.tolist() for each in micro],
        "weight": float(sum(weights(each).double().sum() for each in micro)),
        "standin_weight": float(sum(standin_weight(each) for each in micro)),
        "targets": sum(int((weights(each) > 0).sum()) for each in micro),
    }
    with open(RECORD / f"rank-{RANK}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def weights(batch: Any) -> Any:
    """Of each target, or of each labelled example for the task that every example has."""
    return batch.target_weight if hasattr(batch, "target_weight") else batch.label_weights["label"]


def standin_weight(batch: Any) -> float:
    if not hasattr(batch, "target_weight"):
        return float(sum(each[batch.sample_ids < 0].sum() for each in batch.label_weights.values()))
    row = (batch.queries[batch.target_query].unsqueeze(1) >= batch.offsets[1:]).sum(1)
    return float(batch.target_weight[batch.sample_ids[row] < 0].sum())


def watched_step(original: Callable[..., Any]) -> Callable[..., Any]:
    def train_step(run: Any, strategy: Any, batch: Any) -> Any:
        pause("before_step", batch.step)
        note(batch)
        result = original(run, strategy, batch)
        pause("after_step", batch.step)
        return result

    return train_step


def watch_checkpoints() -> None:
    write, save_file, checksum, prune = checkpoint.write, checkpoint.save_file, checkpoint.sha256_of, checkpoint.prune
    current = {"step": 0}

    def watched_write(run_dir: Any, progress: Any, *rest: Any) -> Any:
        current["step"] = progress.step
        return write(run_dir, progress, *rest)

    def watched_save_file(tensors: Any, path: Path, header: Any) -> None:
        if path.name.startswith("optimizer"):
            pause("optimizer", current["step"])
        save_file(tensors, path, header)

    def watched_checksum(path: Path) -> str:
        pause("marker", current["step"])
        return checksum(path)

    def watched_prune(*arguments: Any) -> None:
        pause("prune", current["step"])
        prune(*arguments)

    checkpoint.write, checkpoint.save_file = watched_write, watched_save_file
    checkpoint.sha256_of, checkpoint.prune = watched_checksum, watched_prune


def watch_run() -> None:
    from attnrec_dist.engine import run as running

    validate, flush, open_data = running.Run.validate, running.Metrics.flush, running.open_data

    def watched_open_data(*arguments: Any) -> Any:
        pause("opening", 0)
        return open_data(*arguments)

    def watched_validate(self: Any, objective: Any, progress: Any, bar: Any) -> bool:
        pause("evaluation", progress.step)
        return validate(self, objective, progress, bar)

    def watched_flush(self: Any) -> None:
        flush(self)
        if self.active and self.path.exists():
            step = json.loads(self.path.read_text().splitlines()[-1])["step"]
            if os.environ.get("PAUSE_AT", "") == f"logging:{step}:{RANK}":
                with open(self.path, "a") as file:
                    file.write('{"step": 9999, "lo')
                pause("logging", step)

    running.Run.validate, running.Metrics.flush, running.open_data = watched_validate, watched_flush, watched_open_data


def watch_testing() -> None:
    tested = evaluate_run.tested_next_item

    def watched(*arguments: Any) -> Any:
        pause("testing", 0)
        return tested(*arguments)

    evaluate_run.tested_next_item = watched


def watch_parts() -> None:
    write = recommend_run.Staging.write

    def watched(self: Any, number: int, *rest: Any) -> None:
        pause("part", number)
        write(self, number, *rest)

    recommend_run.Staging.write = watched


if __name__ == "__main__":
    RECORD.mkdir(parents=True, exist_ok=True)
    training.train_step = watched_step(training.train_step)
    watch_checkpoints()
    watch_run()
    watch_testing()
    watch_parts()
    recommend_run.PART = 30  # customers: likewise
    evaluate.MOST_VIEWS = predict.EXAMPLES_AT_ONCE = 32  # so that a small log makes several micro-batches: some for every rank
    attnrec_dist.cli.leave(attnrec_dist.cli.main(sys.argv[1:]))
