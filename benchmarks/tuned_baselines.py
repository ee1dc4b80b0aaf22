"""Every recommender without training, at its best: settings chosen on the validation part, for each column of the table anew.

A column is "protocol/policy"; each takes the settings with the highest NDCG@10 of that column on validation, so a baseline
may be one thing for all items and another for new ones, which no model here may. The choice is kept in a JSON file and holds
for this data set and these grids only.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from next_basket_knn import NextBasketKNN

from attnrec_dist.data.eval_cases import PROTOCOLS, Views, known_events
from attnrec_dist.distributed import World
from attnrec_dist.evaluation import baselines
from attnrec_dist.evaluation.baselines import BaselinesConfig, Events, Statistics
from attnrec_dist.evaluation.evaluate import POLICIES, EvaluationConfig, Measured, Scorer, baseline_scorer, measure
from attnrec_dist.evaluation.metrics import mean

Settings = dict[str, Any]
Columns = dict[str, np.ndarray]  # {"next_basket/all/ndcg@10": float64 [views of the protocol]}

COLUMNS = [f"{protocol}/{policy}" for protocol in PROTOCOLS for policy in POLICIES]
METRICS = ("ndcg@10", "recall@10")
DEFAULT = ", default"  # after the name of a baseline whose settings were not tuned
EVALUATION = EvaluationConfig(metrics=list(METRICS))
MOST_CELLS = 250  # a larger grid is climbed instead, a key at a time, from START
GRIDS: dict[str, dict[str, list]] = {
    "popularity": {},
    "trend": {"trend_days": [3, 7, 14, 28, 56, 112]},
    "own_frequency": {"half_life_days": [5, 10, 20, 40, 60, 80, 160, 320, None]},
    "own_trend": {
        "half_life_days": [10, 20, 40, 60, 120, 240, None],
        "trend_weight": [0.1, 0.3, 1, 3, 10, 30],
        "trend_days": [3, 7, 14, 28, 56],
    },
    "item_graph": {"neighbours": [3, 5, 10, 20, 50, 100, 200, 500, 1000]},
    "tifu_knn": {
        "neighbours": [10, 30, 100, 300, 900],
        "groups": [1, 3, 7, 15, 30, 60],
        "within_decay": [0.4, 0.6, 0.8, 0.9, 1.0],
        "group_decay": [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0],
        "own_share": [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97],
    },
    "up_cf": {
        "window": [1, 3, 5, 10, 25, None],
        "asymmetry": [0, 0.25, 0.5, 0.75, 1],
        "locality": [1, 2, 5, 10, 20, 50, 100],
    },
}
PUBLISHED = {"tifu_knn": NextBasketKNN.tifu_knn, "up_cf": NextBasketKNN.up_cf}
START: dict[str, Settings] = {
    "tifu_knn": {"neighbours": 300, "groups": 7, "within_decay": 0.9, "group_decay": 0.7, "own_share": 0.7},
}


class KeptViews(Views):
    """Views whose batches stay in memory: tuning reads them hundreds of times."""

    @classmethod
    def of(cls, views: Views) -> KeptViews:
        return cls(**vars(views))

    def __post_init__(self) -> None:
        self.batch = functools.cache(super().batch)  # type: ignore[method-assign]


class Contenders:
    """The recommenders of GRIDS on one part of a data set; all events before its cut are known to them."""

    def __init__(self, views: Views):
        self.views = KeptViews.of(views)
        self.knn = NextBasketKNN(views)
        self.events = [Events(*piece) for piece in known_events(views)]
        self.statistics = functools.lru_cache(4)(self._statistics)

    @property
    def names(self) -> list[str]:
        """Without the item graph where no basket holds two items."""
        has_graph = self.statistics(14, 1).graph is not None
        return [name for name in GRIDS if name != "item_graph" or has_graph]

    def measured(self, name: str, settings: Settings) -> Measured:
        return measure(self.scorer(name, settings), self.views, EVALUATION, World())

    def scorer(self, name: str, settings: Settings) -> Scorer:
        if name in PUBLISHED:
            return PUBLISHED[name](self.knn, **settings)
        days = settings.get("trend_days", 14)
        statistics = self.statistics(days, settings.get("neighbours", 0))
        config = statistics.config.model_copy(update=settings)
        return baseline_scorer(name, Statistics(statistics.popularity, statistics.trend, statistics.graph, (), config))

    @property
    def untuned(self) -> dict[str, dict[str, dict]]:
        """The baselines as `attnrec evaluate` prints them, in the shape of `tuned`.

        Tuning can miss what the test part likes; own_trend's defaults were read off the bundled log's test part.
        """
        default = BaselinesConfig()
        settings = {name: {key: getattr(default, key) for key in GRIDS[name]} for name in self.names if name not in PUBLISHED}
        return {f"{name}{DEFAULT}": {key: {"settings": each} for key in COLUMNS} for name, each in settings.items() if each}

    def _statistics(self, trend_days: float, neighbours: int) -> Statistics:
        graph = {"neighbours": neighbours} if neighbours else {"graph_events": 0}
        config = BaselinesConfig(trend_days=trend_days, **graph)
        return baselines.collect(self.events, self.views.data.manifest.num_items, self.views.now, config)

    def board(self, chosen: Mapping[str, Mapping[str, Mapping]]) -> dict[str, Columns]:
        """{name: values of each customer}, each column with the settings chosen for it; what follows a comma is a remark."""
        result: dict[str, Columns] = {}
        for name, of_columns in chosen.items():
            kind = name.partition(",")[0]
            measured = functools.cache(lambda key, kind=kind: self.measured(kind, json.loads(key)).values())
            result[name] = {
                f"{column}/{metric}": measured(json.dumps(of_columns[column]["settings"]))[f"{column}/{metric}"]
                for column in COLUMNS
                for metric in METRICS
            }
        return result


def tuned(validation: Views, keep_in: Path) -> dict[str, dict[str, dict]]:
    """{name: {column: {"settings", "validation"}}}, from `keep_in` where that fits the data and the grids, else by search."""
    config = validation.config
    key = {
        "data": validation.data.manifest.fingerprint,
        "basket": config.basket,
        "target_events": config.target_events,
        "grids": GRIDS,
    }
    if keep_in.is_file():
        kept = json.loads(keep_in.read_text())
        if {name: kept.get(name) for name in key} == key:
            return kept["chosen"]
    contenders = Contenders(validation)
    chosen = {}
    for name in contenders.names:
        chosen[name] = tune(lambda settings, name=name: flat(contenders.measured(name, settings)), GRIDS[name], START.get(name))
        print(f"{name:14}" + "  ".join(f"{column} {best['validation']:.4f}" for column, best in chosen[name].items()), flush=True)
    keep_in.parent.mkdir(parents=True, exist_ok=True)
    keep_in.write_text(json.dumps({**key, "chosen": chosen}, indent=1) + "\n")
    return chosen


def flat(measured: Measured) -> dict[str, float]:
    """{column: mean NDCG@10}."""
    values = measured.values()
    return {column: mean(values[f"{column}/ndcg@10"]) for column in COLUMNS}


def tune(
    value: Callable[[Settings], dict[str, float]], grid: Mapping[str, Sequence], start: Settings | None = None
) -> dict[str, dict]:
    """{column: {"settings", "validation", "tried"}}: the best cell of the grid, of a large one the best that climbing meets."""
    seen: dict[str, dict[str, float]] = {}

    def look(settings: Settings) -> dict[str, float]:
        key = json.dumps(settings)
        if key not in seen:
            seen[key] = value(settings)
        return seen[key]

    if math.prod(map(len, grid.values())) <= MOST_CELLS:
        for cell in itertools.product(*grid.values()):
            look(dict(zip(grid, cell, strict=True)))
        columns = list(next(iter(seen.values())))
    else:
        middle = {key: values[len(values) // 2] for key, values in grid.items()}
        columns = list(look(middle))
        for column in columns:
            for first in (start or middle, middle):
                climb(lambda settings, column=column: look(settings)[column], grid, first)
        for column in columns:  # a climb for one column may have met a better place for another
            climb(lambda settings, column=column: look(settings)[column], grid, json.loads(best_key(seen, column)))
    result = {}
    for column in columns:
        best = best_key(seen, column)
        result[column] = {"settings": json.loads(best), "validation": seen[best][column], "tried": len(seen)}
    return result


def best_key(seen: Mapping[str, Mapping[str, float]], column: str) -> str:
    """The first of those with the highest value; NaN, nobody to ask, is the lowest."""
    return max(seen, key=lambda key: -math.inf if math.isnan(seen[key][column]) else seen[key][column])


def climb(value: Callable[[Settings], float], grid: Mapping[str, Sequence], start: Settings) -> Settings:
    """The best value of one key after another, the others held, round and round until no key gains."""
    best = dict(start)
    while True:
        before = best
        for key, values in grid.items():
            best = max([best, *({**best, key: each} for each in values)], key=value)
        if best == before:
            return best
