"""Binary cross-entropy on labels, for the ranking task; several tasks are added up, each with its weight.

    loss of an example = sum over the tasks t of  w_t (p_t y_t softplus(-s_t) + (1 - y_t) softplus(s_t))

s_t is the logit, y_t the label; a task that says nothing of an example adds nothing. A positive weight p_t other than 1 makes
rare positives count for more; the probabilities are then no longer calibrated, the order of the examples hardly changes.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attnrec_dist.batch import DataSpec, RankingBatch, RankingOutput
from attnrec_dist.errors import ConfigError
from attnrec_dist.losses.base import Loss, LossConfig


class BinaryConfig(LossConfig):
    name: Literal["binary"] = "binary"
    positive_weight: float | dict[str, float] = Field(
        1.0, description="weight of a positive against a negative; for all tasks, or {task: weight}"
    )
    task_weights: dict[str, float] = Field({}, description="{task: weight in the sum}; 1 where none is given")


class Binary(Loss):
    Config = BinaryConfig
    task = "ranking"

    def __init__(self, config: BinaryConfig, spec: DataSpec):
        super().__init__()
        tasks = tuple(spec.examples.tasks) if spec.examples is not None else ()
        positive = config.positive_weight
        given = positive if isinstance(positive, dict) else dict.fromkeys(tasks, positive)
        self.positive_weight = _of_each_task(given, tasks, "loss.positive_weight")
        self.task_weights = _of_each_task(config.task_weights, tasks, "loss.task_weights")

    def forward(self, output: RankingOutput, batch: RankingBatch, table: object = None) -> Tensor:
        """The sum over the examples of their losses. Tasks of weight 0 are left out."""
        total: Tensor | None = None
        for task, logits in output.logits.items():
            labels = batch.labels[task].to(logits.dtype)
            each = self.positive_weight[task] * labels * F.softplus(-logits) + (1 - labels) * F.softplus(logits)
            part = self.task_weights[task] * (each * batch.label_weights[task].to(logits.dtype)).sum()
            total = part if total is None else total + part
        if total is None:
            raise ConfigError("a loss without tasks; the data set has no examples")
        return total


def _of_each_task(given: dict[str, float], tasks: tuple[str, ...], key: str) -> dict[str, float]:
    unknown = sorted(given.keys() - set(tasks))
    if unknown:
        raise ConfigError(f"{key}: the data set has no task {unknown[0]!r}; its tasks: {', '.join(tasks)}")
    wrong = [task for task, weight in given.items() if not 0 <= weight < float("inf")]
    if wrong:
        raise ConfigError(f"{key}: the weight of {wrong[0]} must be 0 or more (got {given[wrong[0]]})")
    return {task: float(given.get(task, 1.0)) for task in tasks}
