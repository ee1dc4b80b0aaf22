"""What the attack on stored files starts from: data sets and runs of a tiny shop; the commands that read them, what each gives.

Everything is made once in a folder that is copied for each case. A command's outcome is a mapping of names to what must not
change in silence: losses, weights, figures, lists.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pyarrow.parquet as pq
from forked import Ended
from tiny_shop import PREPARE, write_shop

Outcome = dict[str, Any]
STEPS, MORE_STEPS = 6, 9
HISTORY = ["item-3", "item-1", "item-7"]
SHARDS = "output: {dir: data, events_per_shard: 400}"
EXAMPLES = """\
label: {kind: sampled, events: [buy], negatives: 2}
features:
  buys: {kind: count, of: user, events: [buy]}
  item_buys: {kind: count, of: item, events: [buy], within: 30d}
  days: {kind: recency, of: user, events: [buy]}
  weekday: {kind: weekday}
"""
RUN = """\
data: {path: DATA, max_length: 12, block_size: 8}
optimizer: {lr: 1e-2}
train: {max_steps: 6, global_batch_size: 16, micro_batch_tokens: 100, threads: 1}
checkpoint: {every_steps: 3, keep: 3}
evaluation: {every_steps: 3}
"""
SASREC = "name: sasrec, width: 8, heads: 1, blocks: 1, dropout: 0.1"
MODELS = {
    "mixture": f"model: {{name: mixture, experts: [sequence, copy, trend, graph], body: {{{SASREC}}}}}\n",
    "sasrec": f"model: {{{SASREC}}}\n",
    "ranking": "model: {name: feature_attention, width: 8}\n",
}
OF_RUN = {"mixture": "data", "sasrec": "data", "ranking": "ranked"}


class Store:
    """Made when it is first asked for."""

    def __init__(self, scratch: Path):
        self._path = scratch / "store"

    @property
    def path(self) -> Path:
        if not self._path.exists():
            build(self._path)
        return self._path


def build(folder: Path) -> None:
    """Raises RuntimeError where a command fails."""
    folder.mkdir()
    write_shop(folder)
    (folder / "prepare.yaml").write_text(PREPARE.replace("output: {dir: data}", SHARDS))
    (folder / "ranked.yaml").write_text(PREPARE + EXAMPLES)
    for model, text in MODELS.items():
        (folder / f"{model}.yaml").write_text(RUN.replace("DATA", OF_RUN[model]) + text)
    whole = ["--split.train", "0.85", "--split.validation", "0", "--split.test", "0.15"]
    commands: list[list[str]] = [
        ["prepare", "prepare.yaml"],
        ["prepare", "ranked.yaml", "--output", "ranked"],
        ["prepare", "prepare.yaml", "--output", "whole", *whole],
        ["prepare", "ranked.yaml", "--output", "ranked-whole", *whole],
        ["train", "sasrec.yaml", "--run_dir", "rival", "--train.seed", "1"],
        *(["train", f"{model}.yaml", "--run_dir", model] for model in MODELS),
    ]
    for command in commands:
        _must(command, folder)
    other = folder / "other-shop"
    other.mkdir()
    write_shop(other, seed=1)
    for name in ("prepare", "ranked"):
        shutil.copy(folder / f"{name}.yaml", other)
        _must(["prepare", f"{name}.yaml", "--output", "ranked" if name == "ranked" else "data"], other)


def _must(command: list[str], folder: Path) -> None:
    ended = forked.attnrec(command, folder)
    if ended.code != 0:
        raise RuntimeError(f"attnrec {' '.join(command)} fails on the undamaged store: {ended.err}")


@dataclass(frozen=True)
class Command:
    """`arguments` of attnrec, or a function; what it gives is read off the folder and what it printed. `writes`: where it may."""

    name: str
    run: list[str] | Callable[[], None]
    outcome: Callable[[Path, Ended], Outcome]
    writes: str = ""

    def ended_in(self, folder: Path, draws: bool = True) -> Ended:
        if callable(self.run):
            return forked.forked(self.run, folder)
        return forked.attnrec(self.run, folder, draws=draws)


def commands_of(run: str) -> list[Command]:
    """All that read a run and its data set."""
    data = OF_RUN[run]
    whole = "whole" if data == "data" else "ranked-whole"
    new = ["train", f"{run}.yaml", "--run_dir", "new", "--train.max_steps", "3"]
    goes_on = ["train", f"{run}.yaml", "--run_dir", run, "--train.max_steps", str(MORE_STEPS)]
    replay = ["replay", run, "--step", "5", "--output", "replayed.json"]
    found = [
        Command("inspect", ["inspect", data], _said),
        Command("train", new, lambda folder, _: _trained(folder / "new"), "new"),
        Command("resume", goes_on, lambda folder, _: _trained(folder / run), run),
        Command("evaluate", ["evaluate", run, "--output", "judged.json", "--per_view", "judged.parquet"], _judged),
        Command("replay", replay, _replayed),
        Command("replay --recompute", [*replay, "--recompute"], _replayed),
        Command("when", ["when", run, "--user", "u3"], _said),
        Command(
            "refit",
            ["refit", run, "--data", whole, "--output", "refitted"],
            lambda folder, _: _trained(folder / "refitted"),
            "refitted",
        ),
        Command("plot", ["plot", run], lambda folder, _: {"picture": _sha(folder / run / "curves.png")}),
    ]
    if run != "sasrec":  # which has no weights to look at
        found += [
            Command(
                "explain",
                ["explain", run, "--output", "explained", "--sample", "50"],
                lambda folder, _: {"page": _sha(folder / "explained" / "index.html")},
            )
        ]
    if run == "ranking":
        return found
    return [
        *found,
        Command("recommend", ["recommend", run, "--output", "lists.parquet"], _lists),
        Command("load", lambda: _ask(run), _said),
        Command(
            "compare",
            ["compare", run, "rival", "--output", "compared.json"],
            lambda folder, _: {"figures": _json(folder / "compared.json")},
        ),
    ]


def _ask(run: str) -> None:
    from attnrec_dist import load
    from attnrec_dist.errors import AttnrecError

    try:
        found = load(run).recommend(history=HISTORY, top_k=5)
    except AttnrecError as error:  # what a program that uses it would see
        raise SystemExit(f"error: {error}") from None
    for each in found:
        print(each.rank, each.item, each.title, each.score, each.source)


def _said(folder: Path, ended: Ended) -> Outcome:
    return {"said": ended.out}


def _judged(folder: Path, ended: Ended) -> Outcome:
    return {"figures": _json(folder / "judged.json"), "of each": pq.read_table(folder / "judged.parquet").to_pylist()}


def _replayed(folder: Path, ended: Ended) -> Outcome:
    found = _json(folder / "replayed.json")
    found.pop("recomputed_from", None)  # it says so where an earlier checkpoint serves; the loss must be the same
    return {"logged": found.pop("logged_loss"), "replayed": found}


def _lists(folder: Path, ended: Ended) -> Outcome:
    return {"lists": pq.read_table(folder / "lists.parquet").to_pylist()}


def _trained(run: Path) -> Outcome:
    """The newest checkpoint's weights, and each step's loss and measurements."""
    newest = max(path.parent for path in run.glob("checkpoints/step-*/complete.json"))
    curve = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        curve += [
            (values["step"], key, value) for key, value in sorted(values.items()) if key == "loss" or key.startswith("eval/")
        ]
    return {"step": newest.name, "weights": _sha(newest / "objective.safetensors"), "curve": curve}


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
