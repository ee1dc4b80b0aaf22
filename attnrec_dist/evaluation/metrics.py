"""Ranking metrics of each view, from integer ranks. A metric is its values per view; the figure told is their mean.

Names are `metric@k`, k the length of the list shown. In the formulas r runs over the ranks of a view's R relevant items;
cold items (rank 0) are in R and never in the list. Binary relevance throughout.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation.ranks import MISS, NOT_RELEVANT
from attnrec_dist.registry import Registry


@dataclass(frozen=True)
class Hits:
    """The relevant items that made it into the top k, and how many there were."""

    rank: np.ndarray  # float64 [n], from 1 to k
    view: np.ndarray  # int64 [n], the view of each
    relevant: np.ndarray  # int64 [views], R of each view
    k: int

    def sum(self, gain: np.ndarray) -> np.ndarray:
        """Sum of a gain a hit, float64 [views], added in the order of a view's items whatever the other views are."""
        return np.bincount(self.view, weights=gain, minlength=len(self.relevant))

    def count(self) -> np.ndarray:
        return np.bincount(self.view, minlength=len(self.relevant)).astype(np.float64)


def recall(hits: Hits) -> np.ndarray:
    """|r <= k| / R, as ranx has it: cannot reach 1 where R > k.

    >>> per_view("recall@2", np.array([1, 4, 0]), np.array([0, 3]))    # one of three is found
    array([0.33333333])
    """
    return hits.count() / hits.relevant


def capped_recall(hits: Hits) -> np.ndarray:
    """|r <= k| / min(k, R): 1 where the list holds nothing but relevant items.

    >>> per_view("capped_recall@2", np.array([1, 4, 0]), np.array([0, 3]))
    array([0.5])
    """
    return hits.count() / np.minimum(hits.k, hits.relevant)


def precision(hits: Hits) -> np.ndarray:
    """|r <= k| / k.

    >>> per_view("precision@4", np.array([1, 4, 9]), np.array([0, 3]))
    array([0.5])
    """
    return hits.count() / hits.k


def hit_rate(hits: Hits) -> np.ndarray:
    """1 if any r <= k, else 0.

    >>> per_view("hr@3", np.array([2, 9, 5, 0]), np.array([0, 2, 4]))
    array([1., 0.])
    """
    return (hits.count() > 0).astype(np.float64)


def reciprocal_rank(hits: Hits) -> np.ndarray:
    """1 / min r if that is <= k, else 0; its mean is the MRR (Voorhees, TREC-8 1999).

    >>> per_view("mrr@3", np.array([2, 3, 5, 0]), np.array([0, 2, 4]))
    array([0.5, 0. ])
    """
    best = np.zeros(len(hits.relevant))
    np.maximum.at(best, hits.view, 1 / hits.rank)
    return best


def ndcg(hits: Hits) -> np.ndarray:
    """sum of 1 / log2(r + 1) over r <= k, over the same sum for r = 1 .. min(k, R) (Jarvelin and Kekalainen 2002, binary).

    >>> per_view("ndcg@10", np.array([1, 3]), np.array([0, 2])).round(6)   # (1 + 1/2) / (1 + 1/log2(3))
    array([0.919721])
    """
    possible = np.minimum(hits.k, hits.relevant)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, possible.max(initial=0) + 2)))])
    return hits.sum(1 / np.log2(hits.rank + 1)) / ideal[possible]


METRICS: Registry[Callable[[Hits], np.ndarray]] = Registry(
    "evaluation.metrics",
    "attnrec_dist.metrics",
    {
        "recall": recall,
        "capped_recall": capped_recall,
        "precision": precision,
        "hr": hit_rate,
        "mrr": reciprocal_rank,
        "ndcg": ndcg,
    },
)


def parse_metric(name: str) -> tuple[str, int]:
    """The parts of `metric@k`. Raises ConfigError with a suggestion.

    >>> parse_metric("ndcg@10")
    ('ndcg', 10)
    """
    stem, at, k = name.partition("@")
    known = METRICS.names()
    if stem not in known:
        close = difflib.get_close_matches(stem.lower(), known, 1, 0.5)
        hint = f"did you mean {close[0]}@{k or 10}?" if close else f"known metrics: {', '.join(known)}, each with @k"
        raise ConfigError(f"unknown metric {name!r}; {hint}")
    if not at:
        raise ConfigError(f"metric {name!r} lacks the length of the list; write for example {stem}@10")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", k):
        raise ConfigError(f"metric {name!r}: what follows the @ must be a whole number from 1; write for example {stem}@10")
    return stem, int(k)


def per_view(name: str, ranks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """A metric's value of each view, float64 [views]; NaN for a view without relevant items.

    Args:
        name: `metric@k`
        ranks: int [M], what `ranking.ranks` gives under one policy
        offsets: int [views + 1]; view v owns ranks[offsets[v]:offsets[v + 1]]
    """
    stem, k = parse_metric(name)
    views = len(offsets) - 1
    view = np.repeat(np.arange(views), np.diff(offsets))
    relevant = np.bincount(view[ranks != NOT_RELEVANT], minlength=views)
    hit = (ranks > MISS) & (ranks <= k)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = METRICS.find(stem)(Hits(ranks[hit].astype(np.float64), view[hit], relevant, k))
    return np.where(relevant > 0, values, np.nan)


def mean(values: np.ndarray) -> float:
    """Mean of the views that count (not NaN), rounded once from the exact sum: the order of the views cannot matter."""
    counted = values[~np.isnan(values)]
    return math.fsum(counted) / len(counted) if len(counted) else math.nan


def coverage(recommended: np.ndarray) -> float:
    """Share of the catalogue that anybody was shown; `recommended` int [V] counts each item's places in top-k lists.

    >>> coverage(np.array([3, 0, 1, 0]))
    0.5
    """
    return float(np.count_nonzero(recommended) / len(recommended))
