"""`attnrec evaluate`: measures a run beside the baselines."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import OVERRIDES, Command, fill, required
from attnrec_dist.errors import ExitCode
from attnrec_dist.settings import describe, parse_overrides

MAIN_KEYS = """
  --evaluation.metrics  list[text], default [recall@10, ndcg@10, hr@10, mrr@10, capped_recall@10]
      what is measured, each as name@k
  --evaluation.threads  integer, default 1
      CPU threads while scoring, fixed so that results do not depend on the machine's cores
  --evaluation.baselines.trend_days  number, default 14
      days before the cut that the trend counts
  --evaluation.baselines.half_life_days  number or null, default 60
      age at which a customer's own event weighs half; null: no decay
  --evaluation.baselines.trend_weight  number, default 3
      weight of the trend beside the customer's own frequency
  --evaluation.baselines.neighbours  integer, default 100
      item graph: neighbours kept of each item
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a name such as step-00000100 (default: best)")
    parser.add_argument("--data", help="the data set, instead of the run's data.path")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file too")
    parser.add_argument(
        "--per_view", type=Path, help="write each customer's values, or each example's probability, to this Parquet file"
    )


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.evaluation.run import EvaluateRequest, evaluate_run

    run_dir = required(arguments.run_dir, "RUN_DIR", "evaluate")
    evaluate_run(run_dir, fill(EvaluateRequest, arguments), parse_overrides(rest))
    return ExitCode.DONE


def keys(arguments: argparse.Namespace) -> str:
    from attnrec_dist.evaluation.evaluate import MeasuringConfig
    from attnrec_dist.evaluation.predict import ExampleMeasuringConfig

    both = ((MeasuringConfig, "next_item"), (ExampleMeasuringConfig, "ranking"))
    keys = [f"of a run of the task {task}:\n{describe(section, 'evaluation.')}" for section, task in both]
    return "\n" + OVERRIDES + "\n".join(keys) + "\n"


COMMAND = Command(
    name="evaluate",
    place=50,
    summary="measure a run beside the baselines",
    example="attnrec evaluate runs/mine --output figures.json",
    add_arguments=add_arguments,
    run=run,
    keys=keys,
    main_keys=MAIN_KEYS,
)
