"""`attnrec evaluate`: a trained run beside the baselines, in one process or under a launcher."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from attnrec_dist.data.views import Part, find_views
from attnrec_dist.engine.strategy import Strategy
from attnrec_dist.errors import ConfigError, StorageError
from attnrec_dist.evaluation.evaluate import MeasuringConfig, Tested, evaluate_beside_baselines
from attnrec_dist.evaluation.report import report, styled, to_json
from attnrec_dist.inference.load import load_model
from attnrec_dist.run_dir import write_whole
from attnrec_dist.settings import Section, apply_overrides, build

TIMEOUT_SECONDS = 1800.0
SHOWN = ("recall@10", "ndcg@10")


@dataclass
class Request:
    """What `attnrec evaluate` was asked for."""

    split: Part = "test"
    checkpoint: str = "best"
    data: str | None = None
    output: Path | None = None
    per_view: Path | None = None


def evaluate_run(run_dir: Path, request: Request, overrides: dict[str, Any]) -> Tested:
    """Evaluates on all processes together; rank 0 prints the table and writes the files. Raises UserError alike on all ranks."""
    strategy = Strategy("fp32", TIMEOUT_SECONDS)
    world = strategy.world
    trained = world.together(lambda: load_model(run_dir, request.checkpoint, request.data, world.device))
    config = evaluation_config(trained.tree, overrides, str(run_dir))
    views, newcomers = find_views(trained.data, trained.config, request.split)
    if not len(views):
        raise ConfigError(f"{trained.config.path}: nobody with a history has a target in the {request.split} part")
    name = f"{trained.tree['model']['name']}"
    tested = evaluate_beside_baselines(name, trained.model, views, newcomers, config, world)
    world.on_main(lambda: tell(tested, trained.checkpoint.name, request, trained.data))
    strategy.close()
    return tested


class _Keys(Section):
    evaluation: MeasuringConfig


def evaluation_config(tree: dict[str, Any], overrides: dict[str, Any], where: str) -> MeasuringConfig:
    """What the run's own section says of measuring, with overrides such as --evaluation.threads.

    When training validates and what it chooses by is not asked here, and other sections are not to be changed.
    """
    for key in overrides:
        if not key.startswith("evaluation."):
            raise ConfigError(f"--{key}: only evaluation.* keys may be overridden here; attnrec evaluate --help lists them")
    kept = {key: value for key, value in tree.get("evaluation", {}).items() if key in MeasuringConfig.model_fields}
    return build(_Keys, apply_overrides({"evaluation": kept}, overrides), where, overrides).evaluation


def tell(tested: Tested, checkpoint: str, request: Request, data: Any) -> None:
    """Prints the table to stdout; writes JSON and Parquet where asked."""
    print(f"checkpoint {checkpoint}", file=sys.stderr)
    shown = [metric for metric in SHOWN if metric in next(iter(tested.measured.values())).metrics]
    text = report(tested.result, shown or next(iter(tested.measured.values())).metrics[:2])
    if sys.stdout.isatty():
        from rich.console import Console

        Console(soft_wrap=True).print(styled(text, tested.result.model))
    else:
        print(text)
    if request.output:
        write_whole(request.output, to_json(tested.result))
    if request.per_view:
        partial = request.per_view.with_name(f".{request.per_view.name}.partial")
        try:
            pq.write_table(tested.per_view(data), partial)
            partial.replace(request.per_view)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError.of(error, f"writing {request.per_view}") from None
