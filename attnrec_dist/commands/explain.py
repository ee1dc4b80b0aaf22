"""`attnrec explain`: what a model weighed."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import Command, fill, no_more, required
from attnrec_dist.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    parser.add_argument("--output", type=Path, help="the directory for index.html and weights.png (required)")
    parser.add_argument("--users", nargs="+", metavar="ID", help="show the newest examples of these customers")
    parser.add_argument("--show", type=int, default=8, metavar="N", help="without --users: examples of the sample that are shown")
    parser.add_argument(
        "--sample", type=int, default=2000, metavar="N", help="examples that means and check are over (default: 2000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of what is changed at random (default: 0)")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a name such as step-00000100 (default: best)")
    parser.add_argument("--data", help="the data set, instead of the run's data.path")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.explanation.run import ExplainRequest, explain_run

    no_more(rest)
    run_dir = required(arguments.run_dir, "RUN_DIR", "explain")
    required(arguments.output, "--output DIR", "explain")
    explain_run(run_dir, fill(ExplainRequest, arguments))
    return ExitCode.DONE


COMMAND = Command(
    name="explain",
    place=70,
    summary="which features and past events a model weighed, and whether its predictions depend on them",
    example="attnrec explain runs/mine --output explained",
    add_arguments=add_arguments,
    run=run,
    required=("--output OUTPUT",),
)
