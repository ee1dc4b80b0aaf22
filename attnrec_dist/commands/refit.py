"""`attnrec refit`: trains a finished run once more, on all the data."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import Command, required
from attnrec_dist.settings import parse_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, help="the data set: the same log, nothing held back for validation (required)")
    parser.add_argument("--output", type=Path, help="the run directory to write (default: RUN_DIR-refit)")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.config import load_run_config
    from attnrec_dist.engine.job import train_in
    from attnrec_dist.engine.refit import refit_overrides
    from attnrec_dist.run_dir import RunDir

    run = RunDir.existing(required(arguments.run_dir, "RUN_DIR", "refit"))
    data = required(arguments.data, "--data DIR", "refit")
    config = load_run_config(run.config, refit_overrides(run, data) | parse_overrides(rest))
    return train_in(RunDir(arguments.output or run.path.with_name(f"{run.path.name}-refit")), config)


COMMAND = Command(
    name="refit",
    place=40,
    summary="train a finished run once more, on data without a validation part",
    example="attnrec refit runs/mine --data data/mine-refit",
    add_arguments=add_arguments,
    run=run,
    required=("--data DATA",),
)
