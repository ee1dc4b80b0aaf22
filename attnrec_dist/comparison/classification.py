"""The metrics of classification.py as functions of users' weights, for comparing two runs: user_metrics.py says why.

n examples of U users; an example has a label (bought or not) and a probability; from the threshold on it is classified positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from attnrec_dist.evaluation.classification import BINS
from attnrec_dist.evaluation.user_metrics import Metric, Ranked, Sums, ratio, share


@dataclass(frozen=True)
class Scored:
    """What one run says of the examples of a test part."""

    positive: np.ndarray  # bool [n] the label
    probability: np.ndarray  # float64 [n]
    users: np.ndarray  # int64 [n], 0 to num_users - 1
    num_users: int
    threshold: float = 0.5

    @cached_property
    def said(self) -> np.ndarray:
        """Whether each is classified positive, bool [n]."""
        return self.probability >= self.threshold

    @property
    def right(self) -> np.ndarray:
        return self.said == self.positive

    def summed(self, *columns: np.ndarray) -> np.ndarray:
        """Each user's sums of some values an example, float64 [U, k]."""
        return np.stack([np.bincount(self.users, weights=column, minlength=self.num_users) for column in columns], 1)


def accuracy(of: Scored) -> Sums:
    """Share of the examples that are classified right."""
    return Sums(of.summed(of.right, np.ones(len(of.users))), ratio)


def precision(of: Scored) -> Sums:
    """Share of the positives among what is classified positive."""
    return Sums(of.summed(of.said & of.positive, of.said), share)


def recall(of: Scored) -> Sums:
    """Share of the positives that are classified positive."""
    return Sums(of.summed(of.said & of.positive, of.positive), share)


def f1(of: Scored) -> Sums:
    """Harmonic mean of precision and recall: 2 true positives over (classified positive + positive)."""
    return Sums(of.summed(2 * (of.said & of.positive), of.said.astype(int) + of.positive), share)


def log_loss(of: Scored) -> Sums:
    """Mean of -log of the probability given to what happened, clipped as scikit-learn clips."""
    smallest = np.finfo(np.float64).eps
    given = np.clip(np.where(of.positive, of.probability, 1 - of.probability), smallest, 1 - smallest)
    return Sums(of.summed(-np.log(given), np.ones(len(given))), ratio)


def ece(of: Scored) -> Sums:
    """Expected calibration error (Guo 2017): over bins of equal width, |mean probability - share of positives|, by size."""
    bins = np.clip((of.probability * BINS).astype(int), 0, BINS - 1)
    width = BINS + 1
    parts = np.bincount(of.users * width + bins, weights=of.probability - of.positive, minlength=of.num_users * width)
    parts = parts.reshape(of.num_users, width)
    parts[:, -1] = np.bincount(of.users, minlength=of.num_users)
    return Sums(parts, lambda sums: np.abs(sums[..., :-1]).sum(-1) / sums[..., -1])


def gauc(of: Scored) -> Sums:
    """AUC within each user that has both labels, averaged by his number of examples (Zhou et al. 2018, section 6.2)."""
    order = np.lexsort((of.probability, of.users))
    user, score, positive = of.users[order], of.probability[order], of.positive[order]
    new = np.append(True, (user[1:] != user[:-1]) | (score[1:] != score[:-1]))
    first = np.flatnonzero(new)
    size = np.diff(np.append(first, len(user)))
    group = np.cumsum(new) - 1
    begin = np.searchsorted(user, np.arange(of.num_users))  # the user's first example
    rank = (first + (size + 1) / 2)[group] - begin[user]  # midrank inside the user, from 1
    positives = np.bincount(user, weights=positive, minlength=of.num_users)
    examples = np.bincount(user, minlength=of.num_users)
    ranks = np.bincount(user, weights=rank * positive, minlength=of.num_users)
    pairs = positives * (examples - positives)
    both = pairs > 0
    value = np.divide(ranks - positives * (positives + 1) / 2, pairs, out=np.zeros(of.num_users), where=both)
    return Sums(np.stack([value * examples * both, examples * both], 1), ratio)


def _ranked(of: Scored, kind: str) -> Ranked:
    return Ranked(kind, of.positive, of.probability, of.users, of.num_users)


CLASSIFIED: dict[str, Callable[[Scored], Metric]] = {
    "auc": partial(_ranked, kind="auc"),
    "pr_auc": partial(_ranked, kind="pr_auc"),
    "gauc": gauc,
    "log_loss": log_loss,
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "ece": ece,
}
