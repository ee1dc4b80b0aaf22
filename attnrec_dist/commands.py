"""What the commands do, once the command line is taken apart (cli.py); heavy imports happen inside the one that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from attnrec_dist.errors import ConfigError, ExitCode
from attnrec_dist.hints import from_here, next_step
from attnrec_dist.settings import describe, parse_overrides, to_yaml
from attnrec_dist.yaml_text import shortened

USUAL_CONFIG = Path(__file__).parents[1] / "configs" / "quickstart-mixture.yaml"  # works on any log; of a checkout only
OVERRIDES = "--any.key VALUE overrides a key of the YAML file. All keys, with their defaults:\n\n"


def _required(value: Any, name: str, command: str) -> Any:
    if value is None:
        raise ConfigError(f"{name} is missing; type attnrec {command} --help")
    return value


def _no_more(rest: list[str]) -> None:
    if rest:
        raise ConfigError(f"unknown argument {shortened(rest[0].partition('=')[0])}; --help lists what there is")


def is_main_process() -> bool:
    """Before the processes of a job know one another, the launcher's RANK tells who speaks."""
    return os.environ.get("RANK", "0") == "0"


def _note(text: str) -> None:
    if is_main_process():
        print(f"attnrec: note: {text}", file=sys.stderr)


# prepare


def prepare_keys(arguments: argparse.Namespace) -> str:
    from attnrec_dist.prepare.config import PrepareConfig
    from attnrec_dist.prepare.examples_config import FeatureSection, TaskSection

    named = [describe(FeatureSection, "features.NAME."), describe(TaskSection, "label.tasks.NAME.")]
    return "\n" + OVERRIDES + "\n".join([describe(PrepareConfig), "The keys of each feature and further label:", *named]) + "\n"


def prepare_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.prepare.config import load_prepare_config
    from attnrec_dist.prepare.pipeline import prepare
    from attnrec_dist.prepare.workplace import refuse_existing

    path = _required(arguments.config, "CONFIG.yaml", "prepare")
    overrides = parse_overrides(rest)
    if arguments.input:
        overrides["input.files"] = arguments.input
    if arguments.output:
        overrides["output.dir"] = str(arguments.output)
    config = load_prepare_config(path, overrides, _note)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return ExitCode.DONE
    if not arguments.overwrite:
        refuse_existing(Path(config.output.dir))
    prepare(config, path.parent, Path(config.output.dir), lambda text: print(text, file=sys.stderr, flush=True))
    print(next_step("inspect", config.output.dir), file=sys.stderr)
    return ExitCode.DONE


# inspect


def inspect_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.data.inspect import inspect
    from attnrec_dist.data.shards import DataSet
    from attnrec_dist.errors import MissingExtraError
    from attnrec_dist.evaluation.data_plots import draw
    from attnrec_dist.evaluation.data_report import report
    from attnrec_dist.outputs import PICTURE, check_output
    from attnrec_dist.prepare.findings import told
    from attnrec_dist.prepare.suspects import of_data_set

    _no_more(rest)
    check_output(arguments.output, "--output", PICTURE)
    data = DataSet.open(_required(arguments.data, "DATA_DIR", "inspect"))
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


# train


def train_keys(arguments: argparse.Namespace) -> str:
    from attnrec_dist.losses import LOSSES
    from attnrec_dist.models import MODELS
    from attnrec_dist.run_config import RunConfig, run_config_class
    from attnrec_dist.settings import read_yaml

    if arguments.config is not None:
        return "\n" + OVERRIDES + describe(run_config_class(read_yaml(arguments.config))) + "\n"
    sections = [describe(RunConfig), "The keys of each model and loss:"]
    for kind, registry in (("model", MODELS), ("loss", LOSSES)):
        sections += [f"{kind} {name}:\n{describe(entry.Config, f'{kind}.')}" for name, entry in registry.everything().items()]
    return "\n" + OVERRIDES + "\n".join(sections) + "\n"


def train_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.job import train_in
    from attnrec_dist.run_config import load_run_config
    from attnrec_dist.run_dir import RunDir

    path = _required(arguments.config, "CONFIG.yaml", "train")
    overrides = parse_overrides(rest)
    if arguments.data:
        overrides["data.path"] = arguments.data
    if arguments.profile:
        overrides["tracking.profile_steps"] = 10
    config = load_run_config(path, overrides, _note)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return ExitCode.DONE
    of_run = path.name == "config.yaml" and RunDir(path.parent).checkpoints.is_dir()
    usual = path.parent if of_run else Path("runs") / path.stem
    return train_in(RunDir(arguments.run_dir or usual), config)


def refit_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.job import train_in
    from attnrec_dist.engine.refit import refit_overrides
    from attnrec_dist.run_config import load_run_config
    from attnrec_dist.run_dir import RunDir

    run = RunDir.existing(_required(arguments.run_dir, "RUN_DIR", "refit"))
    data = _required(arguments.data, "--data DIR", "refit")
    config = load_run_config(run.config, refit_overrides(run, data) | parse_overrides(rest))
    return train_in(RunDir(arguments.output or run.path.with_name(f"{run.path.name}-refit")), config)


# evaluate


def evaluation_keys(arguments: argparse.Namespace) -> str:
    from attnrec_dist.evaluation.evaluate import MeasuringConfig
    from attnrec_dist.evaluation.predict import ExampleMeasuringConfig

    both = ((MeasuringConfig, "next_item"), (ExampleMeasuringConfig, "ranking"))
    keys = [f"of a run of the task {task}:\n{describe(section, 'evaluation.')}" for section, task in both]
    return "\n" + OVERRIDES + "\n".join(keys) + "\n"


def evaluate_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.evaluate_run import Request, evaluate_run

    run_dir = _required(arguments.run_dir, "RUN_DIR", "evaluate")
    keys = ("split", "checkpoint", "data", "output", "per_view")
    evaluate_run(run_dir, Request(**{key: getattr(arguments, key) for key in keys}), parse_overrides(rest))
    return ExitCode.DONE


# compare


def compare_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.compare_runs import Request, compare_runs

    _no_more(rest)
    if not arguments.run_dirs:
        _required(None, "RUN_DIR", "compare")
    keys = ("metric", "split", "checkpoint", "data", "output", "plot")
    compare_runs(arguments.run_dirs, Request(**{key: getattr(arguments, key) for key in keys}))
    return ExitCode.DONE


# explain


def explain_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.explain_run import Request, explain_run

    _no_more(rest)
    run_dir = _required(arguments.run_dir, "RUN_DIR", "explain")
    _required(arguments.output, "--output DIR", "explain")
    keys = ("output", "users", "split", "checkpoint", "data", "show", "sample", "seed")
    explain_run(run_dir, Request(**{key: getattr(arguments, key) for key in keys}))
    return ExitCode.DONE


# recommend and plot


def recommend_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.recommend_run import Request, recommend_run

    _no_more(rest)
    run_dir = _required(arguments.run_dir, "RUN_DIR", "recommend")
    if arguments.output is None and not arguments.users:
        raise ConfigError("type --output FILE.parquet for a file of all customers' lists, or --users ID to have some printed")
    keys = ("top_k", "users", "users_file", "histories", "exclude", "new_only", "checkpoint", "data", "show")
    recommend_run(run_dir, arguments.output, Request(**{key: getattr(arguments, key) for key in keys}))
    return ExitCode.DONE


def past_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.replay import reopen, tell_step, tell_user
    from attnrec_dist.outputs import JSON, check_output
    from attnrec_dist.run_config import load_run_config
    from attnrec_dist.run_dir import RunDir

    _no_more(rest)
    if arguments.command == "replay":
        check_output(arguments.output, "--output", JSON)
    run = RunDir.existing(_required(arguments.run_dir, "RUN_DIR", arguments.command))
    config = load_run_config(run.config, {"data.path": arguments.data} if arguments.data else {})
    if arguments.command == "when":
        tell_user(reopen(run, config), _required(arguments.user, "--user ID", "when"))
    else:
        step, again = _required(arguments.step, "--step N", "replay"), arguments.recompute
        tell_step(reopen(run, config, joined=again), step, arguments.output, again)
    return ExitCode.DONE


def plot_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    from attnrec_dist.engine.plot_run import can_be_tested, plot_run
    from attnrec_dist.run_dir import RunDir

    def config() -> Any:
        from attnrec_dist.run_config import load_run_config  # brings torch

        return load_run_config(run.config, {})

    _no_more(rest)
    run = RunDir.existing(_required(arguments.run_dir, "RUN_DIR", "plot"))
    print(plot_run(run, config), flush=True)
    if can_be_tested(run):
        print(next_step("evaluate", run.path), file=sys.stderr)
    return ExitCode.DONE
