"""Paired comparison against scipy's bootstrap and permutation test."""

import math

import numpy as np
import pytest
from scipy import stats

from attnrec_dist.errors import DataError
from attnrec_dist.evaluation import significance
from attnrec_dist.evaluation.significance import paired_difference


def sample(views, shift, seed=0):
    random = np.random.default_rng(seed)
    base = random.beta(1, 2, views)
    return base + shift + 0.1 * random.standard_normal(views), base


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.05])
def test_interval_and_p_agree_with_scipy(shift):
    a, b = sample(80, shift)
    ours = paired_difference(a, b, seed=3, resamples=10_000)
    gap = a - b
    theirs = stats.bootstrap((gap,), np.mean, n_resamples=10_000, method="percentile", random_state=1).confidence_interval
    width = theirs.high - theirs.low
    assert ours.difference == pytest.approx(gap.mean(), rel=1e-12)
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)
    test = stats.permutation_test((gap,), np.mean, permutation_type="samples", n_resamples=10_000, random_state=1)
    assert ours.p == pytest.approx(test.pvalue, abs=0.02)


def test_p_agrees_with_all_permutations():
    """With 10 views scipy walks all 1,024 sign flips; ties among them count as extreme in both."""
    a = np.array([0.4, 0.5, 0.5, 0.3, 1.0, 0.0, 0.7, 0.2, 0.6, 0.5])
    b = np.array([0.2, 0.5, 0.4, 0.3, 0.5, 0.1, 0.6, 0.2, 0.5, 0.3])
    exact = stats.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert paired_difference(a, b, resamples=20_000).p == pytest.approx(exact, abs=0.006)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = [paired_difference(*sample(100, 0.03, seed), resamples=400) for seed in range(300)]
    assert 0.90 < np.mean([d.low <= 0.03 <= d.high for d in held]) < 0.99


def test_no_difference_is_found_about_one_time_in_twenty():
    found = [paired_difference(*sample(60, 0.0, seed), resamples=400).p <= 0.05 for seed in range(400)]
    assert 0.02 < np.mean(found) < 0.09


def test_views_missing_in_either_are_dropped():
    a, b = sample(50, 0.02)
    holes = np.concatenate([a, [math.nan, 1.0, math.nan]]), np.concatenate([b, [0.0, math.nan, math.nan]])
    assert paired_difference(*holes) == paired_difference(a, b)


def test_the_seed_decides_and_memory_does_not(monkeypatch):
    a, b = sample(70, 0.01)
    first = paired_difference(a, b, seed=1, resamples=500)
    assert first == paired_difference(a, b, seed=1, resamples=500)
    assert first != paired_difference(a, b, seed=2, resamples=500)
    monkeypatch.setattr(significance, "CHUNK", 700)
    assert first == paired_difference(a, b, seed=1, resamples=500)


def test_swapping_the_two_turns_the_sign():
    a, b = sample(70, 0.05)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (forth.difference, forth.mean_a, forth.p) == (-back.difference, back.mean_b, back.p)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert forth.is_clear
    assert forth.low > 0


def test_equal_recommenders_do_not_differ():
    a, _ = sample(20, 0)
    same = paired_difference(a, a)
    assert (same.difference, same.low, same.high, same.p, same.is_clear) == (0, 0, 0, 1, False)


def test_nothing_to_compare():
    empty = paired_difference(np.array([math.nan]), np.array([1.0]))
    assert empty.views == 0
    assert math.isnan(empty.difference)
    with pytest.raises(DataError, match=r"of 2 and of 3 views; compare two evaluations of the same data set"):
        paired_difference(np.zeros(2), np.zeros(3))


@pytest.mark.parametrize("shift", [0.0, 0.001, 0.01])
def test_many_views_need_no_resampling(monkeypatch, shift):
    a, b = sample(5_000, shift)
    resampled = paired_difference(a, b, resamples=10_000)
    monkeypatch.setattr(significance, "RESAMPLED_VIEWS", 4_999)
    normal = paired_difference(a, b)
    width = resampled.high - resampled.low
    assert normal.difference == resampled.difference
    assert (normal.low, normal.high) == pytest.approx((resampled.low, resampled.high), abs=0.04 * width)
    assert normal.p == pytest.approx(resampled.p, abs=0.02)
    assert normal.low != resampled.low
    assert paired_difference(a, a).p == 1
