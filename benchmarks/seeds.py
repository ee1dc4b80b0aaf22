"""Trains one configuration with several seeds, each stopped on validation, and tests each beside the five baselines.

    python benchmarks/seeds.py configs/quickstart-sasrec.yaml --seeds 0 1 2 [--name baskets] [--any.key VALUE ...]

Prints each seed's test figures, their mean and spread, and the paired difference to the best baseline: for every customer
the mean of the seeds against the baseline, 95% bootstrap interval. Writes benchmarks/results/DATE-NAME.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from shared import attnrec, stamp, write_result

from attnrec_dist.evaluation.report import sentence
from attnrec_dist.evaluation.significance import paired_difference

COLUMNS = [(protocol, policy) for protocol in ("next_basket", "period") for policy in ("all", "new")]
METRICS = ("recall@10", "ndcg@10", "capped_recall@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", help="of the result (default: the configuration's)")
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"), help="where the runs are kept")
    arguments, overrides = parser.parse_known_args()
    name = arguments.name or arguments.config.stem
    tables = {}
    for seed in arguments.seeds:
        run_dir = arguments.runs / f"{name}-{seed}"
        attnrec("train", arguments.config, "--run_dir", run_dir, "--train.seed", seed, *overrides)
        attnrec("evaluate", run_dir, "--per_view", run_dir / "test.parquet", "--output", run_dir / "test.json")
        tables[seed] = (json.loads((run_dir / "test.json").read_text()), pq.read_table(run_dir / "test.parquet"), run_dir)
    write_result(summary(tables) | stamp(), name)


def summary(tables: dict) -> dict:
    """{"model": {column: [value a seed]}, "baselines": {...}, "comparisons": {...}, "training": {...}}."""
    first = next(iter(tables.values()))[0]
    model = first["model"]
    rows = first["customers"]["values"]
    columns = [f"{protocol}/{policy}/{metric}" for protocol, policy in COLUMNS for metric in METRICS]
    of_seeds = {column: [tested["customers"]["values"][model][column] for tested, _, _ in tables.values()] for column in columns}
    print(f"{'':28}{'mean':>8}{'spread':>8}   " + "  ".join(f"{row:>13}" for row in rows if row != model))
    comparisons = {}
    for column in columns:
        values = np.array(of_seeds[column])
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        others = {row: rows[row][column] for row in rows if row != model}
        print(f"{column:28}{values.mean():8.4f}{spread:8.4f}   " + "  ".join(f"{value:13.4f}" for value in others.values()))
        best = max(others, key=lambda row: others[row])
        protocol, policy, metric = column.split("/")
        of_model = np.mean([picked(table, model, protocol, policy, metric) for _, table, _ in tables.values()], axis=0)
        difference = paired_difference(of_model, picked(first_table(tables), best, protocol, policy, metric))
        comparisons[column] = {
            "baseline": best,
            "sentence": sentence(model, best, difference),
            "interval": [difference.low, difference.high],
        }
    print()
    for column in columns:
        if column.endswith("ndcg@10"):
            print(f"{column}: {comparisons[column]['sentence']}")
    training = {}
    for seed, (_, _, run_dir) in tables.items():
        progress = json.loads((run_dir / "last" / "progress.json").read_text())
        training[seed] = {key: progress[key] for key in ("step", "best_step", "best_value", "seconds")}
        print(f"seed {seed}: best step {progress['best_step']} of {progress['step']}, {progress['seconds']:.0f} s of training")
    return {
        "model": {model: of_seeds},
        "baselines": {row: values for row, values in rows.items() if row != model},
        "comparisons": comparisons,
        "customers": first["customers"]["views"],
        "training": training,
    }


def first_table(tables: dict):
    return next(iter(tables.values()))[1]


def picked(table, recommender: str, protocol: str, policy: str, metric: str) -> np.ndarray:
    columns = {name: np.array(table[name].to_pylist(), dtype=object) for name in ("recommender", "protocol", "policy")}
    chosen = (columns["recommender"] == recommender) & (columns["protocol"] == protocol) & (columns["policy"] == policy)
    return table[metric].to_numpy(zero_copy_only=False)[chosen]


if __name__ == "__main__":
    main()
