"""`attnrec plot`: draws the curves of a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from attnrec_dist.commands.base import Command, no_more, required
from attnrec_dist.errors import ExitCode
from attnrec_dist.terminal.hints import next_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.plot import can_be_tested, plot_run
    from attnrec_dist.run_dir import RunDir

    def config() -> Any:
        from attnrec_dist.engine.config import load_run_config  # brings torch

        return load_run_config(run_dir.config, {})

    no_more(rest)
    run_dir = RunDir.existing(required(arguments.run_dir, "RUN_DIR", "plot"))
    print(plot_run(run_dir, config), flush=True)
    if can_be_tested(run_dir):
        print(next_step("evaluate", run_dir.path), file=sys.stderr)
    return ExitCode.DONE


COMMAND = Command(
    name="plot",
    place=110,
    summary="draw loss and metrics of a run to RUN_DIR/curves.png",
    example="attnrec plot runs/mine",
    add_arguments=add_arguments,
    run=run,
)
