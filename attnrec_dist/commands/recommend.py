"""`attnrec recommend`: lists of items for customers."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import Command, fill, no_more, required
from attnrec_dist.errors import ConfigError, ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    parser.add_argument(
        "--output", type=Path, help="the file to write, .parquet, .csv or .jsonl; with --users it may be left out"
    )
    parser.add_argument("--top_k", type=int, default=10, help="items a customer (default: 10)")
    parser.add_argument(
        "--users",
        nargs="+",
        metavar="ID",
        help="these customers only (without --output: printed); unknown ones get the trend and are marked",
    )
    parser.add_argument("--users_file", type=Path, help="a text file with one customer id a line")
    parser.add_argument(
        "--histories",
        type=Path,
        help="fresh histories instead of the data set's: CSV, TSV or Parquet with the columns user, item, "
        "timestamp (as in the log; unix times, ISO 8601) and, optionally, event (one of the data set's types)",
    )
    parser.add_argument("--exclude", type=Path, help="a text file with one item id a line, never recommended")
    parser.add_argument(
        "--new_only", action="store_true", help="leave out what the customer already had among events of the predicted types"
    )
    parser.add_argument("--checkpoint", default="best", help="best, last, or a name (default: best)")
    parser.add_argument("--data", help="the data set, instead of the run's data.path")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print histories and lists of N customers as well")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.recommendation.run import RecommendRequest, recommend_run

    no_more(rest)
    run_dir = required(arguments.run_dir, "RUN_DIR", "recommend")
    if arguments.output is None and not arguments.users:
        raise ConfigError("type --output FILE.parquet for a file of all customers' lists, or --users ID to have some printed")
    recommend_run(run_dir, arguments.output, fill(RecommendRequest, arguments))
    return ExitCode.DONE


COMMAND = Command(
    name="recommend",
    place=80,
    summary="the best items for customers, to a file or printed",
    example="attnrec recommend runs/mine --users 12347 12348 --top_k 5",
    add_arguments=add_arguments,
    run=run,
)
