"""Is A better than B? Paired differences over the same views, with a bootstrap interval and a permutation p value.

Customers differ far more among themselves than two recommenders do, so the difference is taken within each view.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from attnrec_dist.errors import DataError
from attnrec_dist.evaluation.metrics import mean

CHUNK = 2**22  # random numbers held at a time
RESAMPLED_VIEWS = 20_000  # beyond, the mean of so many is normal, and resampling would take minutes to say the same


@dataclass(frozen=True)
class Difference:
    """Mean of A minus mean of B over the views that count for both."""

    mean_a: float
    mean_b: float
    difference: float
    low: float  # bounds of the confidence interval of the difference
    high: float
    p: float  # two-sided, of a difference so large if A and B were interchangeable
    views: int
    confidence: float = 0.95

    @property
    def is_clear(self) -> bool:
        """The interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    a: np.ndarray, b: np.ndarray, seed: int = 0, resamples: int = 2_000, confidence: float = 0.95
) -> Difference:
    """Compares two recommenders by their values of the same views; the same arguments give the same digits.

    The interval is the percentile bootstrap of the mean difference (Efron and Tibshirani 1993, chapter 13); p is the
    sign-flip permutation test, (1 + resamples at least as far from zero) / (1 + resamples), so never 0. Above
    `RESAMPLED_VIEWS` views both come from the normal distribution that they tend to, without drawing anything.

    Args:
        a, b: float [views] of the same views in the same order; a view that is NaN in either is dropped
    Raises:
        DataError: the two hold different views
    """
    if len(a) != len(b):
        raise DataError(
            f"the values to compare are of {len(a):,} and of {len(b):,} views; "
            "compare two evaluations of the same data set, split and history"
        )
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    views = len(a)
    if views == 0:
        return Difference(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0, confidence)
    gap = a - b
    judge = _by_resampling if views <= RESAMPLED_VIEWS else _by_the_normal
    low, high, p = judge(gap, confidence, seed, resamples)
    return Difference(mean(a), mean(b), mean(gap), low, high, p, views, confidence)


def _by_resampling(gap: np.ndarray, confidence: float, seed: int, resamples: int) -> tuple[float, float, float]:
    """Bounds of the interval of the mean gap, and p."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(_bootstrap_means(gap, seed, resamples), [tail, 1 - tail])
    # Sums of the same numbers in another order differ by rounding; such a resample is as far from zero, not nearer.
    limit = abs(mean(gap)) - 1e-12 * float(np.abs(gap).mean())
    extreme = int((np.abs(_sign_flip_means(gap, seed, resamples)) >= limit).sum())
    return float(low), float(high), (1 + extreme) / (1 + resamples)


def _by_the_normal(gap: np.ndarray, confidence: float, seed: int, resamples: int) -> tuple[float, float, float]:
    """What `_by_resampling` tends to with many views and resamples."""
    centre, error = mean(gap), float(gap.std()) / math.sqrt(len(gap))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    error_if_equal = math.sqrt(float(np.square(gap).sum())) / len(gap)
    p = math.erfc(abs(centre) / error_if_equal / math.sqrt(2)) if error_if_equal > 0 else 1.0
    return centre - reach, centre + reach, p


def _bootstrap_means(gap: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means of views drawn with replacement, float64 [resamples]."""
    random = np.random.default_rng([seed, 0])
    return np.concatenate([gap[random.integers(0, len(gap), (n, len(gap)))].mean(1) for n in _chunks(resamples, len(gap))])


def _sign_flip_means(gap: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means with each view's A and B swapped at random, float64 [resamples]."""
    random = np.random.default_rng([seed, 1])
    differing = gap[gap != 0]  # a view where both are equal stays zero whichever is called A
    if len(differing) == 0:
        return np.zeros(resamples)
    sums = [
        np.where(random.integers(0, 2, (n, len(differing)), dtype=np.int8) == 1, differing, -differing).sum(1)
        for n in _chunks(resamples, len(differing))
    ]
    return np.concatenate(sums) / len(gap)


def _chunks(resamples: int, width: int) -> Iterator[int]:
    """How many resamples to draw at a time so that memory stays bounded; at least one."""
    step = max(1, CHUNK // width)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
