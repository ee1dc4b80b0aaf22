"""What each expert of a mixture brings: every one left out in turn, and each alone where the model allows it.

    python benchmarks/ablation.py configs/retailrocket-mixture.yaml [--seeds 0 1 2] [--any.key VALUE ...]
    python benchmarks/ablation.py configs/diginetica-mixture.yaml --columns next_basket/all/hr@20 next_basket/all/mrr@20
    python benchmarks/ablation.py CONFIG.yaml --part test --kinds all "sequence alone" sequence+copy

Figures are of the validation part, on which experts are chosen, unless --part says test. For every customer the mean of the
seeds is compared with that of the whole mixture: 95% interval. Runs are kept and reused; a data set that is missing is prepared.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from beat_the_shop import Task, make_task, spread, train, values_of
from shared import stamp, write_result
from tuned_baselines import COLUMNS, Columns

from attnrec_dist.data.eval_cases import Part
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.errors import AttnrecError, ConfigError
from attnrec_dist.evaluation.evaluate import MeasuringConfig
from attnrec_dist.evaluation.metrics import mean
from attnrec_dist.evaluation.significance import paired_difference
from attnrec_dist.settings import parse_overrides, take_overrides

ALL = "all"
NDCG = [f"{column}/ndcg@10" for column in COLUMNS]


def main() -> None:
    overrides, rest = take_overrides(sys.argv[1:])
    arguments = make_parser().parse_args(rest)
    try:
        task = make_task(arguments, overrides)
        result = ablate(task, arguments.seeds, arguments.part, arguments.columns, arguments.kinds)
    except AttnrecError as error:
        sys.exit(f"ablation: error: {error}")
    write_result(stamp() | result, f"{task.name}-ablation" + ("" if arguments.part == "validation" else f"-{arguments.part}"))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of a run with model.experts; --any.key VALUE overrides a key of it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=["validation", "test"], default="validation", help="whose figures are told")
    parser.add_argument("--columns", nargs="+", default=NDCG, help="protocol/policy/metric of each column")
    parser.add_argument("--kinds", nargs="+", help=f"only these: {ALL}, 'without trend', 'trend alone', sequence+copy, ...")
    parser.add_argument("--name", help="of the runs and the result (default: the configuration's)")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="where the runs are kept")
    parser.add_argument("--prepare", type=Path, help="how a missing data set is made (default: configs/prepare/DATA.yaml)")
    parser.add_argument("--input", nargs="+", default=[], help="the raw files, for preparing")
    parser.set_defaults(no_refit=True)
    return parser


def ablate(task: Task, seeds: list[int], part: Part, columns: list[str], only: list[str] | None = None) -> dict[str, Any]:
    """Trains and measures each kind; prints a line a kind. Raises ConfigError when a column or a kind is unknown."""
    kinds = chosen_kinds(task.config.model.experts, only)
    measuring = MeasuringConfig(metrics=list(dict.fromkeys(column.rpartition("/")[2] for column in columns)))
    print(f"{part:20}" + "".join(f"{column:>28}" for column in columns) + f"{'epochs':>8}{'seconds':>9}", flush=True)
    rows: dict[str, Any] = {}
    whole: Columns = {}
    customers: dict[str, int] = {}
    for kind, experts in kinds.items():
        keys = ("--model.experts", json.dumps(experts))
        try:
            load_run_config(task.yaml, parse_overrides([*task.overrides, *keys]))
        except ConfigError:
            print(f"{kind:20}  the model refuses it", flush=True)
            continue
        values, training = trained(task, kind, seeds, () if kind == ALL else keys, part, measuring)
        customers = {column: int((~np.isnan(values[0][column])).sum()) for column in columns}
        if kind == ALL:
            whole = {column: np.mean([each[column] for each in values], axis=0) for column in columns}
        rows[kind] = {column: figures([each[column] for each in values], whole.get(column)) for column in columns} | training
        cells = "".join(f"{cell(rows[kind][column]):>28}" for column in columns)
        print(f"{kind:20}{cells}{training['epochs']:>8.1f}{training['seconds']:>9.1f}", flush=True)
    if customers:
        print(f"{'customers':20}" + "".join(f"{customers[column]:>28,}" for column in columns))
    return {"data": task.data.manifest.fingerprint, "part": part, "seeds": seeds, "customers": customers, "ablation": rows}


def kinds_of(experts: list[str]) -> dict[str, list[str]]:
    """{kind: its experts}; with two experts, what is without the one is the other alone."""
    kinds = {ALL: experts}
    if len(experts) > 2:
        kinds |= {f"without {name}": [other for other in experts if other != name] for name in experts}
    return kinds | {f"{name} alone": [name] for name in experts if len(experts) > 1}


def chosen_kinds(experts: list[str], only: list[str] | None) -> dict[str, list[str]]:
    """All kinds, or those asked for in their order; a+b is of these experts alone. Raises ConfigError for an unknown one."""
    known = kinds_of(experts)
    if only is None:
        return known
    sets = {kind: kind.split("+") for kind in only if "+" in kind and set(kind.split("+")) <= set(experts)}
    if unknown := [kind for kind in only if kind not in known | sets]:
        raise ConfigError(f"--kinds: there is no {', '.join(map(repr, unknown))}; known: {', '.join(known)}, or a+b")
    return {kind: (known | sets)[kind] for kind in only}


def trained(
    task: Task, kind: str, seeds: list[int], keys: tuple[str, ...], part: Part, measuring: MeasuringConfig
) -> tuple[list[Columns], dict[str, Any]]:
    """The customers' values of each seed at the epoch that validation chose, and what the trainings took, on average."""
    values, trainings = [], []
    for seed in seeds:
        middle = "" if kind == ALL else f"-{kind.replace(' ', '-')}"
        run = task.runs / f"{task.name}{middle}-{seed}"
        trainings.append(train(task, run, seed, keys))
        values.append(values_of(run, task.data, "best", part, measuring))
    peaks = [each["peak_mb"] for each in trainings if each["peak_mb"]]
    means = {key: float(np.mean([each[key] for each in trainings])) for key in ("validation", "epochs", "seconds")}
    return values, means | {"peak_mb": max(peaks, default=None)}


def figures(values: list[np.ndarray], whole: np.ndarray | None) -> dict[str, Any]:
    """Mean and spread over the seeds; the difference to the whole mixture where that is known."""
    means = np.array([mean(each) for each in values])
    result: dict[str, Any] = {"mean": float(means.mean()), "sd": spread(means), "seeds": means.tolist()}
    if whole is not None:
        difference = paired_difference(np.mean(values, axis=0), whole)
        result |= {"difference": difference.difference, "interval": [difference.low, difference.high]}
    return result


def cell(figures: dict[str, Any]) -> str:
    """Mean, spread, and the interval of the difference where there is one: .558 ±.001 (-.012,+.003)."""
    interval = "({:+.3f},{:+.3f})".format(*figures["interval"]) if "interval" in figures else ""
    return f"{figures['mean']:.4f} ±{figures['sd']:.4f} {interval:15}"


if __name__ == "__main__":
    main()
