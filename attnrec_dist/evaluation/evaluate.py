"""The pass over all views: scores, exact ranks, values. The figures do not depend on how many processes computed them (promise 5).

Views are scored in micro-batches whose borders depend on the number of items alone; process r of n takes the micro-batches
r, r + n, ... What is gathered are integers: the ranks of the relevant items, and how often each item was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from attnrec_dist.data.views import PROTOCOLS, ViewBatch, Views, known_events
from attnrec_dist.distributed import World
from attnrec_dist.evaluation import baselines, metrics
from attnrec_dist.evaluation.baselines import BaselinesConfig, Events, Histories, Statistics
from attnrec_dist.evaluation.ranking import ranks
from attnrec_dist.inference.load import score
from attnrec_dist.ops.top_k import top_k
from attnrec_dist.settings import Section

SCORES_HELD = 2**25  # elements of the score matrix of one micro-batch: 128 MiB in fp32
MOST_VIEWS = 256
COVERAGE_K = 10
POLICIES = ("all", "new")

Scorer = Callable[[ViewBatch], Tensor]


class EvaluationConfig(Section):
    every_epochs: float = Field(1.0, gt=0, description="epochs between validations")
    every_steps: int | None = Field(None, ge=1, description="steps between validations, instead of every_epochs")
    metric: str = Field("next_basket/all/ndcg@10", description="protocol/policy/metric on validation that chooses the best checkpoint")
    patience: int | None = Field(None, ge=1, description="validations without gain that end the training; null: never")
    metrics: list[str] = Field(
        ["recall@10", "ndcg@10", "hr@10", "mrr@10", "capped_recall@10"], min_length=1, description="what is measured, each as name@k"
    )
    threads: int = Field(1, ge=1, description="CPU threads while scoring, fixed so that results do not depend on the machine's cores")
    baselines: BaselinesConfig = Field(BaselinesConfig(), description="what a model has to beat")

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            metrics.parse_metric(name)
        return names


@dataclass
class Measured:
    """One recommender's values: per view under each protocol and policy, and what share of the catalogue it showed."""

    values: dict[str, dict[str, dict[str, np.ndarray]]]  # protocol -> policy -> metric -> float64 [views of the protocol]
    users: dict[str, np.ndarray]  # protocol -> int64 [views of the protocol]
    coverage: float
    cold_targets: dict[str, int]  # protocol -> relevant items without training events: misses

    def flat(self) -> dict[str, float]:
        """{"next_basket/all/ndcg@10": mean over the views, ...}."""
        means = {
            f"{protocol}/{policy}/{metric}": metrics.mean(values)
            for protocol, policies in self.values.items()
            for policy, by_metric in policies.items()
            for metric, values in by_metric.items()
        }
        return means | {f"coverage@{COVERAGE_K}": self.coverage}


def evaluate(model: nn.Module, views: Views, config: EvaluationConfig, world: World) -> Measured:
    """Measures a model on all ranks together; the result is the same on each of them, and for any number of them."""
    was_training = model.training
    model.eval()
    try:
        return measure(lambda batch: score(model, batch.batch, world.device), views, config, world)
    finally:
        model.train(was_training)


def evaluate_baselines(views: Views, config: EvaluationConfig, world: World) -> tuple[dict[str, Measured], tuple[str, ...]]:
    """Measures the hand-made baselines in the same pass; notes say which were left out and why."""
    events = (Events(*piece) for piece in known_events(views))
    statistics = baselines.collect(events, views.data.manifest.num_items, views.now, config.baselines)
    measured = {name: measure(baseline_scorer(name, statistics), views, config, world) for name in statistics.names}
    return measured, statistics.notes


def baseline_scorer(name: str, statistics: Statistics) -> Scorer:
    def scorer(batch: ViewBatch) -> Tensor:
        histories = Histories(batch.history_items, batch.history_times, batch.history_row, len(batch.views))
        return baselines.scores(name, statistics, histories)

    return scorer


def measure(scorer: Scorer, views: Views, config: EvaluationConfig, world: World) -> Measured:
    """Ranks the catalogue for this rank's micro-batches, gathers the integers, and computes every view's values."""
    num_items = views.data.manifest.num_items
    shown = np.zeros(num_items, np.int64)
    table: list[np.ndarray] = [np.empty((0, 4), np.int64)]
    with threads(config.threads):
        for first, stop in micro_batches(len(views), num_items, world):
            batch = views.batch(first, stop)
            scores = scorer(batch)
            best = top_k(scores, COVERAGE_K)[1].cpu().numpy()
            np.add.at(shown, best[best >= 0], 1)
            table += [ranked(batch, scores, protocol) for protocol in range(len(PROTOCOLS))]
    everything = np.concatenate([part.reshape(-1, 4) for part in world.gather(np.concatenate(table).ravel())])
    shown = np.sum(world.gather(shown), axis=0)
    return tabulated(everything, views, config.metrics, metrics.coverage(shown))


def micro_batches(views: int, num_items: int, world: World) -> Iterator[tuple[int, int]]:
    """This rank's (first, stop) of views; the borders are the same for every world."""
    size = max(1, min(MOST_VIEWS, SCORES_HELD // num_items))
    for first in range(world.rank * size, views, world.size * size):
        yield first, min(first + size, views)


def ranked(batch: ViewBatch, scores: Tensor, protocol: int) -> np.ndarray:
    """Rows (view, protocol, rank among all, rank among new items), int64 [M, 4]."""
    items, row = batch.relevant[PROTOCOLS[protocol]]
    has = batch.history_is_target
    device = scores.device
    arguments = (items, row, batch.history_items[has], batch.history_row[has])
    rank_all, rank_new = ranks(scores, *(torch.from_numpy(np.ascontiguousarray(each)).to(device) for each in arguments))
    return np.stack([batch.views[row], np.full(len(row), protocol), rank_all.cpu().numpy(), rank_new.cpu().numpy()], axis=1)


def tabulated(table: np.ndarray, views: Views, names: list[str], coverage: float) -> Measured:
    """Values of each view, in user order whichever process ranked it."""
    result = Measured({}, {}, coverage, {})
    for bit, protocol in enumerate(PROTOCOLS):
        members = np.flatnonzero(views.protocols >> bit & 1)
        rows = table[table[:, 1] == bit]
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        offsets = np.searchsorted(rows[:, 0], np.append(members, len(views)))
        result.users[protocol] = views.rows[members]
        result.cold_targets[protocol] = int((rows[:, 2] == 0).sum())
        result.values[protocol] = {
            policy: {name: metrics.per_view(name, rows[:, 2 + column], offsets) for name in names}
            for column, policy in enumerate(POLICIES)
        }
    return result


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A stated number of CPU threads, so that sums are added in one order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
