"""`attnrec evaluate`: a trained run on a part of its data, in one process or under a launcher. Each task has its own table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import create_model

from attnrec_dist.checkpoints.checkpoint import read_progress
from attnrec_dist.data.eval_cases import Part, find_views
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.data.samples import ExampleSamples
from attnrec_dist.distributed import World
from attnrec_dist.errors import ConfigError, MissingExtraError
from attnrec_dist.evaluation import example_report
from attnrec_dist.evaluation.evaluate import MeasuringConfig, evaluate_beside_baselines
from attnrec_dist.evaluation.predict import ExampleMeasuringConfig, Predictions, Thresholds, predict
from attnrec_dist.evaluation.report import report, styled, to_json
from attnrec_dist.inference.load import TrainedModel, load_model
from attnrec_dist.inference.provenance import identity, stamped
from attnrec_dist.models import model_task
from attnrec_dist.monitoring.watchdog import Watchdog, silence_of
from attnrec_dist.run_dir import write_whole
from attnrec_dist.settings import Section, apply_overrides, build
from attnrec_dist.storage.outputs import JSON, TABLE, check_output, write_table
from attnrec_dist.strategies.launch import join
from attnrec_dist.terminal.hints import next_step

TIMEOUT_SECONDS = 1800.0
SHOWN = ("recall@10", "ndcg@10")


@dataclass
class EvaluateRequest:
    """What `attnrec evaluate` was asked for."""

    split: Part = "test"
    checkpoint: str = "best"
    data: str | None = None
    output: Path | None = None
    per_view: Path | None = None


@dataclass
class Answer:
    """What is told of an evaluation, whatever the task."""

    text: str
    json: str
    per_view: Callable[[], pa.Table]  # the values of each customer or example
    model: str  # whose row is to stand out
    following: tuple[str, str]  # the command that comes next, and what it is to write into the run directory
    picture: Callable[[], Path] | None = None  # draws one, and says where


def evaluate_run(run_dir: Path, request: EvaluateRequest, overrides: dict[str, Any]) -> Answer:
    """Evaluates on all processes together; rank 0 prints the table and writes the files. Raises UserError alike on all ranks."""
    job = join("fp32", TIMEOUT_SECONDS)
    world = job.world
    world.on_main(lambda: check_outputs(request))
    trained = world.together(lambda: load_model(run_dir, request.checkpoint, request.data, world.device, task=None))
    test = {"next_item": tested_next_item, "ranking": tested_ranking}[model_task(trained.tree["model"]["name"])]
    with Watchdog.of_others(silence_of(trained.tree, trained.where), world):
        answer = test(trained, request, overrides, world)
        world.on_main(lambda: tell(answer, trained, request))
    job.close()
    return answer


def check_outputs(request: EvaluateRequest) -> None:
    check_output(request.output, "--output", JSON)
    check_output(request.per_view, "--per_view", TABLE)


def tested_next_item(trained: TrainedModel, request: EvaluateRequest, overrides: dict[str, Any], world: World) -> Answer:
    """Ranks the whole catalogue, beside the baselines."""
    config = evaluation_config(MeasuringConfig, trained.tree, overrides, str(trained.run_dir.path))
    views, newcomers = find_views(trained.data, trained.config, request.split)
    if not len(views):
        other = "validation" if request.split == "test" else "test"
        raise ConfigError(
            f"{trained.config.path}: nothing to evaluate: nobody with a history has anything to predict in the {request.split} "
            f"part; type --split {other} if that has some, or prepare with other cuts (split)"
        )
    name = f"{trained.tree['model']['name']}"
    tested = evaluate_beside_baselines(name, trained.model, views, newcomers, config, world)
    metrics = next(iter(tested.measured.values())).metrics
    text = report(tested.result, [metric for metric in SHOWN if metric in metrics] or metrics[:2])
    following = ("recommend", "recommendations.parquet")
    return Answer(text, to_json(tested.result), lambda: tested.per_view(trained.data), name, following)


def tested_ranking(trained: TrainedModel, request: EvaluateRequest, overrides: dict[str, Any], world: World) -> Answer:
    """The classification report of every task; decisions at the threshold that validation chose."""
    config = evaluation_config(ExampleMeasuringConfig, trained.tree, overrides, str(trained.run_dir.path))
    found = predictions_of(trained, request.split, config, world)
    if not len(found.samples):
        raise ConfigError(f"{trained.config.path}: has no examples in the {request.split} part; try --split validation")
    thresholds = thresholds_of(trained, config, world)
    name = f"{trained.tree['model']['name']}"
    result = example_report.summarise(found, name, config.metrics, thresholds)

    def picture() -> Path:
        png = trained.run_dir.path / f"reliability-{request.split}.png"
        example_report.draw_reliability(found, png)
        return png

    return Answer(
        example_report.report(result), example_report.to_json(result), found.per_example, name, ("explain", "explained"), picture
    )


def predictions_of(trained: TrainedModel, split: Part, config: ExampleMeasuringConfig, world: World) -> Predictions:
    """What a trained ranking model says of every example of a part."""
    examples = ExampleSet.open(trained.data, split)
    return predict(trained.model, ExampleSamples(examples, trained.config.max_length), config, world)


def thresholds_of(trained: TrainedModel, config: ExampleMeasuringConfig, world: World) -> Thresholds:
    """Those that were chosen on validation when the checkpoint was made; chosen now where it was made without validating."""

    def kept() -> Thresholds | None:
        progress = read_progress(trained.checkpoint)
        extra = progress.extra
        return dict(extra["thresholds"]) if extra.get("step") == progress.step and "thresholds" in extra else None

    found: Thresholds | None = world.on_main(kept)
    if found is not None:
        return found
    return predictions_of(trained, "validation", config, world).thresholds()


def evaluation_config(kind: type[Section], tree: dict[str, Any], overrides: dict[str, Any], where: str) -> Any:
    """What the run's own section says of measuring, with overrides such as --evaluation.threads.

    When training validates and what it chooses by is not asked here, and other sections are not to be changed.
    """
    for key in overrides:
        if not key.startswith("evaluation."):
            raise ConfigError(f"--{key}: only evaluation.* keys may be overridden here; attnrec evaluate --help-all lists them")
    kept = tree.get("evaluation") or {}
    if isinstance(kept, dict):
        kept = {key: value for key, value in kept.items() if key in kind.model_fields}
    keys = create_model("Keys", __base__=Section, evaluation=(kind, ...))
    return build(keys, apply_overrides({"evaluation": kept}, overrides), where, overrides).evaluation  # type: ignore[attr-defined]


def tell(answer: Answer, trained: TrainedModel, request: EvaluateRequest) -> None:
    """Prints the table to stdout; writes JSON, rows and the picture where asked."""
    print(f"checkpoint {trained.checkpoint.name}", file=sys.stderr)
    if sys.stdout.isatty():
        from rich.console import Console

        Console(soft_wrap=True).print(styled(answer.text, answer.model))
    else:
        print(answer.text)
    if request.output:
        write_whole(request.output, answer.json)
    if request.per_view:
        write_table(request.per_view, stamped(answer.per_view(), identity(trained, request.split)))
    if answer.picture is not None:
        try:
            print(answer.picture())
        except MissingExtraError as error:
            print(f"attnrec: no picture: {error}", file=sys.stderr)
    command, output = answer.following
    same = ["--data", request.data] if request.data else []
    same += [] if request.checkpoint == "best" else ["--checkpoint", request.checkpoint]
    sys.stdout.flush()
    print(next_step(command, trained.run_dir.path, "--output", trained.run_dir.path / output, *same), file=sys.stderr)
