"""A run's YAML: the sections that each room owns, put together. Read before torch touches a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, create_model, model_validator

from attnrec_dist.checkpoints.checkpoint import CheckpointConfig
from attnrec_dist.data.config import DataConfig
from attnrec_dist.engine.optimizer import OptimizerConfig
from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation.evaluate import EvaluationConfig
from attnrec_dist.evaluation.predict import ExampleEvaluationConfig
from attnrec_dist.losses import DEFAULT, loss_config_class, loss_task
from attnrec_dist.models import model_config_class, model_task
from attnrec_dist.monitoring.metrics_log import TrackingConfig
from attnrec_dist.monitoring.watchdog import WatchdogConfig
from attnrec_dist.paths import placed
from attnrec_dist.settings import Section, apply_overrides, build, read_yaml
from attnrec_dist.strategies.precision import PrecisionName

OF_NEXT_ITEM = ("basket", "target_events", "windows", "targets", "context")  # keys of `data` without meaning for ranking


class TrainConfig(Section):
    max_epochs: float | None = Field(10, gt=0, description="epochs to train at most; null: only max_steps counts")
    max_hours: float | None = Field(
        None, gt=0, description="hours after which a job stops with a checkpoint, to be run again; null: no limit"
    )
    max_steps: int | None = Field(None, ge=1, description="steps to train at most; null: only max_epochs counts")
    global_batch_size: int = Field(128, ge=1, description="samples of one step, over all processes and accumulation")
    micro_batch_tokens: int = Field(
        16384, ge=1, description="tokens that one forward may hold, long rows counted dearer; more are accumulated"
    )
    precision: PrecisionName = Field(
        "fp32", description="bf16, fp16: autocast, weights stay fp32; tf32: fp32 with faster products on a GPU; fp64: for tests"
    )
    activation_checkpointing: bool = Field(
        False, description="blocks compute their inner values again in the backward pass: less memory, a third more arithmetic"
    )
    compile: bool = Field(
        False,
        description="torch.compile of a ranking model; of blocks of self-attention the second half, slower on CPUs",
    )
    deterministic: bool = Field(
        False, description="on a GPU: only algorithms that give the same bits each time, slower; an error where one has none"
    )
    seed: int = Field(0, description="of initial weights, order and dropout")
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the running average of the weights that is evaluated and used; 0: the weights themselves",
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of a process; null: torch's choice")
    timeout: float = Field(1800.0, gt=0, description="seconds after which a process that waits for another gives up")


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
