"""The pass over all views: scores, exact ranks, values. The figures do not depend on the number of processes (promise 5).

Views are scored in micro-batches whose borders depend on the number of items alone; process r of n takes the micro-batches
r, r + n, ... What is gathered are integers: the ranks of the relevant items, and how often each item was shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import PROTOCOLS, ViewBatch, Views, known_events
from attnrec_dist.distributed import World, threads
from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation import baselines, metrics
from attnrec_dist.evaluation.baselines import BaselinesConfig, Events, Histories, Statistics
from attnrec_dist.evaluation.config import ValidationConfig
from attnrec_dist.evaluation.ranks import ranks
from attnrec_dist.evaluation.results import Result, against_the_best, summarise, view_values
from attnrec_dist.inference.load import score
from attnrec_dist.models.base import NextItemModel
from attnrec_dist.ops.top_k import top_k
from attnrec_dist.settings import Section

SCORES_HELD = 2**25  # elements of the score matrix of one micro-batch: 128 MiB in fp32
MOST_VIEWS = 128  # more are no faster, and with long histories slower: their matrices are taken from the system each time
COVERAGE_K = 10
POLICIES = ("all", "new")
NEWCOMERS_GET = ("trend", "popularity")  # what customers without history are shown, and what else they could be

Scorer = Callable[[ViewBatch], Tensor]


class MeasuringConfig(Section):
    """What is measured, and how: all that `attnrec evaluate` asks."""

    metrics: list[str] = Field(
        ["recall@10", "ndcg@10", "hr@10", "mrr@10", "capped_recall@10"],
        min_length=1,
        description="what is measured, each as name@k",
    )
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads while scoring, fixed so that results do not depend on the machine's cores"
    )
    baselines: BaselinesConfig = Field(BaselinesConfig(), description="what a model has to beat")

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            try:
                metrics.parse_metric(name)
            except ConfigError as error:  # pydantic adds the key's path to a ValueError only
                raise ValueError(str(error)) from None
        return names


class EvaluationConfig(MeasuringConfig, ValidationConfig):
    """The `evaluation` section of a run: when to validate as well, and what the result decides."""

    metric: str = Field(
        "next_basket/all/ndcg@10", description="protocol/policy/metric on validation that chooses the best checkpoint"
    )

    @model_validator(mode="after")
    def _measures_what_it_chooses_by(self) -> EvaluationConfig:
        measured = [f"{protocol}/{policy}/{name}" for protocol in PROTOCOLS for policy in POLICIES for name in self.metrics]
        if self.metric not in measured:
            close = [name for name in measured if name.endswith(f"/{self.metric}")]
            close = close or difflib.get_close_matches(self.metric, measured, 1, 0)
            raise ValueError(
                f"metric: {self.metric!r} is not measured; did you mean {close[0]}? Its name@k must stand in metrics"
            )
        return self


@dataclass
class Measured:
    """The exact ranks of one recommender, in user order, and what share of the catalogue it showed."""

    ranks: dict[str, np.ndarray]  # "protocol/policy" -> int64 [M]
    offsets: dict[str, np.ndarray]  # protocol -> int64 [views of the protocol + 1]
    users: dict[str, np.ndarray]  # protocol -> int64 [views of the protocol]
    coverage: float
    metrics: list[str]

    def values(self) -> dict[str, np.ndarray]:
        """Per view: {"next_basket/all/ndcg@10": float64 [views of the protocol], ...}."""
        return view_values({"": self.ranks}, self.offsets, self.metrics)[""]

    def flat(self) -> dict[str, float]:
        """{"next_basket/all/ndcg@10": mean over the views, ...}."""
        return {column: metrics.mean(of_views) for column, of_views in self.values().items()} | {
            f"coverage@{COVERAGE_K}": self.coverage
        }


def evaluate(
    model: NextItemModel, views: Views, config: MeasuringConfig, world: World, check: Callable[[], None] = lambda: None
) -> Measured:
    """Measures a model on all ranks together; the result is the same on each of them, and for any number of them.

    `check` is called before each micro-batch; what it raises on one rank is raised on all.
    """

    def scorer(batch: ViewBatch) -> Tensor:
        check()
        return score(model, batch.sequences(), world.device)

    was_training = model.training
    model.eval()
    try:
        return measure(scorer, views, config, world)
    finally:
        model.train(was_training)


@dataclass
class Tested:
    """A model beside the baselines: what is printed, and the values of each customer."""

    result: Result
    measured: dict[str, Measured]  # the model first

    def per_view(self, data: DataSet) -> pa.Table:
        return per_view(self.measured, data)


def per_view(of: dict[str, Measured], data: DataSet) -> pa.Table:
    """One row a recommender, protocol, policy and customer; one column a metric, null where nothing was relevant."""
    parts = []
    for recommender, measured in of.items():
        values = measured.values()
        for part in measured.ranks:
            protocol, policy = part.split("/")
            users = measured.users[protocol]
            columns: dict[str, Any] = {
                "recommender": [recommender] * len(users),
                "protocol": [protocol] * len(users),
                "policy": [policy] * len(users),
                "user": data.users()["id"].take(pa.array(users)),
            }
            columns |= {metric: pa.array(values[f"{part}/{metric}"], from_pandas=True) for metric in measured.metrics}
            parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def evaluate_beside_baselines(
    name: str, model: NextItemModel, views: Views, newcomers: Views, config: MeasuringConfig, world: World
) -> Tested:
    """The model and every baseline on the same views, compared customer by customer; newcomers get the trend, told apart."""
    measured = {name: evaluate(model, views, config, world)}
    statistics, of_baselines = measure_baselines(views, config, world)
    measured |= of_baselines
    values = {row: each.values() for row, each in measured.items()}
    of_newcomers = {row: measure(baseline_scorer(row, statistics), newcomers, config, world) for row in NEWCOMERS_GET}
    result = Result(
        split=views.part,
        model=name,
        customers=summarise(values, {row: each.ranks for row, each in measured.items()}, name),
        newcomers=summarise(
            {row: each.values() for row, each in of_newcomers.items()},
            {row: each.ranks for row, each in of_newcomers.items()},
            NEWCOMERS_GET[0],
        ),
        comparisons=against_the_best(values, name),
        coverage={row: each.coverage for row, each in measured.items()},
        notes=statistics.notes,
    )
    return Tested(result, measured)


def measure_baselines(views: Views, config: MeasuringConfig, world: World) -> tuple[Statistics, dict[str, Measured]]:
    """Every baseline that can be computed, on all ranks together."""
    events = (Events(*piece) for piece in known_events(views))
    statistics = baselines.collect(events, views.data.manifest.num_items, views.now, config.baselines)
    return statistics, {row: measure(baseline_scorer(row, statistics), views, config, world) for row in statistics.names}


def baseline_scorer(name: str, statistics: Statistics) -> Scorer:
    def scorer(batch: ViewBatch) -> Tensor:
        histories = Histories(batch.history["item"], batch.history["time"], batch.history_row, len(batch.views))
        return baselines.scores(name, statistics, histories)

    return scorer


def measure(scorer: Scorer, views: Views, config: MeasuringConfig, world: World) -> Measured:
    """Ranks the catalogue for this rank's micro-batches, gathers the integers, and computes every view's values."""
    num_items = views.data.manifest.num_items
    shown = np.zeros(num_items, np.int64)
    table: list[np.ndarray] = [np.empty((0, 4), np.int64)]

    def rank_mine() -> None:
        for first, stop in micro_batches(len(views), num_items, world):
            batch = views.batch(first, stop)
            scores = scorer(batch)
            best = top_k(scores, COVERAGE_K)[1].cpu().numpy()
            np.add.at(shown, best[best >= 0], 1)
            table.append(ranked(batch, scores))
            del scores  # or two of these matrices would take turns in memory

    with threads(config.threads):
        world.together(rank_mine)
    everything = np.concatenate([part.reshape(-1, 4) for part in world.gather(np.concatenate(table).ravel())])
    shown = np.sum(world.gather(shown), axis=0)
    return tabulated(everything, views, config.metrics, metrics.coverage(shown))


def micro_batches(views: int, num_items: int, world: World) -> Iterator[tuple[int, int]]:
    """This rank's (first, stop) of views; the borders are the same for every world."""
    size = max(1, min(MOST_VIEWS, SCORES_HELD // num_items))
    for first in range(world.rank * size, views, world.size * size):
        yield first, min(first + size, views)


def ranked(batch: ViewBatch, scores: Tensor) -> np.ndarray:
    """Rows (view, protocol, rank among all, rank among new items), int64 [M, 4], M over all protocols."""
    items, row = (np.concatenate(each) for each in zip(*(batch.relevant[name] for name in PROTOCOLS)))
    protocol = np.repeat(np.arange(len(PROTOCOLS)), [len(batch.relevant[name][0]) for name in PROTOCOLS])
    span = 1 + items.max(initial=0)
    pairs, place = np.unique(row * span + items, return_inverse=True)  # the next basket is part of the period
    has = batch.history_is_target
    arguments = (pairs % span, pairs // span, batch.history["item"][has], batch.history_row[has])
    tensors = (torch.from_numpy(np.ascontiguousarray(each)).to(scores.device) for each in arguments)
    rank_all, rank_new = (each.cpu().numpy()[place] for each in ranks(scores, *tensors))
    return np.stack([batch.views[row], protocol, rank_all, rank_new], axis=1)


def tabulated(table: np.ndarray, views: Views, names: list[str], coverage: float) -> Measured:
    """The ranks of each view, in user order whichever process computed them."""
    result = Measured({}, {}, {}, coverage, names)
    for bit, protocol in enumerate(PROTOCOLS):
        members = np.flatnonzero(views.protocols >> bit & 1)
        rows = table[table[:, 1] == bit]
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        result.offsets[protocol] = np.searchsorted(rows[:, 0], np.append(members, len(views)))
        result.users[protocol] = views.rows[members]
        for column, policy in enumerate(POLICIES):
            result.ranks[f"{protocol}/{policy}"] = rows[:, 2 + column]
    return result
