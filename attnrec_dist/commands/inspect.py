"""`attnrec inspect`: what is in a data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from attnrec_dist.commands.base import Command, no_more, required
from attnrec_dist.errors import ExitCode
from attnrec_dist.terminal.hints import from_here, next_step

USUAL_CONFIG = Path(__file__).parents[2] / "configs" / "quickstart-mixture.yaml"  # works on any log; of a checkout only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA_DIR", nargs="?", type=Path)
    parser.add_argument("--output", type=Path, help="where the picture goes (default: DATA_DIR/inspect.png)")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.data.dataset import DataSet
    from attnrec_dist.errors import MissingExtraError
    from attnrec_dist.inspection.plots import draw
    from attnrec_dist.inspection.report import report
    from attnrec_dist.inspection.scan import inspect
    from attnrec_dist.prepare.findings.find import told
    from attnrec_dist.prepare.findings.suspects import of_data_set
    from attnrec_dist.storage.outputs import PICTURE, check_output

    no_more(rest)
    check_output(arguments.output, "--output", PICTURE)
    data = DataSet.open(required(arguments.data, "DATA_DIR", "inspect"))
    found = inspect(data)
    print(report(found), flush=True)
    print(told(of_data_set(data)) + "\n", flush=True)
    if data.note:
        print(f"attnrec: {data.note}", file=sys.stderr)
    picture = arguments.output or arguments.data / "inspect.png"
    try:
        draw(found, picture)
        print(picture, flush=True)
    except MissingExtraError as error:
        if arguments.output:
            raise
        print(f"attnrec: no picture: {error}", file=sys.stderr)
    run_dir = Path("runs") / arguments.data.absolute().name
    if USUAL_CONFIG.is_file() and not found.examples and not run_dir.exists():
        words = ("train", from_here(USUAL_CONFIG), "--data", arguments.data, "--run_dir", run_dir)
        print(next_step(*words), file=sys.stderr)
    return ExitCode.DONE


COMMAND = Command(
    name="inspect",
    place=20,
    summary="what is in a data set, checked: a table and a picture",
    example="attnrec inspect data/mine",
    add_arguments=add_arguments,
    run=run,
)
