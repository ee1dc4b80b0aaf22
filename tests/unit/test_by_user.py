"""Metrics by users' weights against scikit-learn on copied and swapped examples; differences against scipy and by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from attnrec_dist.comparison.classification import CLASSIFIED, Scored
from attnrec_dist.evaluation import significance
from attnrec_dist.evaluation.classification import BINS, METRICS, Predicted
from attnrec_dist.evaluation.significance import difference, holm, mcnemar, paired_difference
from attnrec_dist.evaluation.user_metrics import Sums, mean_of, ratio

ALL = sorted(CLASSIFIED)


def predictions(seed, users=12, most=9, ties=True, skill=1.0):
    """Examples of users who differ in number, in taste and in how well they are known."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), random.integers(1, most, users))
    logit = random.normal(-0.5, 1, users)[user] + random.normal(0, 1.5, len(user))
    positive = random.random(len(user)) < 1 / (1 + np.exp(-logit))
    positive[:2] = True, False
    probability = 1 / (1 + np.exp(-(skill * logit + random.normal(0, 1, len(user)))))
    return Scored(positive, np.round(probability, 1) if ties else probability, user, users, 0.4)


def by_scikit_learn(name, positive, probability, users, threshold):
    """NaN where there is only one label or nothing to divide by."""
    said = probability >= threshold
    both = 0 < positive.sum() < len(positive)
    if name == "gauc":
        aucs, sizes = [], []
        for user in np.unique(users):
            own = users == user
            if 0 < positive[own].sum() < own.sum():
                aucs.append(sk.roc_auc_score(positive[own], probability[own]))
                sizes.append(own.sum())
        return np.average(aucs, weights=sizes) if sizes else math.nan
    if name == "ece":
        bins = np.clip((probability * BINS).astype(int), 0, BINS - 1)
        return sum(abs((probability - positive)[bins == b].sum()) for b in range(BINS)) / len(positive)
    return {
        "auc": lambda: sk.roc_auc_score(positive, probability) if both else math.nan,
        "pr_auc": lambda: sk.average_precision_score(positive, probability) if positive.any() else math.nan,
        "log_loss": lambda: sk.log_loss(positive, probability, labels=[False, True]),
        "accuracy": lambda: sk.accuracy_score(positive, said),
        "precision": lambda: sk.precision_score(positive, said, zero_division=0),
        "recall": lambda: sk.recall_score(positive, said, zero_division=0),
        "f1": lambda: sk.f1_score(positive, said, zero_division=0),
    }[name]()


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), counts=st.lists(st.integers(0, 3), min_size=12, max_size=12), ties=st.booleans())
def test_weights_say_what_copies_of_the_examples_would(name, seed, counts, ties):
    of = predictions(seed, ties=ties)
    metric = CLASSIFIED[name](of)
    assert metric.value == pytest.approx(by_scikit_learn(name, of.positive, of.probability, of.users, 0.4), rel=1e-9, nan_ok=True)
    if not any(counts):
        return
    copies = np.repeat(np.arange(len(of.users)), np.array(counts)[of.users])
    new_user = np.concatenate(
        [of.users[of.users == u] + 100 * c for u in range(12) for c in range(counts[u])]
    )  # who is whose copy
    order = (
        np.concatenate([np.flatnonzero(of.users == u) for u in range(12) for _ in range(counts[u])]) if len(copies) else copies
    )
    expected = by_scikit_learn(name, of.positive[order], of.probability[order], new_user, 0.4)
    got = metric.resampled(np.array([counts, [1] * 12], np.float64))
    assert got[0] == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
    assert got[1] == pytest.approx(metric.value, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("ties", [True, False])
def test_the_figures_are_those_that_evaluate_prints(ties):
    assert set(CLASSIFIED) == set(METRICS)
    of = predictions(11, users=40, ties=ties)
    for name, metric in METRICS.items():
        expected = metric(Predicted(of.positive.astype(int), of.probability, of.users, of.threshold))
        assert CLASSIFIED[name](of).value == pytest.approx(expected, rel=1e-12), name


@pytest.mark.parametrize("name", ALL)
def test_swapping_users_says_what_swapped_examples_would(name):
    """Ranked metrics swap midranks; here both runs already give ranks, so that scikit-learn can be asked."""
    a, b = predictions(1), predictions(2)
    b = Scored(a.positive, np.resize(b.probability, len(a.users)), a.users, a.num_users, a.threshold)
    if name in ("auc", "pr_auc"):
        a, b = (Scored(p.positive, stats.rankdata(p.probability) / 100, p.users, p.num_users) for p in (a, b))
    one, other = CLASSIFIED[name](a), CLASSIFIED[name](b)
    keep = np.random.default_rng(0).integers(0, 2, (20, 12)).astype(float)
    users = one.differing(other)
    got_a, got_b = one.swapped(other, users, keep[:, users])
    for row, of_a, of_b in zip(keep, got_a, got_b):
        kept = row[a.users] == 1
        for got, first, second in ((of_a, a, b), (of_b, b, a)):
            mixed = np.where(kept, first.probability, second.probability)
            assert got == pytest.approx(by_scikit_learn(name, a.positive, mixed, a.users, a.threshold), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_influence_is_the_gradient_in_the_users_weights(name):
    of = predictions(5, users=40)
    metric = CLASSIFIED[name](of)
    step = 1e-5
    both_ways = metric.resampled(1 + step * np.concatenate([np.eye(40), -np.eye(40)]))
    assert metric.influence() == pytest.approx((both_ways[:40] - both_ways[40:]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_many_users_need_no_resampling(monkeypatch, name):
    a = predictions(3, users=1_500, most=4, ties=False)
    noise = np.random.default_rng(1).normal(0, 0.06, len(a.users))
    b = Scored(a.positive, np.clip(a.probability + noise, 0.001, 0.999), a.users, a.num_users, 0.4)
    one, other = CLASSIFIED[name](a), CLASSIFIED[name](b)
    resampled = difference(one, other, resamples=2_000)
    monkeypatch.setattr(significance, "RESAMPLED_VIEWS", 1_000)
    normal = difference(one, other)
    width = resampled.high - resampled.low
    slack = 0.3 if name == "ece" else 0.1  # its bootstrap is biased upwards for both
    assert (normal.low, normal.high) == pytest.approx((resampled.low, resampled.high), abs=slack * width)
    if name != "ece":
        assert normal.p == pytest.approx(resampled.p, abs=0.15)  # few examples change class, so that p comes in steps
    assert normal.low != resampled.low


def test_users_count_as_wholes():
    """Ten copies of every example are no more evidence: by examples the interval would shrink by the root of ten."""
    a, b = (predictions(seed, users=60, ties=False) for seed in (1, 1))
    b = Scored(b.positive, np.sqrt(b.probability), b.users, b.num_users, 0.4)
    ten = [Scored(np.tile(p.positive, 10), np.tile(p.probability, 10), np.tile(p.users, 10), 60, 0.4) for p in (a, b)]
    for name in ("log_loss", "accuracy", "auc", "gauc"):
        once, tenfold = difference(*map(CLASSIFIED[name], (a, b)), 0, 500), difference(*map(CLASSIFIED[name], ten), 0, 500)
        assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high), abs=1e-9)


def test_a_mean_over_examples_agrees_with_scipy():
    """A ratio of sums by users: scipy resamples pairs (sum, count)."""
    random = np.random.default_rng(4)
    count = random.integers(1, 20, 120).astype(float)
    a, b = (count * random.beta(2, 3, 120) for _ in "ab")
    ours = difference(Sums(np.stack([a, count], 1), ratio), Sums(np.stack([b, count], 1), ratio), resamples=10_000)

    def statistic(x, y, n, axis):
        return (x.sum(axis) - y.sum(axis)) / n.sum(axis)

    theirs = stats.bootstrap((a, b, count), statistic, paired=True, n_resamples=10_000, method="percentile", random_state=1)
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    test = stats.permutation_test(
        ((a - b) / count.sum(),), np.sum, permutation_type="samples", n_resamples=10_000, random_state=1
    )
    assert ours.p == pytest.approx(test.pvalue, abs=0.02)


# Simulations with a known truth


def simulated(seed, effect, users=120):
    """Values of users in two runs whose true means differ by `effect`: users differ far more than runs, and not normally."""
    random = np.random.default_rng([seed, 77])
    base = random.beta(0.6, 1.4, users)
    return base + random.standard_t(5, users) * 0.1 + effect, base + random.standard_t(5, users) * 0.1


def within(share, of, rate, errors=3.3):
    """Whether a share of simulations is a rate up to sampling error, as far as one simulation in a thousand lies."""
    return abs(share - rate) <= errors * math.sqrt(rate * (1 - rate) / of)


def test_the_interval_holds_a_known_effect_as_often_as_it_says_and_as_students_does():
    trials, effect = 700, 0.02
    held, students, p = [], [], []
    for seed in range(trials):
        a, b = simulated(seed, effect)
        ours = paired_difference(a, b, seed, resamples=400)
        interval = stats.ttest_rel(a, b).confidence_interval()
        held.append(ours.low <= effect <= ours.high)
        students.append(interval.low <= effect <= interval.high)
    for seed in range(300):
        p.append(paired_difference(*simulated(seed, 0.0), seed, resamples=400).p)
    assert within(np.mean(held), trials, 0.95)
    assert within(np.mean(students), trials, 0.95)
    assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize("name", ["auc", "log_loss", "f1"])
def test_classifiers_that_are_equally_good_are_told_apart_one_time_in_twenty(name):
    """Two noisy readings of one truth, users of unlike size: p is uniform, whatever the metric; a better reading is found."""
    p, found = [], []
    for seed in range(150):
        random = np.random.default_rng([seed, 5])
        user = np.repeat(np.arange(50), random.integers(1, 12, 50))
        logit = random.normal(0, 1, 50)[user] + random.normal(0, 1, len(user))
        positive = random.random(len(user)) < 1 / (1 + np.exp(-logit))
        habit = random.normal(0, 0.5, (3, 50))[:, user]  # each run errs on whole users
        noise = habit + random.normal(0, 1, (3, len(user)))
        noise[2] = 4 * noise[2]
        one, other, worse = (CLASSIFIED[name](Scored(positive, 1 / (1 + np.exp(-logit - each)), user, 50, 0.5)) for each in noise)
        p.append(difference(one, other, seed, resamples=200).p)
        if seed < 20:
            found.append(difference(one, worse, seed, resamples=200).p <= 0.05)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert within(np.mean(np.array(p) <= 0.05), 150, 0.05)
    assert np.mean(found) > 0.5


# Families of tests, and McNemar


def test_holm_by_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, math.nan, 0.01]) == pytest.approx([0.5, math.nan, 0.02], nan_ok=True)
    assert holm([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_stepping_down_rejects(p, level):
    rejected = set()
    for step, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[place] > level / (len(p) - step):
            break
        rejected.add(place)
    corrected = holm(p)
    assert {i for i, value in enumerate(corrected) if value < level - 1e-12} <= rejected
    assert rejected <= {i for i, value in enumerate(corrected) if value <= level + 1e-12}
    assert all(value >= own for value, own in zip(corrected, p))


def test_mcnemar_against_scipy():
    for only_a, only_b in itertools.product([0, 1, 5, 12, 30, 200], [0, 3, 12, 31, 150]):
        right_a = np.array([True] * only_a + [False] * only_b + [True, False])
        right_b = np.array([False] * only_a + [True] * only_b + [True, False])
        got = mcnemar(right_a, right_b)
        assert (got.only_a, got.only_b, got.exact) == (only_a, only_b, only_a + only_b < 25)
        if got.exact:
            expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        else:
            expected = stats.chi2.sf(max(0, abs(only_a - only_b) - 1) ** 2 / (only_a + only_b), 1)
        assert got.p == pytest.approx(expected, rel=1e-9)


def test_means_keep_their_last_digit():
    values = np.random.default_rng(0).random(1_000)
    assert mean_of(values).value == math.fsum(values) / 1_000
