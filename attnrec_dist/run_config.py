"""A run's YAML: the sections that each room owns, put together. Read before torch touches a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, create_model, model_validator

from attnrec_dist.data.config import DataConfig
from attnrec_dist.engine.checkpoint import CheckpointConfig
from attnrec_dist.engine.optim import OptimizerConfig
from attnrec_dist.engine.tracking import TrackingConfig
from attnrec_dist.engine.train import TrainConfig
from attnrec_dist.engine.watchdog import WatchdogConfig
from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation.evaluate import EvaluationConfig
from attnrec_dist.evaluation.predict import ExampleEvaluationConfig
from attnrec_dist.losses import DEFAULT, loss_config_class, loss_task
from attnrec_dist.models import model_config_class, model_task
from attnrec_dist.paths import placed
from attnrec_dist.settings import Section, apply_overrides, build, read_yaml

OF_NEXT_ITEM = ("basket", "target_events", "windows", "targets", "context")  # keys of `data` without meaning for ranking


class RunConfig(Section):
    """The complete configuration of a run; `model` and `loss` hold the section of whichever is named there."""

    data: DataConfig = Field(description="the data set and its samples")
    model: Any = Field(description="name, and the keys of that model")
    loss: Any = Field(description="name, and the keys of that loss")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="the update rule")
    train: TrainConfig = Field(TrainConfig(), description="how long, in what batches, in which precision")
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="when to save, what to keep")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="when to validate, what to measure")
    tracking: TrackingConfig = Field(TrackingConfig(), description="what to log")
    watchdog: WatchdogConfig = Field(WatchdogConfig(), description="when a job that stands still ends itself")

    @model_validator(mode="after")
    def _has_an_end(self) -> RunConfig:
        if self.train.max_steps is None and self.train.max_epochs is None:
            raise ValueError("train.max_epochs and train.max_steps are both null, so the run would never end: set one")
        return self

    @model_validator(mode="after")
    def _is_of_one_task(self) -> RunConfig:
        task, name = model_task(self.model.name), self.loss.name
        if loss_task(name) != task:
            raise ValueError(
                f"loss.name: {name} is a loss of the task {loss_task(name)}, but model {self.model.name} is of {task}; "
                f"type --loss.name {DEFAULT[task]}"
            )
        if task == "ranking":
            given = [key for key in OF_NEXT_ITEM if getattr(self.data, key) != DataConfig.model_fields[key].default]
            if given:
                raise ValueError(
                    f"data.{given[0]}: says which samples next_item trains; those of model {self.model.name} are the labelled "
                    "examples that prepare made: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _sees_no_future(self) -> RunConfig:
        if not self.model.is_causal and self.data.targets == "all":
            raise ValueError(
                "model.causal: false lets a token know of later ones, so a sample may ask at its end only; "
                "type --data.targets prefixes (or last), or --model.causal true"
            )
        return self

    @model_validator(mode="after")
    def _ranks_by_what_it_trains(self) -> RunConfig:
        if self.loss.draws and self.model.expert_names:
            raise ValueError(
                f"loss.name: {self.loss.name} scores a few drawn items, but model {self.model.name} needs the probability of "
                "every target among all items; type --loss.name softmax"
            )
        if self.loss.scale != 1.0 and self.model.expert_names:
            raise ValueError(
                f"loss.temperature: model {self.model.name} ranks by the probabilities that it trains, so it takes no "
                "temperature but 1; leave it out"
            )
        return self


def run_config_class(tree: dict[str, Any]) -> type[RunConfig]:
    """RunConfig with the sections of the model and the loss that the tree names, and the evaluation of the model's task."""
    model = model_config_class(_name_in(tree, "model"))
    task = model_task(_name_in(tree, "model"))
    loss = loss_config_class(_name_in(tree, "loss") if "loss" in tree else DEFAULT[task])
    evaluation: type[Section] = ExampleEvaluationConfig if task == "ranking" else EvaluationConfig
    return create_model(
        "RunConfig",
        __base__=RunConfig,
        evaluation=(evaluation, Field(evaluation(), description=RunConfig.model_fields["evaluation"].description)),
        model=(model, Field(description=RunConfig.model_fields["model"].description)),
        loss=(loss, Field(loss(), description=RunConfig.model_fields["loss"].description)),
    )


def _name_in(tree: dict[str, Any], section: str) -> str:
    value = tree.get(section)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return str(value["name"])
    raise ConfigError(f"{section}: {'which one? ' if value else 'this section is required: '}write `{section}: {{name: ...}}`")


def load_run_config(path: Path, overrides: dict[str, Any], say: Callable[[str], None] = lambda _: None) -> RunConfig:
    """The YAML file with overrides applied and checked, its paths placed, of which `say` is told. Raises ConfigError."""
    tree = apply_overrides(read_yaml(path), overrides)
    if "model" not in tree and {"input", "output"} <= tree.keys():
        raise ConfigError(f"{path}: this is a prepare YAML (it has input, output); type attnrec prepare {path}")
    try:
        section = run_config_class(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return placed(build(section, tree, str(path), overrides), path, overrides, say)
