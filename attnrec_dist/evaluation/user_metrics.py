"""A metric as a function of how much each user counts: users are drawn anew or swapped without copying one example.

A user's examples belong together (they share his habits), so it is users that are resampled, never single examples. Two kinds:

    Sums     what a function makes of sums over examples: means, accuracy, precision, recall, F1, log loss, GAUC, ECE
    Ranked   what only the order of all examples tells: ROC-AUC, average precision

U users, n examples, R resamples, k sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from typing import Any

import numpy as np

STEP = 1e-6  # of the numeric gradient, relative to the number of users: of a smooth function, so nine digits are right


@dataclass(frozen=True)
class Sums:
    """The metric of(x), x = sum over users of their parts. `of` is float64 [..., k] -> [...]."""

    parts: np.ndarray  # float64 [U, k]
    of: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.parts)

    @cached_property
    def total(self) -> np.ndarray:
        """Each sum rounded once, [k]: the order of the users cannot matter."""
        return np.array([fsum(column) for column in self.parts.T])

    @property
    def value(self) -> float:
        return float(_quietly(self.of, self.total))

    def cost(self) -> int:
        """Numbers that one resample touches."""
        return len(self.parts)

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """[R] from how often each user was drawn, float64 [R, U]."""
        return _quietly(self.of, counts @ self.parts)

    def differing(self, other: Sums) -> np.ndarray:
        """Indices of users of whom it matters whose examples are taken."""
        return np.flatnonzero((self.parts != other.parts).any(1))

    def swapped(self, other: Sums, users: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both metrics [R] after some users' examples changed places: where keep [R, len(users)], of 0 and 1, is 0."""
        kept = keep @ (self.parts[users] - other.parts[users])
        moved = kept - (self.parts[users] - other.parts[users]).sum(0)
        return _quietly(self.of, self.total + moved), _quietly(self.of, other.total - moved)

    def influence(self) -> np.ndarray:
        """What one more of each user would add to the metric, to first order, [U]: its gradient in the users' weights."""
        scale = np.maximum(np.abs(self.total), np.abs(self.parts).mean(0) * len(self)) * STEP
        steps = np.diag(np.where(scale > 0, scale, STEP))
        slope = _quietly(self.of, self.total + steps) - _quietly(self.of, self.total - steps)
        return self.parts @ (slope / (2 * steps.diagonal()))


def _quietly(of: Callable[[Any], Any], sums: np.ndarray) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return of(sums)


def ratio(sums: np.ndarray) -> np.ndarray:
    """Of the sums [..., 2]: numerator over denominator; NaN for 0 / 0."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def share(sums: np.ndarray) -> np.ndarray:
    """As `ratio`, but 0 for 0 / 0, as scikit-learn has precision, recall and F1."""
    return np.where(sums[..., 1] == 0, 0.0, ratio(sums))


def mean_of(values: np.ndarray) -> Sums:
    """The mean of one value a user, float64 [U], none NaN."""
    return Sums(np.stack([values, np.ones(len(values))], 1), ratio)


@dataclass(frozen=True)
class Sorted:
    """Examples in descending order of their scores; equal scores form a group."""

    owner: np.ndarray  # int64 [n] whose weight the example has
    positive: np.ndarray  # bool [n]
    starts: np.ndarray  # int64 [groups] first example of each

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray, owner: np.ndarray) -> Sorted:
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
        return cls(owner[order], positive[order], starts)

    def weighed(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the positives and of the negatives of each group, [R, groups], from weights [R, owners]."""
        each = weights[:, self.owner]
        hits = np.add.reduceat(np.where(self.positive, each, 0.0), self.starts, axis=1)
        return hits, np.add.reduceat(each, self.starts, axis=1) - hits

    def group(self) -> np.ndarray:
        """The group of each example, [n]."""
        return np.repeat(np.arange(len(self.starts)), np.diff(np.append(self.starts, len(self.owner))))


def auc(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Probability that a positive is scored above a negative, ties half (Fawcett 2006), [R] from weights [R, groups]."""
    below = misses.sum(1, keepdims=True) - misses.cumsum(1)
    return np.asarray((hits * (below + misses / 2)).sum(1) / (hits.sum(1) * misses.sum(1)))


def auc_gradient(hits: np.ndarray, misses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one more positive, and one more negative, of each group would add to the AUC, [groups] each (DeLong 1988)."""
    value = auc(hits[None], misses[None])[0]
    below, above = misses.sum() - misses.cumsum(), hits.cumsum() - hits
    return (
        ((below + misses / 2) / misses.sum() - value) / hits.sum(),
        ((above + hits / 2) / hits.sum() - value) / misses.sum(),
    )


def average_precision(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Sum over groups of (recall gained) x precision so far, as scikit-learn has it, [R] from weights [R, groups]."""
    found = hits.cumsum(1)
    precision = np.divide(found, found + misses.cumsum(1), out=np.zeros_like(found), where=found > 0)
    return np.asarray((hits * precision).sum(1) / hits.sum(1))


def average_precision_gradient(hits: np.ndarray, misses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `auc_gradient`, of the average precision."""
    found, shown = hits.cumsum(), (hits + misses).cumsum()
    precision, value = found / shown, average_precision(hits[None], misses[None])[0]

    def from_here_on(values: np.ndarray) -> np.ndarray:  # an example counts in the precision at its own group and all after it
        return values[::-1].cumsum()[::-1]

    of_positive = precision - value + from_here_on(hits * (shown - found) / shown**2)
    return of_positive / hits.sum(), -from_here_on(hits * found / shown**2) / hits.sum()


RANKED = {"auc": (auc, auc_gradient), "pr_auc": (average_precision, average_precision_gradient)}


class Ranked:
    """A metric of the order of all examples, `kind` a name in RANKED.

    Args:
        positive: bool [n]
        scores: float64 [n], higher for what is likelier
        users: int64 [n], 0 to U - 1
        num_users: U
    """

    def __init__(self, kind: str, positive: np.ndarray, scores: np.ndarray, users: np.ndarray, num_users: int):
        self.positive, self.scores, self.users, self.num_users = positive, scores, users, num_users
        self.kind = kind
        self._of, self._gradient = RANKED[kind]
        self._sorted = Sorted.of(scores, positive, users)

    def __len__(self) -> int:
        return self.num_users

    @cached_property
    def value(self) -> float:
        return float(self.resampled(np.ones((1, self.num_users)))[0])

    def cost(self) -> int:
        return 4 * len(self.users)

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._of(*self._sorted.weighed(counts))

    def differing(self, other: Ranked) -> np.ndarray:
        return np.arange(self.num_users)

    def swapped(self, other: Ranked, users: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two may score on other scales, so their ranks are what changes places (Venkatraman and Begg 1996)."""
        pooled = self._pooled(other)
        weights = np.concatenate([keep, 1 - keep], 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._of(*pooled.weighed(weights)), self._of(*pooled.weighed(1 - weights))

    def _pooled(self, other: Ranked) -> Sorted:
        """Both runs' examples in one order of ranks; user u owns u in the first run and U + u in the second."""
        key, pooled = self.__dict__.get("_last_pooled", (None, None))
        if key is not other:
            ranks = np.concatenate([_midranks(self.scores), _midranks(other.scores)])
            owner = np.concatenate([self.users, self.num_users + other.users])
            pooled = Sorted.of(ranks, np.concatenate([self.positive, other.positive]), owner)
            self._last_pooled = (other, pooled)
        return pooled

    def influence(self) -> np.ndarray:
        hits, misses = (each[0] for each in self._sorted.weighed(np.ones((1, self.num_users))))
        of_positive, of_negative = self._gradient(hits, misses)
        group = self._sorted.group()
        each = np.where(self._sorted.positive, of_positive[group], of_negative[group])
        return np.bincount(self._sorted.owner, weights=each, minlength=self.num_users)


def _midranks(scores: np.ndarray) -> np.ndarray:
    """Rank from 1, ties sharing their mean, [n]."""
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[group]


Metric = Sums | Ranked
