"""The values of the two tasks that `attnrec compare` compares: which there are, how they are had, what a metric makes of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attnrec_dist.batch import TaskName
from attnrec_dist.comparison.classification import CLASSIFIED, Scored
from attnrec_dist.data.eval_cases import PROTOCOLS, Part, find_views
from attnrec_dist.distributed import World
from attnrec_dist.errors import ConfigError, DataError
from attnrec_dist.evaluation.classification import check_metric
from attnrec_dist.evaluation.evaluate import POLICIES, MeasuringConfig, evaluate, per_view
from attnrec_dist.evaluation.metrics import parse_metric
from attnrec_dist.evaluation.predict import ExampleMeasuringConfig, Thresholds
from attnrec_dist.evaluation.run import evaluation_config, predictions_of, thresholds_of
from attnrec_dist.evaluation.significance import McNemar, mcnemar
from attnrec_dist.evaluation.user_metrics import Metric, mean_of
from attnrec_dist.inference.load import TrainedModel


@dataclass
class Contender:
    """One of the runs that are compared."""

    name: str
    path: Path
    trained: TrainedModel
    identity: dict[str, Any]
    table: pa.Table | None = None  # what `evaluate --per_view` writes
    thresholds: Thresholds | None = None  # of a ranking run

    @property
    def model_name(self) -> str:
        return str(self.trained.tree["model"]["name"])


class Values(Protocol):
    """The side of one task."""

    def metrics(self, asked: list[str] | None, first: TrainedModel) -> list[str]:
        """Full names of what is compared; by default what chose the first run's checkpoint. Raises ConfigError."""
        ...

    def columns(self, metrics: Sequence[str]) -> list[str]:
        """Columns of the table that these metrics need."""
        ...

    def measured(self, run: Contender, metrics: Sequence[str], split: Part, world: World) -> pa.Table:
        """The table, made now by all ranks together."""
        ...

    def complete(self, run: Contender, world: World) -> None:
        """Adds what the table does not hold, on all ranks together."""
        ...

    def by_user(self, runs: Sequence[Contender], metric: str) -> dict[str, Metric]:
        """A metric of each run, over the users that count for all. Raises DataError where the runs are of other users."""
        ...

    def mcnemar(self, runs: Sequence[Contender], metrics: Sequence[str]) -> dict[str, McNemar]: ...


class NextItemValues:
    """Values of views: protocol/policy/metric."""

    def metrics(self, asked: list[str] | None, first: TrainedModel) -> list[str]:
        asked = asked or [str(first.tree.get("evaluation", {}).get("metric", "next_basket/all/ndcg@10"))]
        columns = [f"{protocol}/{policy}" for protocol in PROTOCOLS for policy in POLICIES]
        wanted = []
        for metric in asked:
            part, _, name = metric.rpartition("/")
            parse_metric(name)
            matching = [column for column in columns if part in ("", column) or part in column.split("/")]
            if not matching:
                close = difflib.get_close_matches(part, [*columns, *PROTOCOLS, *POLICIES], 1, 0)[0]
                raise ConfigError(f"--metric {metric}: there is no {part!r}; did you mean {close}/{name}?")
            wanted += [f"{column}/{name}" for column in matching]
        return list(dict.fromkeys(wanted))

    def columns(self, metrics: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(metric.rpartition("/")[2] for metric in metrics))

    def measured(self, run: Contender, metrics: Sequence[str], split: Part, world: World) -> pa.Table:
        overrides = {"evaluation.metrics": self.columns(metrics)}
        config = evaluation_config(MeasuringConfig, run.trained.tree, overrides, str(run.path))
        views, _ = world.together(lambda: find_views(run.trained.data, run.trained.config, split))
        if not len(views):
            raise ConfigError(f"{run.trained.config.path}: nobody with a history has a target in the {split} part")
        return per_view({run.model_name: evaluate(run.trained.model, views, config, world)}, run.trained.data)

    def complete(self, run: Contender, world: World) -> None:
        pass

    def by_user(self, runs: Sequence[Contender], metric: str) -> dict[str, Metric]:
        protocol, policy, name = metric.split("/")
        tables = {}
        for run in runs:
            table = table_of(run)
            of_model = pc.equal(table["recommender"], run.model_name)
            part = pc.and_(pc.equal(table["protocol"], protocol), pc.equal(table["policy"], policy))
            tables[run.name] = table.filter(pc.and_(of_model, part))
        refuse_others(tables, ["user"])
        columns = {run: table[name].to_numpy().astype(np.float64) for run, table in tables.items()}
        counted = ~np.isnan(np.stack(list(columns.values()))).any(0)
        return {run: mean_of(values[counted]) for run, values in columns.items()}

    def mcnemar(self, runs: Sequence[Contender], metrics: Sequence[str]) -> dict[str, McNemar]:
        return {}


class RankingValues:
    """Probabilities of examples: task/metric."""

    def metrics(self, asked: list[str] | None, first: TrainedModel) -> list[str]:
        tasks = first.data.manifest.examples.tasks if first.data.manifest.examples else []
        wanted = []
        for metric in asked or [str(first.tree.get("evaluation", {}).get("metric", f"{tasks[0]}/auc"))]:
            task, _, name = metric.rpartition("/")
            check_metric(name)
            if task not in ("", *tasks):
                close = (difflib.get_close_matches(task, tasks, 1, 0) or tasks)[0]
                there = f"Its tasks: {', '.join(tasks)}"
                raise ConfigError(f"--metric {metric}: the data set has no task {task!r}; did you mean {close}/{name}? {there}")
            wanted += [f"{each}/{name}" for each in ([task] if task else tasks)]
        return list(dict.fromkeys(wanted))

    def columns(self, metrics: Sequence[str]) -> list[str]:
        return ["user", "item", "time", "task", "label", "probability"]

    def measured(self, run: Contender, metrics: Sequence[str], split: Part, world: World) -> pa.Table:
        config = evaluation_config(ExampleMeasuringConfig, run.trained.tree, {}, str(run.path))
        found = predictions_of(run.trained, split, config, world)
        if not len(found.samples):
            raise ConfigError(f"{run.trained.config.path}: has no examples in the {split} part; name another with --split")
        return found.per_example()

    def complete(self, run: Contender, world: World) -> None:
        config = evaluation_config(ExampleMeasuringConfig, run.trained.tree, {}, str(run.path))
        run.thresholds = thresholds_of(run.trained, config, world)

    def by_user(self, runs: Sequence[Contender], metric: str) -> dict[str, Metric]:
        task, _, name = metric.rpartition("/")
        return {run: CLASSIFIED[name](scored) for run, scored in self._scored(runs, task).items()}

    def mcnemar(self, runs: Sequence[Contender], metrics: Sequence[str]) -> dict[str, McNemar]:
        found = {}
        for task in dict.fromkeys(metric.rpartition("/")[0] for metric in metrics):
            scored = self._scored(runs, task)
            for against, run in combinations(scored, 2):
                found[f"{run} - {against}, {task}"] = mcnemar(scored[run].right, scored[against].right)
        return found

    def _scored(self, runs: Sequence[Contender], task: str) -> dict[str, Scored]:
        tables = {run.name: table_of(run).filter(pc.equal(table_of(run)["task"], task)) for run in runs}
        refuse_others(tables, ["user", "item", "time", "label"])
        first = next(iter(tables.values()))
        users = first["user"].combine_chunks().dictionary_encode()
        place, positive = users.indices.to_numpy().astype(np.int64), first["label"].to_numpy() == 1
        return {
            run.name: Scored(
                positive,
                tables[run.name]["probability"].to_numpy(),
                place,
                len(users.dictionary),
                (run.thresholds or {}).get(task, 0.5),
            )
            for run in runs
        }


def table_of(run: Contender) -> pa.Table:
    if run.table is None:
        raise DataError(f"{run.path}: has not been evaluated")
    return run.table


def refuse_others(tables: dict[str, pa.Table], columns: Sequence[str]) -> None:
    """Raises DataError where the rows of two runs are not of the same."""
    first, *others = tables
    for other in others:
        for column in columns:
            if not tables[first][column].combine_chunks().equals(tables[other][column].combine_chunks()):
                raise DataError(f"{first} and {other} were tested on other {column}s; evaluate both anew on the same data set")


VALUES: dict[TaskName, Values] = {"next_item": NextItemValues(), "ranking": RankingValues()}
