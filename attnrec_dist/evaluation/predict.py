"""The pass over labelled examples: the probability of each task, equal to the last digit on any number of processes (promise 5).

Examples are scored in micro-batches whose borders depend on their number alone; process r of n takes the micro-batches r,
r + n, ... Their float64 logits are gathered bit by bit and laid down in storage order; all figures are computed of that, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, field_validator, model_validator

from attnrec_dist.batch import RankingOutput
from attnrec_dist.data.example_format import LABEL_PREFIX
from attnrec_dist.data.samples import ExampleSamples
from attnrec_dist.distributed import World, threads
from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation.classification import METRICS, Predicted, best_threshold, check_metric, values
from attnrec_dist.evaluation.config import ValidationConfig
from attnrec_dist.models.base import RankingModel
from attnrec_dist.settings import Section

EXAMPLES_AT_ONCE = 512
Thresholds = dict[str, float]  # {task: probability from which on a positive is predicted}


class ExampleMeasuringConfig(Section):
    """What is measured of labelled examples: all that `attnrec evaluate` asks of a ranking run."""

    metrics: list[str] = Field(list(METRICS), min_length=1, description="what is measured of each task")
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads while scoring, fixed so that results do not depend on the machine's cores"
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            _checked(name)
        return names


class ExampleEvaluationConfig(ExampleMeasuringConfig, ValidationConfig):
    """The `evaluation` section of a ranking run."""

    metric: str = Field("label/auc", description="task/metric on validation that chooses the best checkpoint")

    @model_validator(mode="after")
    def _measures_what_it_chooses_by(self) -> ExampleEvaluationConfig:
        task, _, name = self.metric.rpartition("/")
        _checked(name)
        if not task:
            raise ValueError(f"metric: of which task? write task/metric, for example label/{name}")
        if name not in self.metrics:
            raise ValueError(f"metric: {self.metric!r} is not measured; {name} must stand in metrics")
        return self


def _checked(name: str) -> None:
    try:
        check_metric(name)
    except ConfigError as error:  # pydantic adds the key's path to a ValueError only
        raise ValueError(str(error)) from None


@dataclass
class Predictions:
    """What a model says of every example of a part, in storage order."""

    samples: ExampleSamples
    logits: dict[str, np.ndarray]  # {task: float64 [n]}

    def probabilities(self, task: str) -> np.ndarray:
        """float64 [n]"""
        from scipy.special import expit

        result: np.ndarray = expit(self.logits[task])
        return result

    def column(self, name: str) -> np.ndarray:
        return self.samples.examples.column(name)

    def predicted(self, task: str, threshold: float = 0.5) -> Predicted:
        """Of the examples of which the task says something."""
        says = self.says(task)
        labels = self.column(LABEL_PREFIX + task)[says].astype(np.int64)
        return Predicted(labels, self.probabilities(task)[says], self.column("user")[says], threshold)

    def says(self, task: str) -> np.ndarray:
        """bool [n]"""
        known: np.ndarray = self.column(LABEL_PREFIX + task) >= 0
        return known

    def thresholds(self) -> Thresholds:
        """The best of each task, chosen on these examples."""
        return {task: best_threshold(self.predicted(task)) for task in self.logits}

    def flat(self, names: list[str], thresholds: Thresholds) -> dict[str, float]:
        """{"label/auc": ..., ...}"""
        return {
            f"{task}/{name}": value
            for task in self.logits
            for name, value in values(self.predicted(task, thresholds[task]), names).items()
        }

    def per_example(self) -> pa.Table:
        """One row a task and example of which it says something: user, item, time, task, label, probability."""
        data = self.samples.examples.data
        parts = []
        for task in self.logits:
            says = self.says(task)
            columns: dict[str, Any] = {
                "user": data.users()["id"].take(pa.array(self.column("user")[says])),
                "item": data.items()["id"].take(pa.array(self.column("candidate")[says])),
                "time": self.column("time")[says],
                "task": [task] * int(says.sum()),
                "label": self.column(LABEL_PREFIX + task)[says].astype(np.int8),
                "probability": self.probabilities(task)[says],
            }
            parts.append(pa.table(columns))
        return pa.concat_tables(parts)


@torch.inference_mode()
def predict(
    model: RankingModel,
    samples: ExampleSamples,
    config: ExampleMeasuringConfig,
    world: World,
    check: Callable[[], None] = lambda: None,
) -> Predictions:
    """Scores all examples on all ranks together; the result is the same on each of them, and for any number of them.

    `check` is called before each micro-batch; what it raises on one rank is raised on all.
    """
    was_training = model.training
    model.eval()
    tasks = list(samples.examples.spec.tasks)
    parts: list[np.ndarray] = []

    def score_mine() -> None:
        for first, stop in micro_batches(len(samples), world.rank, world.size):
            check()
            batch = samples.batch(np.arange(first, stop))
            output: RankingOutput = model(batch.to(world.device))
            parts.append(np.stack([output.logits[task].double().cpu().numpy() for task in tasks], axis=1))

    try:
        with threads(config.threads):
            world.together(score_mine)
    finally:
        model.train(was_training)
    mine = np.concatenate([np.empty((0, len(tasks))), *parts])
    gathered = np.concatenate([part.view(np.float64) for part in world.gather(mine.ravel().view(np.int64))])
    places = [np.arange(*span) for rank in range(world.size) for span in micro_batches(len(samples), rank, world.size)]
    logits = np.empty((len(samples), len(tasks)))
    logits[np.concatenate([np.empty(0, np.int64), *places])] = gathered.reshape(-1, len(tasks))
    return Predictions(samples, {task: logits[:, place].copy() for place, task in enumerate(tasks)})


def micro_batches(examples: int, rank: int, ranks: int) -> Iterator[tuple[int, int]]:
    """A rank's (first, stop) of examples; the borders are the same for every number of ranks."""
    for first in range(rank * EXAMPLES_AT_ONCE, examples, ranks * EXAMPLES_AT_ONCE):
        yield first, min(first + EXAMPLES_AT_ONCE, examples)
