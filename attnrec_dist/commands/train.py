"""`attnrec train`: trains a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnrec_dist.commands.base import OVERRIDES, Command, note, required
from attnrec_dist.errors import ExitCode
from attnrec_dist.settings import describe, parse_overrides, to_yaml

MAIN_KEYS = """
  --data.path  text, required
      the prepared data set, as written by `attnrec prepare`; --data overrides it
  --data.max_length  integer, default 200
      tokens of a window; longer histories are cut, between baskets
  --data.target_events  list[text] or null, default null
      event types that are predicted, such as [buy]; the others are only input; null: all
  --model.width  integer, default 64
      width D of items and hidden states; a multiple of heads
  --optimizer.lr  number, default 0.001
      peak learning rate
  --train.max_epochs  number or null, default 10
      epochs to train at most; null: only max_steps counts
  --train.global_batch_size  integer, default 128
      samples of one step, over all processes and accumulation
  --train.micro_batch_tokens  integer, default 16384
      tokens that one forward may hold, long rows counted dearer; more are accumulated
  --train.precision  fp32|tf32|bf16|fp16|fp64, default fp32
      bf16, fp16: autocast, weights stay fp32; tf32: fp32 with faster products on a GPU; fp64: for tests
  --train.seed  integer, default 0
      of initial weights, order and dropout
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", nargs="?", type=Path)
    parser.add_argument(
        "--run_dir",
        type=Path,
        help="where the run is kept (default: runs/ and the YAML's name; of a run's config.yaml: that run)",
    )
    parser.add_argument("--data", help="the data set, instead of data.path")
    parser.add_argument("--print_config", action="store_true", help="print the complete configuration and stop")
    parser.add_argument(
        "--profile", action="store_true", help="--tracking.profile_steps 10: a trace, and ten lines that sum it up"
    )


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.config import load_run_config
    from attnrec_dist.engine.job import train_in
    from attnrec_dist.run_dir import RunDir

    path = required(arguments.config, "CONFIG.yaml", "train")
    overrides = parse_overrides(rest)
    if arguments.data:
        overrides["data.path"] = arguments.data
    if arguments.profile:
        overrides["tracking.profile_steps"] = 10
    config = load_run_config(path, overrides, note)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return ExitCode.DONE
    of_run = path.name == "config.yaml" and RunDir(path.parent).checkpoints.is_dir()
    usual = path.parent if of_run else Path("runs") / path.stem
    return train_in(RunDir(arguments.run_dir or usual), config)


def keys(arguments: argparse.Namespace) -> str:
    from attnrec_dist.engine.config import RunConfig, run_config_class
    from attnrec_dist.losses import LOSSES
    from attnrec_dist.models import MODELS
    from attnrec_dist.settings import read_yaml

    if arguments.config is not None:
        return "\n" + OVERRIDES + describe(run_config_class(read_yaml(arguments.config))) + "\n"
    sections = [describe(RunConfig), "The keys of each model and loss:"]
    for kind, registry in (("model", MODELS), ("loss", LOSSES)):
        sections += [f"{kind} {name}:\n{describe(entry.Config, f'{kind}.')}" for name, entry in registry.everything().items()]
    return "\n" + OVERRIDES + "\n".join(sections) + "\n"


COMMAND = Command(
    name="train",
    place=30,
    summary="train on a data set; on a run directory that exists, go on",
    example="attnrec train my-run.yaml --data data/mine --run_dir runs/mine --train.seed 1",
    add_arguments=add_arguments,
    run=run,
    keys=keys,
    main_keys=MAIN_KEYS,
)
