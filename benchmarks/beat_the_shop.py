"""Does a model beat what a shop does by hand? Several seeds against every baseline at its best and two published methods.

    python benchmarks/beat_the_shop.py configs/quickstart-mixture.yaml [--seeds 0 1 2 3 4] [--any.key VALUE ...]
    python benchmarks/beat_the_shop.py configs/quickstart-mixture.yaml --baselines_only

The model is tested twice: *as trained*, at the epoch that the validation part chose, and *refit*: the same configuration for as
many epochs on the same log with the validation slice in training, tested on the same events after the same cut. The baselines
know everything before that cut in both. Data sets that are missing are prepared (--prepare, --input). Baselines are tuned on
validation, each column by itself; what was chosen is kept in benchmarks/results/tuned-NAME.json. Runs are kept and reused.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shared import RESULTS, Cost, attnrec, stamp, write_result
from tuned_baselines import COLUMNS, DEFAULT, EVALUATION, METRICS, Columns, Contenders, tuned

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import Part, find_views
from attnrec_dist.data.order import Order
from attnrec_dist.data.windows import build_index, open_index
from attnrec_dist.distributed import World
from attnrec_dist.engine.config import RunConfig, load_run_config
from attnrec_dist.errors import AttnrecError, ConfigError
from attnrec_dist.evaluation.evaluate import MeasuringConfig, evaluate
from attnrec_dist.evaluation.metrics import mean
from attnrec_dist.evaluation.report import sentence
from attnrec_dist.evaluation.significance import paired_difference
from attnrec_dist.inference.load import load_model
from attnrec_dist.settings import parse_overrides, take_overrides

RIVALS = {"the best baseline tuned on validation": False, "the best of all, untuned defaults too": True}
CELLS = [f"{column}/{metric}" for column in COLUMNS for metric in METRICS]


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and where it is kept."""

    yaml: Path
    overrides: list[str]
    config: RunConfig
    data: DataSet
    refit: DataSet | None  # the same log, the validation slice in training
    runs: Path
    name: str


@dataclass
class Board:
    """One kind of training beside its baselines: the customers' values, in the same order for all."""

    kind: str
    customers: dict[str, int]  # {column: those with a relevant item}
    baselines: dict[str, Columns]
    seeds: dict[int, Columns] = dataclasses.field(default_factory=dict)


def main() -> None:
    overrides, rest = take_overrides(sys.argv[1:])
    arguments = make_parser().parse_args(rest)
    try:
        task = make_task(arguments, overrides)
        seeds = [] if arguments.baselines_only else arguments.seeds
        result, suffix = beat(task, seeds), "baselines" if arguments.baselines_only else "beat"
    except AttnrecError as error:
        sys.exit(f"beat_the_shop: error: {error}")
    write_result(stamp() | result, f"{task.name}-{suffix}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of a run; --any.key VALUE overrides a key of it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--name", help="of the runs and the result (default: the configuration's)")
    parser.add_argument("--runs", type=Path, default=Path("runs/beat"), help="where the runs are kept")
    parser.add_argument("--prepare", type=Path, help="how missing data sets are made (default: configs/prepare/DATA.yaml)")
    parser.add_argument("--input", nargs="+", default=[], help="the raw files, for preparing")
    parser.add_argument("--no_refit", action="store_true", help="test the models as trained only")
    parser.add_argument("--baselines_only", action="store_true", help="no model: tune and test the others")
    return parser


def make_task(arguments: argparse.Namespace, overrides: list[str]) -> Task:
    """Reads the configuration, prepares what is missing. Raises ConfigError, DataError."""
    config = load_run_config(arguments.config, parse_overrides(overrides))
    path = Path(config.data.path)
    recipe = arguments.prepare or Path("configs/prepare") / f"{path.name}.yaml"
    source = ["--input", *arguments.input] if arguments.input else []
    refit_path = path.with_name(f"{path.name}-refit")
    without_validation = ["--split.train", 0.9, "--split.validation", 0, "--split.test", 0.1]
    with_refit = not arguments.no_refit
    for folder, split in ((path, []), *([(refit_path, without_validation)] if with_refit else [])):
        if not folder.exists():
            print(f"preparing {folder} by {recipe}", flush=True)
            attnrec("prepare", recipe, "--output", folder, *source, *split)
    data = DataSet.open(path, verify=False)
    refit = DataSet.open(refit_path, verify=False) if with_refit else None
    if refit:
        check_refit(data, refit)
    return Task(
        yaml=arguments.config,
        overrides=overrides,
        config=config,
        data=data,
        refit=refit,
        runs=arguments.runs,
        name=arguments.name or arguments.config.stem,
    )


def check_refit(data: DataSet, refit: DataSet) -> None:
    """The two data sets must ask the same: one cut before the test part, the same events after it."""
    of_data, of_refit = data.manifest, refit.manifest
    same = of_data.split.valid_end == of_refit.split.valid_end and of_data.counts.test_events == of_refit.counts.test_events
    if not same or of_refit.counts.validation_events:
        raise ConfigError(
            f"{refit.path}: test part from {of_refit.split.valid_end} with {of_refit.counts.test_events:,} events, "
            f"{of_refit.counts.validation_events:,} of validation; {data.path} has its test part from {of_data.split.valid_end} "
            f"with {of_data.counts.test_events:,}; remove the directory, or use --no_refit"
        )


def beat(task: Task, seeds: list[int]) -> dict[str, Any]:
    """Tunes and tests the baselines, trains and tests the seeds, prints the table and the differences."""
    chosen = tuned(find_views(task.data, task.config.data, "validation")[0], RESULTS / f"tuned-{task.data.path.name}.json")
    boards = {"as trained": board_of("as trained", task, task.data, chosen)}
    if task.refit:
        boards["refit"] = board_of("refit", task, task.refit, chosen)
    training: dict[str, dict] = {}
    for seed in seeds:
        run = task.runs / f"{task.name}-{seed}"
        training[str(seed)] = train(task, run, seed)
        boards["as trained"].seeds[seed] = values_of(run, task.data, "best")
        if task.refit:
            again = task.runs / f"{task.name}-{seed}-refit"
            refit(task, run, again)
            boards["refit"].seeds[seed] = values_of(again, task.refit, "best")
        print(f"seed {seed}: {training[str(seed)]}", flush=True)
    print("\n" + "\n".join(table(list(boards.values()), task.config.model.name)))
    comparisons = {}
    for board in boards.values():
        for rivals, defaults in RIVALS.items():
            if seeds:
                comparisons[f"{board.kind}, {rivals}"] = tell(board, task.config.model.name, rivals, defaults)
    return {
        "data": task.data.manifest.fingerprint,
        "tuned": chosen,
        "training": training,
        "boards": {kind: figures(board) for kind, board in boards.items()},
        "comparisons": comparisons,
    }


def tell(board: Board, model: str, rivals: str, defaults: bool) -> dict[str, dict[str, Any]]:
    """Compares and prints a line a cell; returns the comparisons."""
    result = compared(board, model, defaults)
    print(f"\n{board.kind}, each customer's mean of {len(board.seeds)} seeds against {rivals}")
    for cell, each in result.items():
        if not defaults or each["baseline"].endswith(DEFAULT):  # the others have been told
            clear = f"x{each['ratio']:.3f}, {each['clear_seeds']} of {len(board.seeds)} seeds clearly above"
            print(f"{cell:26}{each['sentence']}; {clear}")
    return result


def board_of(kind: str, task: Task, data: DataSet, chosen: dict) -> Board:
    contenders = Contenders(find_views(data, task.config.data, "test")[0])
    values = contenders.board({name: each for name, each in chosen.items() if name in contenders.names} | contenders.untuned)
    counted = next(iter(values.values()))
    return Board(kind, {column: int((~np.isnan(counted[f"{column}/ndcg@10"])).sum()) for column in COLUMNS}, values)


def train(task: Task, run: Path, seed: int, overrides: Sequence[object] = ()) -> dict[str, Any]:
    """Trains to the end, or takes the run that is there: "epochs" that validation chose, its value, and the cost."""
    last = run / "last" / "progress.json"
    fresh = not last.exists()
    cost = train_to_the_end(task, run, seed, overrides)
    progress = json.loads(last.read_text())
    memory = run / "peak_mb.json"
    if fresh:  # a run that went on, or had nothing left to do, says nothing of its memory
        memory.write_text(json.dumps(round(cost.peak_mb)))
    per_epoch = steps_per_epoch(task.data, task.config)
    return {
        "epochs": progress["best_step"] / per_epoch,
        "validation": progress["best_value"],
        "seconds": round(progress["seconds"], 1),
        "peak_mb": json.loads(memory.read_text()) if memory.exists() else None,
        "steps_per_epoch": per_epoch,
        "trained_epochs": progress["step"] / per_epoch,
    }


def refit(task: Task, first: Path, run: Path) -> None:
    """`attnrec refit`: as many epochs as validation chose, with validation's events."""
    assert task.refit is not None
    attnrec("refit", first, "--data", task.refit.path, "--output", run, log=run.with_name(f"{run.name}.log"))


def train_to_the_end(task: Task, run: Path, seed: int, overrides: Sequence[object]) -> Cost:
    """What the training says goes to a file beside the run's directory."""
    run.parent.mkdir(parents=True, exist_ok=True)
    keys = ["--run_dir", run, "--train.seed", seed, *task.overrides, *overrides]
    return attnrec("train", task.yaml, *keys, log=run.with_name(f"{run.name}.log"))


def steps_per_epoch(data: DataSet, config: RunConfig) -> int:
    """As the engine counts them."""
    with tempfile.TemporaryDirectory() as folder:
        build_index(data, config.data, Path(folder))
        index = open_index(data, config.data, Path(folder))
        assert index is not None
        return Order(data.manifest.fingerprint, 0, len(index), config.train.global_batch_size).steps_per_epoch


def values_of(run: Path, data: DataSet, checkpoint: str, part: Part = "test", measuring: MeasuringConfig = EVALUATION) -> Columns:
    """The values of each customer; the averaged weights' where the run keeps them."""
    trained = load_model(run, checkpoint, str(data.path))
    views = find_views(trained.data, trained.config, part)[0]
    return evaluate(trained.model, views, measuring, World(device=trained.device)).values()


def over_seeds(board: Board, cell: str) -> np.ndarray:
    """The column's mean of each seed, float64 [seeds]."""
    return np.array([mean(values[cell]) for values in board.seeds.values()])


def spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def best_of(board: Board, cell: str, defaults: bool = False) -> str:
    """The baseline with the highest mean, the first of equals; of those tuned on validation, or with `defaults` of all."""
    names = [name for name in board.baselines if defaults or not name.endswith(DEFAULT)]
    return max(names, key=lambda name: mean(board.baselines[name][cell]))


def compared(board: Board, model: str, defaults: bool = False) -> dict[str, dict[str, Any]]:
    """{cell: the model against the best baseline of that very column}, and how many single seeds are clearly above it."""
    result = {}
    for cell in CELLS:
        name = best_of(board, cell, defaults)
        other = board.baselines[name][cell]
        difference = paired_difference(np.mean([values[cell] for values in board.seeds.values()], axis=0), other)
        singly = [paired_difference(values[cell], other) for values in board.seeds.values()]
        result[cell] = {
            "baseline": name,
            "sentence": sentence(model, name, difference),
            "difference": difference.difference,
            "interval": [difference.low, difference.high],
            "p": difference.p,
            "ratio": difference.mean_a / difference.mean_b if difference.mean_b else float("inf"),
            "single_intervals": [[each.low, each.high] for each in singly],
            "clear_seeds": sum(each.low > 0 for each in singly),
        }
    return result


def figures(board: Board) -> dict[str, Any]:
    model = {cell: over_seeds(board, cell) for cell in CELLS} if board.seeds else {}
    return {
        "customers": board.customers,
        "seeds": {cell: values.tolist() for cell, values in model.items()},
        "model": {cell: {"mean": float(values.mean()), "sd": spread(values)} for cell, values in model.items()},
        "baselines": {name: {cell: mean(values[cell]) for cell in CELLS} for name, values in board.baselines.items()},
    }


def table(boards: list[Board], model: str) -> list[str]:
    """All figures: a line a recommender, a column a protocol, policy and metric; * the best tuned baseline of its board."""
    lines = [" " * 27 + "".join(f"{column:<20}" for column in COLUMNS)]
    lines.append(" " * 27 + "".join(f"{metric:<10}" for _ in COLUMNS for metric in METRICS))
    for board in boards:
        if board.seeds:
            means = {cell: over_seeds(board, cell) for cell in CELLS}
            lines.append(line(f"{model}, {board.kind}", [f"{means[cell].mean():.4f}" for cell in CELLS]))
            lines.append(line(f"  sd of {len(board.seeds)} seeds", [f"{spread(means[cell]):.4f}" for cell in CELLS]))
    for board in boards:
        lines.append(line(f"beside {board.kind}:", []))
        for name, values in board.baselines.items():
            cells = [f"{mean(values[cell]):.4f}" + "*" * (best_of(board, cell) == name) for cell in CELLS]
            lines.append(line(f"  {name}", cells))
        lines.append(line("  customers", [text for column in COLUMNS for text in (f"{board.customers[column]:,}", "")]))
    return lines


def line(head: str, cells: list[str]) -> str:
    return (head.ljust(27) + "".join(f"{cell:<10}" for cell in cells)).rstrip()


if __name__ == "__main__":
    main()
