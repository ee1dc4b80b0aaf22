"""Training of our ranking models beside DeepCTR-Torch's of the same kind and size: examples/s, and the AUC that an epoch reaches.

    attnrec prepare configs/prepare/quickstart-ranking.yaml
    python benchmarks/ranking_throughput.py configs/quickstart-ranking.yaml --peers DIR [--rounds 3] [--core 0]

DIR/deepctr/venv holds a Python with deepctr-torch==0.3.0 on the same torch. Pairs: target attention (din) and its DIN, the
configuration's feature attention and its AutoInt, once with the numbers as it takes them (DenseFeat: beside the attention over
fields, not in it) and once in bins, as categories, so that all fields attend to each other as ours do. Ours once as it is and
once with `--train.compile true`, which the peer's fit() has no key for.

Equal: examples and features (a number as its standardised logarithm, 0 where it is missing; the newest events of the history,
padded for it), width, hidden widths, heads and blocks, PReLU, no dropout, batch, Adam, one epoch, one thread, one core. Not
equal: ours has vectors for numbers, for how long ago an event was, for what is missing, and the configuration's schedule; its
rate is constant (--peer_lr). Ours is `attnrec train`, the whole command; the peer's is fit() on numpy arrays. Timed are all steps
of the epoch but the first three, with loading and without evaluation, by the clock and by the process's CPU time, which other
jobs on the core disturb less; what ours compiles in the first step is in `warm-up s`. A round runs every row once, in a process
of its own, one after another; the tables show the medians of the rounds, and of the ratios within a round. AUC is that of the
validation part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shared import stamp, write_result
from train_throughput import RUNNERS, installed, interpreter

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import FieldSpec
from attnrec_dist.data.examples import Examples, ExampleSet
from attnrec_dist.settings import read_yaml

RATES = ("examples/s", "examples/CPU s")
COMPILED = ", compiled"
TARGET = {"name": "target_attention", "kind": "din", "width": 32, "unit_width": 36, "layers": [128, 64], "moment": False}


@dataclass(frozen=True)
class Row:
    name: str
    pair: str  # the row of ours that it stands beside; "" for ours
    peer: str = ""  # the peer's model
    history: bool = False  # the peer's columns: with the history
    bins: bool = False  # its numbers as categories


ROWS = [
    Row("attnrec target attention", ""),
    Row("attnrec target attention" + COMPILED, ""),
    Row("deepctr DIN", "attnrec target attention", "din", history=True),
    Row("attnrec feature attention", ""),
    Row("attnrec feature attention" + COMPILED, ""),
    Row("deepctr AutoInt", "attnrec feature attention", "autoint"),
    Row("deepctr AutoInt, numbers in bins", "attnrec feature attention", "autoint", bins=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of feature attention, such as configs/quickstart-ranking.yaml")
    parser.add_argument("--data", type=Path, help="default: the configuration's")
    parser.add_argument("--peers", type=Path, default=os.environ.get("PEERS_HOME"), help="default: the variable PEERS_HOME")
    parser.add_argument("--peer_lr", type=float, default=3e-3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=[], help="only the rows whose name holds one of these words")
    parser.add_argument("--core", type=int, help="the CPU core that all of them run on")
    parser.add_argument("--name", help="of the result (default: the configuration's, less -ranking)")
    asked = parser.parse_args()
    if asked.core is not None:
        os.sched_setaffinity(0, {asked.core})
    os.environ |= dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
    tree = read_yaml(asked.config)
    data = DataSet.open(asked.data or tree["data"]["path"])
    tree["data"]["path"] = str(data.path.absolute())
    if not interpreter("deepctr", asked.peers):
        sys.exit("--peers DIR: DIR/deepctr/venv/bin/python is not there (deepctr-torch==0.3.0)")
    measured = in_turns(tree, data, asked)
    medians = {name: {key: statistics.median(each[key] for each in of) for key in of[0]} for name, of in measured.items()}
    ratios = compared(measured)
    table(medians, ratios)
    keys = {**stamp(), "data": data.path.name, "fingerprint": data.manifest.fingerprint, "peer_lr": asked.peer_lr}
    keys |= {"installed": {peer: installed(peer, asked.peers) for peer in ("attnrec", "deepctr")}, "rounds": asked.rounds}
    result = {**keys, "rows": medians, "times as fast": ratios, "each round": measured}
    write_result(result, f"ranking-throughput-{asked.name or asked.config.stem.removesuffix('-ranking')}")


def in_turns(tree: dict[str, Any], data: DataSet, asked: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    rows = [row for row in ROWS if not asked.rows or any(word in row.name for word in asked.rows)]
    measured: dict[str, list[dict[str, float]]] = {row.name: [] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.rounds):
            tree["train"]["seed"] = turn
            for row in rows:
                place = Path(folder) / f"{row.name.replace(' ', '-')}-{turn}"
                one = theirs(row, tree, data, asked, place) if row.peer else ours(row, tree, data, place)
                measured[row.name].append(one)
                told = ", ".join(f"{key} {value:,.5g}" for key, value in one.items())
                print(f"round {turn + 1}: {row.name}: {told}", flush=True)
    return measured


def compared(measured: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """How many times as fast ours is as the peer's row, in each round: {"ours : theirs": {rate: [rounds]}}."""
    peers = [row for row in ROWS if row.peer and row.name in measured]
    pairs = [(row.pair + more, row.name) for row in peers for more in ("", COMPILED) if row.pair + more in measured]
    return {
        f"{ours} : {theirs}": {key: [a[key] / b[key] for a, b in zip(measured[ours], measured[theirs])] for key in RATES}
        for ours, theirs in pairs
    }


def model_of(row: Row, tree: dict[str, Any]) -> dict[str, Any]:
    of_pair = TARGET if "target" in row.name + row.pair else tree["model"]
    return {**of_pair, "dropout": 0.0}


def ours(row: Row, tree: dict[str, Any], data: DataSet, run_dir: Path) -> dict[str, float]:
    """One epoch by the command; what its runner and its metrics file tell."""
    config = run_dir.with_suffix(".yaml")
    config.write_text(json.dumps({**tree, "model": model_of(row, tree)}))  # JSON is YAML
    command = [sys.executable, str(RUNNERS / "run_attnrec_command.py"), "train", str(config), "--run_dir", str(run_dir)]
    command += ["--train.compile", str(row.name.endswith(COMPILED)).lower()]
    command += ["--train.max_epochs", "1", "--evaluation.every_epochs", "1", "--train.threads", "1", "--optimizer.name", "adam"]
    told = said(row, command, dict(os.environ))
    key = f"eval/{data.manifest.examples.tasks[0]}/auc"  # type: ignore[union-attr]
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {**told, "auc": next(line[key] for line in lines if key in line)}


def theirs(row: Row, tree: dict[str, Any], data: DataSet, asked: argparse.Namespace, place: Path) -> dict[str, float]:
    """One epoch of the peer; what its runner tells."""
    examples, model = place.with_suffix(".npz"), model_of(row, tree)
    sizes = write_examples(row, data, tree["data"]["max_length"], examples)
    layers = model.get("layers") or [model.get("head_width", 64)]
    shape = {"width": 32, "unit_width": 36, "heads": 2, "blocks": 1, **model, "layers": layers, "sizes": sizes}
    command = [interpreter("deepctr", asked.peers), str((RUNNERS / "run_deepctr.py").absolute()), str(examples)]
    command += [json.dumps(shape), "--model", row.peer, "--lr", str(asked.peer_lr)]
    command += ["--batch", str(tree["train"]["global_batch_size"]), "--seed", str(tree["train"]["seed"])]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    told = said(row, command, clean)
    examples.unlink()
    return told


def said(row: Row, command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """The line of JSON that a runner prints."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{row.name}: {done.stderr[-3000:]}")
    told: dict[str, float] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return told


def write_examples(row: Row, data: DataSet, max_length: int, path: Path) -> dict[str, int]:
    """Columns as DeepCTR-Torch takes them, float32, into one npz; number of categories of each categorical column."""
    num_items = data.manifest.num_items
    arrays: dict[str, np.ndarray] = {}
    sizes = {"candidate": num_items + 2}  # 0: padding; the last: cold
    for part in ("train", "validation"):
        found = ExampleSet.open(data, part)
        rows = found.take(np.arange(len(found)))
        columns: dict[str, np.ndarray] = {"candidate": rows.candidates.clip(max=num_items) + 1}
        for field in found.spec.fields:
            values = rows.fields[field.name]
            if field.kind == "categorical":
                columns[field.name], sizes[field.name] = values, int(field.size or 0)
            elif row.bins:
                bins = np.searchsorted(field.quantiles, values, side="right") + 1
                columns[field.name], sizes[field.name] = np.where(np.isnan(values), 0, bins), len(field.quantiles) + 2
            else:
                columns[field.name] = standardised(values, field)
        if row.history:
            columns["hist_candidate"], columns["history_length"] = histories(data, rows, max_length)
        columns["label"] = rows.labels[found.spec.tasks[0]]
        arrays |= {f"{part}.{name}": values.astype(np.float32) for name, values in columns.items()}
    np.savez(path, **arrays)
    return sizes


def standardised(values: np.ndarray, field: FieldSpec) -> np.ndarray:
    logs = np.sign(values) * np.log1p(np.abs(values)) if field.log1p else values
    return np.nan_to_num((logs - (field.mean or 0.0)) / (field.std or 1.0))


def histories(data: DataSet, rows: Examples, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(newest items before each example's moment, oldest first, + 1, padded with 0 on the right [B, L]; how many [B])."""
    batches = list(data.scan())
    items = np.append(np.concatenate([each.items for each in batches]), 0)  # the last is for padding to point at
    starts = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(each.offsets) for each in batches]))])
    lengths = rows.history.clip(max=max_length)
    first = starts[rows.users] + rows.history - lengths
    place = np.arange(max_length)
    inside = place < lengths[:, None]
    tokens = items[np.where(inside, first[:, None] + place, len(items) - 1)]
    return np.where(inside, tokens.clip(max=data.manifest.num_items) + 1, 0), lengths


def table(medians: dict[str, dict[str, float]], ratios: dict[str, dict[str, list[float]]]) -> None:
    print(f"\n{'':36} {'examples/s':>11} {'examples/CPU s':>15} {'AUC':>7} {'warm-up s':>10}")
    for name, row in medians.items():
        print(f"{name:36} {row['examples/s']:11,.0f} {row['examples/CPU s']:15,.0f} {row['auc']:7.4f} {row['warm-up s']:10.1f}")
    print(f"\n{'times as fast, in the median (lowest to highest)':72} {'by the clock':>22} {'by CPU time':>22}")
    for name, rates in ratios.items():
        told = [f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in rates.values()]
        print(f"{name:72} {told[0]:>22} {told[1]:>22}")


if __name__ == "__main__":
    main()
