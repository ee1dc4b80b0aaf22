"""`attnrec compare`: compares runs per user."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import Command, fill, no_more, required
from attnrec_dist.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="*", type=Path, help="two runs or more of one data set")
    parser.add_argument(
        "--metric", nargs="+", help="such as ndcg@10 or period/new/recall@20 (default: what chose the first run's checkpoint)"
    )
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a name such as step-00000100 (default: best)")
    parser.add_argument("--data", help="the data set, instead of the runs' data.path")
    parser.add_argument("--output", type=Path, help="write everything to this JSON file too")
    parser.add_argument("--plot", type=Path, help="draw the differences with their intervals to this PNG")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.comparison.run import CompareRequest, compare_runs

    no_more(rest)
    if not arguments.run_dirs:
        required(None, "RUN_DIR", "compare")
    compare_runs(arguments.run_dirs, fill(CompareRequest, arguments))
    return ExitCode.DONE


COMMAND = Command(
    name="compare",
    place=60,
    summary="which of two or more runs is better: difference, confidence interval, corrected p-value",
    example="attnrec compare runs/one runs/other --metric ndcg@10",
    add_arguments=add_arguments,
    run=run,
)
