"""`attnrec when`: which steps of a run trained on a customer."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import Command, no_more, required
from attnrec_dist.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", metavar="ID", help="the customer, as the log names him (required)")
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    parser.add_argument("--data", help="the data set, instead of the run's data.path")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.config import load_run_config
    from attnrec_dist.engine.replay import reopen, tell_user
    from attnrec_dist.run_dir import RunDir

    no_more(rest)
    run_dir = RunDir.existing(required(arguments.run_dir, "RUN_DIR", "when"))
    config = load_run_config(run_dir.config, {"data.path": arguments.data} if arguments.data else {})
    tell_user(reopen(run_dir, config), required(arguments.user, "--user ID", "when"))
    return ExitCode.DONE


COMMAND = Command(
    name="when",
    place=90,
    summary="which steps of a run trained on a customer",
    example="attnrec when runs/mine --user 12347",
    add_arguments=add_arguments,
    run=run,
    required=("--user ID",),
)
