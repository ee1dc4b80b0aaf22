"""Metrics of labels and predicted probabilities: pure functions of float64 arrays in storage order, computed once.

n examples; `labels` are 0 or 1, int [n]; `probabilities` float64 [n]; `users` int64 [n], which need not be sorted. What cannot
be told (one class only) is NaN. scikit-learn computes what it has. It is imported when first needed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attnrec_dist.errors import ConfigError

BINS = 15  # of the calibration error
LOWER_IS_BETTER = ("log_loss", "ece")


@dataclass(frozen=True)
class Predicted:
    """What one task's metrics are computed of."""

    labels: np.ndarray
    probabilities: np.ndarray
    users: np.ndarray
    threshold: float = 0.5  # a probability at or above it counts as a predicted positive

    @property
    def has_both(self) -> bool:
        return 0 < int(self.labels.sum()) < len(self.labels)

    @property
    def decisions(self) -> np.ndarray:
        return (self.probabilities >= self.threshold).astype(np.int64)


def auc(of: Predicted) -> float:
    """Area under the ROC curve: how probable it is that a positive is above a negative, ties half (Hanley and McNeil 1982)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(of.labels, of.probabilities)) if of.has_both else math.nan


def pr_auc(of: Predicted) -> float:
    """Average precision: the area under the precision-recall curve, as steps."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(of.labels, of.probabilities)) if of.labels.any() else math.nan


def gauc(of: Predicted) -> float:
    """Mean of the users' own AUC, weighted by their examples, over users with both classes (Zhou et al. 2018, section 5.3)."""
    values, weights = user_aucs(of)
    return math.fsum(values * weights) / math.fsum(weights) if len(values) else math.nan


def user_aucs(of: Predicted) -> tuple[np.ndarray, np.ndarray]:
    """AUC of each user who has both classes, in ascending order of users, and their numbers of examples, float64 each."""
    if not len(of.labels):
        return np.empty(0), np.empty(0)
    order = np.lexsort((of.probabilities, of.users))
    user, p, y = of.users[order], of.probabilities[order], of.labels[order].astype(np.float64)
    new_user = np.append(True, user[1:] != user[:-1])
    new_value = new_user | np.append(True, p[1:] != p[:-1])
    first, starts = np.flatnonzero(new_user), np.flatnonzero(new_value)
    sizes = np.diff(np.append(first, len(user)))
    middle = starts + (np.diff(np.append(starts, len(user))) - 1) / 2  # ties share the mean of their places
    rank = middle[np.cumsum(new_value) - 1] - np.repeat(first, sizes) + 1
    positives, rank_sums = np.add.reduceat(y, first), np.add.reduceat(rank * y, first)
    negatives = sizes - positives
    both = (positives > 0) & (negatives > 0)
    positives, negatives = positives[both], negatives[both]
    return (rank_sums[both] - positives * (positives + 1) / 2) / (positives * negatives), sizes[both].astype(np.float64)


def log_loss(of: Predicted) -> float:
    """Mean of -log p(label), in nats; probabilities of exactly 0 and 1 are moved inside by float64's resolution."""
    from sklearn.metrics import log_loss as of_sklearn

    return float(of_sklearn(of.labels, of.probabilities, labels=[0, 1])) if len(of.labels) else math.nan


def ece(of: Predicted) -> float:
    """Expected calibration error: mean distance of predicted and observed share over 15 equal bins (Guo et al. 2017)."""
    shown = reliability(of)
    return float((shown.count * np.abs(shown.predicted - shown.observed)).sum() / len(of.labels)) if len(of.labels) else math.nan


def accuracy(of: Predicted) -> float:
    """Share of decisions that are right, at the threshold."""
    return float((of.decisions == of.labels).mean()) if len(of.labels) else math.nan


def precision(of: Predicted) -> float:
    """Of the predicted positives, the share that are positives; 0 where nothing is predicted."""
    return _of_positives(of)[0]


def recall(of: Predicted) -> float:
    """Of the positives, the share that are predicted."""
    return _of_positives(of)[1]


def f1(of: Predicted) -> float:
    """Harmonic mean of precision and recall."""
    return _of_positives(of)[2]


def _of_positives(of: Predicted) -> tuple[float, float, float]:
    from sklearn.metrics import precision_recall_fscore_support

    if not len(of.labels):
        return math.nan, math.nan, math.nan
    precision, recall, f1, _ = precision_recall_fscore_support(of.labels, of.decisions, average="binary", zero_division=0)
    return float(precision), float(recall), float(f1)


METRICS: dict[str, Callable[[Predicted], float]] = {
    "auc": auc,
    "pr_auc": pr_auc,
    "gauc": gauc,
    "log_loss": log_loss,
    "ece": ece,
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}


def check_metric(name: str) -> None:
    """Raises ConfigError with a suggestion where there is no such metric."""
    if name not in METRICS:
        close = difflib.get_close_matches(name.lower(), METRICS, 1, 0.5)
        hint = f"did you mean {close[0]}?" if close else f"known metrics: {', '.join(METRICS)}"
        raise ConfigError(f"unknown metric {name!r} of the ranking task; {hint}")


def higher_is_better(metric: str) -> bool:
    """Of a name such as label/log_loss."""
    return metric.rpartition("/")[2] not in LOWER_IS_BETTER


def values(of: Predicted, names: list[str]) -> dict[str, float]:
    return {name: METRICS[name](of) for name in names}


def best_threshold(of: Predicted) -> float:
    """The threshold with the highest F1, a probability that was predicted; of equals the highest. 0.5 without positives.

    >>> best_threshold(Predicted(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.8]), np.zeros(4, np.int64)))
    0.4
    """
    order = np.argsort(-of.probabilities, kind="stable")
    p, y = of.probabilities[order], of.labels[order].astype(np.int64)
    if not y.any():
        return 0.5
    last = np.append(p[1:] != p[:-1], True)  # equals are predicted together
    hits, predicted = np.cumsum(y)[last], np.flatnonzero(last) + 1
    return float(p[last][np.argmax(2 * hits / (predicted + y.sum()))])


@dataclass(frozen=True)
class Reliability:
    """Per bin that holds an example: how many, their mean predicted probability, their share of positives."""

    count: np.ndarray  # int64 [bins]
    predicted: np.ndarray  # float64 [bins]
    observed: np.ndarray  # float64 [bins]


def reliability(of: Predicted, bins: int = BINS) -> Reliability:
    """Bins of equal width; a probability on a border belongs to the upper one."""
    place = np.minimum((of.probabilities * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    sums = (np.bincount(place, weights=each, minlength=bins)[held] for each in (of.probabilities, of.labels))
    predicted, observed = (each / count[held] for each in sums)
    return Reliability(count[held], predicted, observed)
