"""What a run trains, and what it is judged by: the two tasks, next_item and ranking. The loop, the order and the checkpoints know
no difference; whatever differs is asked of a Task.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from attnrec_dist.batch import Needs
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import find_views, has_known_target
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.data.expert_features import EvidenceFinder
from attnrec_dist.data.samples import ExampleSamples, Samples, WindowSamples
from attnrec_dist.data.spec import data_spec
from attnrec_dist.data.windows import build_index, open_index
from attnrec_dist.distributed import World
from attnrec_dist.engine.config import RunConfig
from attnrec_dist.engine.remarks import not_validated, remarks_of_next_item
from attnrec_dist.errors import ConfigError, DataError, FaultError
from attnrec_dist.evaluation.classification import higher_is_better
from attnrec_dist.evaluation.evaluate import evaluate
from attnrec_dist.evaluation.predict import predict
from attnrec_dist.losses import build_loss
from attnrec_dist.losses.base import Loss
from attnrec_dist.models import build_model, model_task
from attnrec_dist.models.base import Model
from attnrec_dist.run_dir import RunDir


@dataclass
class Validated:
    """The figures of a validation, by name; and what is kept of it with the checkpoint, if anything."""

    values: dict[str, float]
    kept: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """One of the two kinds of training. Made on all ranks together."""

    samples: Samples

    def model_and_loss(self) -> tuple[Model, Loss]: ...

    def validate(self, model: Any, check: Callable[[], None]) -> Validated | None:
        """Measures on the validation part, on all ranks together; None where nothing is in it. What `check` raises ends it."""
        ...

    def improves(self, value: float, best: float | None) -> bool: ...

    def remarks(self) -> list[str]:
        """What of the training is off on this data set, and what it costs; told before the first step."""
        ...


class NextItem:
    """Given a history, what comes next: windows of the training part, ranks of the whole catalogue."""

    def __init__(self, config: RunConfig, data: DataSet, run_dir: RunDir, world: World):
        self.config, self.data, self.world = config, data, world
        told = world.on_main(lambda: build_index(data, config.data, run_dir.index))
        if told and world.is_main:
            print(f"attnrec: {told}", file=sys.stderr, flush=True)
        index = open_index(data, config.data, run_dir.index, check=not world.is_main)
        if index is None:
            raise FaultError(
                f"{run_dir.index}: rank {world.rank} cannot see the sample index; is the directory shared between the nodes?"
            )
        self.index = index
        self.samples: Samples = WindowSamples(data, index, config.data, evidence_for(config, data), config.loss.draws > 0)
        self.views = find_views(data, config.data, "validation")[0]
        self.validates = has_known_target(self.views)

    def model_and_loss(self) -> tuple[Model, Loss]:
        model, loss = built(self.config, self.data)
        if model.table is not None:
            model.table.unit = self.config.loss.scores_cosines
        return model, loss

    def validate(self, model: Any, check: Callable[[], None]) -> Validated | None:
        if not self.validates:
            return None
        return Validated(evaluate(model, self.views, self.config.evaluation, self.world, check).flat())

    def improves(self, value: float, best: float | None) -> bool:
        return best is None or value > best

    def remarks(self) -> list[str]:
        return remarks_of_next_item(self.config, self.data, self.index, self.views, self.validates)


class Ranking:
    """Given a user, an item and features, how probable the label is: labelled examples, classification metrics."""

    def __init__(self, config: RunConfig, data: DataSet, run_dir: RunDir, world: World):
        self.config, self.data, self.world = config, data, world
        self.measuring: Any = config.evaluation  # an ExampleEvaluationConfig: engine/config.py
        train, validation = (ExampleSet.open(data, part) for part in ("train", "validation"))
        most = config.data.max_length if config.model.reads_history else 0
        self.samples: Samples = ExampleSamples(train, most)
        self.validation = ExampleSamples(validation, most)
        if not len(train):
            raise DataError(f"{data.path}: has no training examples; `attnrec inspect {data.path}` tells what is in it")
        task, _, metric = self.measuring.metric.rpartition("/")
        if task not in train.spec.tasks:
            close = difflib.get_close_matches(task, train.spec.tasks, 1, 0) or train.spec.tasks[:1]
            raise ConfigError(
                f"evaluation.metric: the data set has no task {task!r}; did you mean {close[0]}/{metric}? "
                f"Its tasks: {', '.join(train.spec.tasks)}"
            )

    def model_and_loss(self) -> tuple[Model, Loss]:
        return built(self.config, self.data)

    def validate(self, model: Any, check: Callable[[], None]) -> Validated | None:
        if not len(self.validation):
            return None
        found = predict(model, self.validation, self.measuring, self.world, check)
        thresholds = found.thresholds()
        return Validated(found.flat(self.measuring.metrics, thresholds), {"thresholds": thresholds})

    def improves(self, value: float, best: float | None) -> bool:
        if math.isnan(value):
            return False
        return best is None or (value > best if higher_is_better(self.measuring.metric) else value < best)

    def remarks(self) -> list[str]:
        return [] if len(self.validation) else [not_validated(self.config, "the validation part has no examples")]


def make_task(config: RunConfig, data: DataSet, run_dir: RunDir, world: World) -> Task:
    kinds: dict[str, Any] = {"next_item": NextItem, "ranking": Ranking}
    task: Task = kinds[model_task(config.model.name)](config, data, run_dir, world)
    return task


def built(config: RunConfig, data: DataSet) -> tuple[Model, Loss]:
    spec = data_spec(data, config.data)
    return build_model(config.model, spec), build_loss(config.loss, spec)


def evidence_for(config: RunConfig, data: DataSet) -> EvidenceFinder | None:
    """What the model's experts have to have looked up, if it has any."""
    needs: Needs = config.model.needs
    return EvidenceFinder(needs, data) if needs.names else None
