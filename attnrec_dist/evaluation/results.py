"""The figures of an evaluation: values of each view, their means, and pairwise comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attnrec_dist.evaluation.metrics import mean, per_view
from attnrec_dist.evaluation.ranks import MISS, NOT_RELEVANT
from attnrec_dist.evaluation.significance import Difference, paired_difference

Ranks = Mapping[str, Mapping[str, np.ndarray]]  # {row: {"protocol/policy": int [M]}}
Values = dict[str, dict[str, np.ndarray]]  # {row: {column: float64 [views]}}


@dataclass(frozen=True)
class Group:
    """The figures of some customers."""

    values: dict[str, dict[str, float]]  # {row: {column: mean over the views that count}}; the model is the first row
    views: dict[str, int]  # {"protocol/policy": views with a relevant item}
    relevant: dict[str, int]  # {"protocol/policy": their relevant items}
    cold: dict[str, int]  # {"protocol/policy": those of them that are not in the catalogue}


@dataclass(frozen=True)
class Comparison:
    """The model (A) against the best baseline (B) of a column."""

    baseline: str
    difference: Difference


@dataclass(frozen=True)
class Result:
    """What an evaluation found."""

    split: str  # "test" or "validation"
    model: str  # name of the model's row
    customers: Group  # with history
    newcomers: Group | None = None  # without history before the cut, told apart
    comparisons: dict[str, Comparison] = field(default_factory=dict)  # {column: ...}
    coverage: dict[str, float] = field(default_factory=dict)  # {row: share of the catalogue shown to anybody}
    notes: tuple[str, ...] = ()  # what was left out, and why


def view_values(ranks: Ranks, offsets: Mapping[str, np.ndarray], metrics: Sequence[str]) -> Values:
    """Every metric of every view, NaN where a view has no relevant item.

    Args:
        ranks: of each row under each "protocol/policy", as `ranking.ranks` gives them
        offsets: {protocol: int [views + 1]}, where each view's ranks begin
        metrics: such as "ndcg@10"
    """
    return {
        row: {
            f"{part}/{metric}": per_view(metric, part_ranks, offsets[part.split("/")[0]])
            for part, part_ranks in parts.items()
            for metric in metrics
        }
        for row, parts in ranks.items()
    }


def summarise(values: Values, ranks: Ranks, model: str) -> Group:
    """Means and counts of a group of views; the counts are the same for every row."""
    rows = [model, *(row for row in values if row != model)]
    counted = {column.rpartition("/")[0]: int((~np.isnan(of_views)).sum()) for column, of_views in values[model].items()}
    return Group(
        values={row: {column: mean(of_views) for column, of_views in values[row].items()} for row in rows},
        views=counted,
        relevant={part: int((part_ranks != NOT_RELEVANT).sum()) for part, part_ranks in ranks[model].items()},
        cold={part: int((part_ranks == MISS).sum()) for part, part_ranks in ranks[model].items()},
    )


def against_the_best(values: Values, model: str, seed: int = 0) -> dict[str, Comparison]:
    """In each column the model against the baseline with the highest mean (the first of equals)."""
    baselines = [row for row in values if row != model]
    comparisons = {}
    for column, of_views in values[model].items():
        means = {row: mean(values[row][column]) for row in baselines}
        comparable = [row for row in baselines if not math.isnan(means[row])]
        if comparable:
            best = max(comparable, key=lambda row: means[row])
            comparisons[column] = Comparison(best, paired_difference(of_views, values[best][column], seed))
    return comparisons
