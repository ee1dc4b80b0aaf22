"""`attnrec replay`: what a step of a run trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import Command, no_more, required
from attnrec_dist.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", type=int, metavar="N", help="as metrics.jsonl counts, from 1 (required)")
    parser.add_argument("--output", type=Path, help="write the answer to this JSON file too")
    parser.add_argument("--recompute", action="store_true", help="compute its loss again, from the newest checkpoint before it")
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    parser.add_argument("--data", help="the data set, instead of the run's data.path")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.config import load_run_config
    from attnrec_dist.engine.replay import reopen, tell_step
    from attnrec_dist.run_dir import RunDir
    from attnrec_dist.storage.outputs import JSON, check_output

    no_more(rest)
    check_output(arguments.output, "--output", JSON)
    run_dir = RunDir.existing(required(arguments.run_dir, "RUN_DIR", "replay"))
    config = load_run_config(run_dir.config, {"data.path": arguments.data} if arguments.data else {})
    step = required(arguments.step, "--step N", "replay")
    tell_step(reopen(run_dir, config, launched=arguments.recompute), step, arguments.output, arguments.recompute)
    return ExitCode.DONE


COMMAND = Command(
    name="replay",
    place=100,
    summary="what a step of a run trained on",
    example="attnrec replay runs/mine --step 100",
    add_arguments=add_arguments,
    run=run,
    required=("--step N",),
)
