"""Is A better than B? Paired differences over the same users, with a bootstrap interval and a permutation p value.

Customers differ far more among themselves than two recommenders do, so the difference is taken within each of them, and what
is resampled are users with all that they have in the test part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attnrec_dist.errors import DataError
from attnrec_dist.evaluation.user_metrics import Metric, mean_of

CHUNK = 2**22  # random numbers held at a time
RESAMPLED_VIEWS = 20_000  # beyond, the mean of so many is normal, and resampling would take minutes to say the same
RESAMPLED_COST = 200_000  # numbers touched by one resample, where resampling ends for 1,000 users and more
EXACT_BELOW = 25  # discordant pairs, from which on McNemar's chi-square serves


@dataclass(frozen=True)
class Difference:
    """Metric of A minus metric of B over the views (users) that count for both."""

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
    """Compares the means of two recommenders by their values of the same views, one view a user: see `difference`.

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
    return difference(mean_of(a[both].astype(np.float64)), mean_of(b[both].astype(np.float64)), seed, resamples, confidence)


def difference(a: Metric, b: Metric, seed: int = 0, resamples: int = 2_000, confidence: float = 0.95) -> Difference:
    """Compares two runs by a metric of the same users in the same order; the same arguments give the same digits.

    The interval is the percentile bootstrap of the difference over users (Efron and Tibshirani 1993, chapter 13), as much
    wider as few users ask for (Hesterberg 2015, expanded percentiles); p is the permutation test that swaps A and B for whole
    users, (1 + resamples at least as far from zero) / (1 + resamples), so never 0. Where users are many both come from the
    normal distribution that they tend to, without drawing anything.
    """
    users = len(a)
    if users == 0:
        return Difference(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0, confidence)
    gap = a.value - b.value
    if math.isnan(gap):
        return Difference(a.value, b.value, gap, math.nan, math.nan, math.nan, users, confidence)
    many = users > RESAMPLED_VIEWS or (a.cost() > RESAMPLED_COST and users >= 1_000)
    if many:
        low, high, p = _by_the_normal(a, b, confidence)
    else:
        _, tail = _reach(users, confidence)
        low, high = np.nanquantile(_bootstrap(a, b, seed, resamples), [tail, 1 - tail])
        # Sums of the same numbers in another order differ by rounding; such a resample is as far from zero, not nearer.
        limit = abs(gap) - 1e-12 * (abs(a.value) + abs(b.value))
        extreme = int((np.abs(_swapped(a, b, seed, resamples)) >= limit).sum())
        p = (1 + extreme) / (1 + resamples)
    return Difference(a.value, b.value, gap, float(low), float(high), p, users, confidence)


def _reach(users: int, confidence: float) -> tuple[float, float]:
    """How many of the bootstrap's standard errors the interval reaches, and the normal's tail beyond: as Student's interval does,
    whose error is root(n / (n - 1)) times the bootstrap's. Without it 50 users gave 93.3% where 95% was said."""
    from scipy.special import ndtr, stdtrit

    if users < 2:
        return 0.0, 0.5
    reach = math.sqrt(users / (users - 1)) * float(stdtrit(users - 1, (1 + confidence) / 2))
    return reach, float(ndtr(-reach))


def _by_the_normal(a: Metric, b: Metric, confidence: float) -> tuple[float, float, float]:
    """What resampling tends to with many users and resamples: the infinitesimal jackknife (Efron 1982, chapter 6)."""
    centre = a.value - b.value
    of_users = a.influence() - b.influence()
    error = math.sqrt(float(np.square(of_users).sum()))
    reach = _reach(len(a), confidence)[0] * error
    error_if_equal = math.sqrt(error**2 + centre**2 / len(a))  # swapping keeps each user's distance, whose mean square it adds
    p = math.erfc(abs(centre) / error_if_equal / math.sqrt(2)) if error_if_equal > 0 else 1.0
    return centre - reach, centre + reach, p


def _bootstrap(a: Metric, b: Metric, seed: int, resamples: int) -> np.ndarray:
    """Differences over users drawn with replacement, float64 [resamples]."""
    random = np.random.default_rng([seed, 0])
    users = len(a)
    found = []
    for n in _chunks(resamples, max(users, a.cost())):
        drawn = random.integers(0, users, (n, users)) + users * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * users).reshape(n, users).astype(np.float64)
        found.append(a.resampled(counts) - b.resampled(counts))
    return np.concatenate(found)


def _swapped(a: Metric, b: Metric, seed: int, resamples: int) -> np.ndarray:
    """Differences with A and B swapped at random for each user, float64 [resamples]."""
    random = np.random.default_rng([seed, 1])
    users = a.differing(b)  # type: ignore[arg-type]
    if len(users) == 0:
        return np.zeros(resamples)
    found = []
    for n in _chunks(resamples, max(len(users), a.cost())):
        keep = random.integers(0, 2, (n, len(users)), dtype=np.int8).astype(np.float64)
        of_a, of_b = a.swapped(b, users, keep)  # type: ignore[arg-type]
        found.append(of_a - of_b)
    return np.concatenate(found)


def _chunks(resamples: int, width: int) -> Iterator[int]:
    """How many resamples to draw at a time so that memory stays bounded; a multiple of 4, since numpy draws four int8 from one
    number and forgets the rest of it at the end of a call: the border of a chunk would change what comes after it."""
    step = max(4, CHUNK // width // 4 * 4)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def holm(p: Sequence[float]) -> list[float]:
    """p values of a family of tests, corrected so that the chance of one false finding in all stays below the level (Holm 1979).

    NaN (nothing to test) stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [math.nan] * len(p)
    tested = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    highest = 0.0
    for smaller, (value, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - smaller) * value))
        corrected[place] = highest
    return corrected


@dataclass(frozen=True)
class McNemar:
    """Examples that one of two classifiers gets right and the other wrong, and whether the two counts differ by chance."""

    only_a: int
    only_b: int
    p: float
    exact: bool


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> McNemar:
    """McNemar's test (1947) from whether each example was classified right, bool [n] each.

    Exact binomial below 25 discordant examples, else chi-square with Edwards' continuity correction. It takes examples for
    independent, which those of one user are not: where they disagree, believe the test by users.

    >>> mcnemar(np.array([True] * 9 + [False]), np.array([False] * 9 + [True]))
    McNemar(only_a=9, only_b=1, p=0.021484375, exact=True)
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant = only_a + only_b
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1)) / 2**discordant
        return McNemar(only_a, only_b, min(1.0, 2 * tail), True)
    distance = max(0, abs(only_a - only_b) - 1)
    return McNemar(only_a, only_b, math.erfc(distance / math.sqrt(2 * discordant)), False)
