"""`attnrec prepare`: a raw log becomes a data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from attnrec_dist.commands.base import OVERRIDES, Command, note, required
from attnrec_dist.errors import ExitCode
from attnrec_dist.settings import describe, parse_overrides, to_yaml
from attnrec_dist.terminal.hints import next_step

MAIN_KEYS = """
  --input.files  list[text], required
      raw log: paths, patterns with * and ?, directories (day=5 in a path is a column); beside the YAML, else where you are
  --columns.user  text, required
      column of the user's id; ids are text and kept exactly
  --columns.item  text, required
      column of the item's id; ids are text and kept exactly
  --columns.timestamp.name  text, required
      column that holds the time of the event
  --columns.event.name  text, required
      column that holds the kind of event
  --items.file  text, required
      csv, tsv, parquet or jsonl; found as input.files are
  --split.validation_from  text or null, default null
      first moment of the validation part, ISO 8601, for example 2011-09-01
  --split.test_from  text or null, default null
      first moment of the test part, ISO 8601
  --split.test  number, default 0.1
      share of the events after those
  --output.dir  text, required
      the data set's directory, from the current directory; --output DIR overrides it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", nargs="?", type=Path)
    parser.add_argument("--output", type=Path, help="where the data set goes, instead of output.dir")
    parser.add_argument("--input", nargs="+", help="the raw files, instead of input.files")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is there already")
    parser.add_argument("--print_config", action="store_true", help="print the complete configuration and stop")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.prepare.config import load_prepare_config
    from attnrec_dist.prepare.pipeline import prepare
    from attnrec_dist.prepare.staging import refuse_existing

    path = required(arguments.config, "CONFIG.yaml", "prepare")
    overrides = parse_overrides(rest)
    if arguments.input:
        overrides["input.files"] = arguments.input
    if arguments.output:
        overrides["output.dir"] = str(arguments.output)
    config = load_prepare_config(path, overrides, note)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return ExitCode.DONE
    if not arguments.overwrite:
        refuse_existing(Path(config.output.dir))
    prepare(config, path.parent, Path(config.output.dir), lambda text: print(text, file=sys.stderr, flush=True))
    print(next_step("inspect", config.output.dir), file=sys.stderr)
    return ExitCode.DONE


def keys(arguments: argparse.Namespace) -> str:
    from attnrec_dist.prepare.config import PrepareConfig
    from attnrec_dist.prepare.examples.config import TaskSection
    from attnrec_dist.prepare.examples.features import FeatureSection

    named = [describe(FeatureSection, "features.NAME."), describe(TaskSection, "label.tasks.NAME.")]
    return "\n" + OVERRIDES + "\n".join([describe(PrepareConfig), "The keys of each feature and further label:", *named]) + "\n"


COMMAND = Command(
    name="prepare",
    place=10,
    summary="raw log -> data set",
    example="attnrec prepare my-log.yaml --input events.csv --output data/mine",
    add_arguments=add_arguments,
    run=run,
    keys=keys,
    main_keys=MAIN_KEYS,
)
