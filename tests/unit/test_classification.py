"""Classification metrics against scikit-learn and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation import classification
from attnrec_dist.evaluation.classification import METRICS, Predicted, best_threshold, check_metric, higher_is_better, reliability


@st.composite
def predictions(draw) -> Predicted:
    """Few users and few distinct probabilities: ties and single-class users are many."""
    size = draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    p = generator.integers(0, draw(st.integers(1, 12)) + 1, size) / 12
    return Predicted(generator.integers(0, 2, size), p, generator.integers(0, 5, size), draw(st.sampled_from([0.25, 0.5, 1.0])))


@given(predictions())
@settings(max_examples=50, deadline=None)
def test_gauc_is_the_weighted_mean_of_users_own_auc(of):
    total = weight = 0.0
    for user in np.unique(of.users):
        own = of.users == user
        if 0 < of.labels[own].sum() < own.sum():
            total += own.sum() * sklearn_metrics.roc_auc_score(of.labels[own], of.probabilities[own])
            weight += own.sum()
    got = METRICS["gauc"](of)
    assert math.isnan(got) if not weight else got == pytest.approx(total / weight, abs=1e-12)


@given(predictions())
@settings(max_examples=30, deadline=None)
def test_the_threshold_has_the_best_f1_of_all(of):
    threshold = best_threshold(of)
    if not of.labels.any():
        assert threshold == 0.5
        return
    scores = {t: sklearn_metrics.f1_score(of.labels, of.probabilities >= t) for t in np.unique(of.probabilities)}
    assert threshold == max(t for t, score in scores.items() if score >= max(scores.values()) - 1e-12)


@given(predictions())
@settings(max_examples=30, deadline=None)
def test_decisions_and_calibration_against_loops(of):
    decided = [int(p >= of.threshold) for p in of.probabilities]
    assert METRICS["accuracy"](of) == pytest.approx(sklearn_metrics.accuracy_score(of.labels, decided))
    for name in ("precision", "recall", "f1"):
        expected = getattr(sklearn_metrics, f"{name}_score")(of.labels, decided, zero_division=0)
        assert METRICS[name](of) == pytest.approx(expected)
    bins: dict[int, list[int]] = {}
    for place, p in enumerate(of.probabilities):
        bins.setdefault(min(int(p * 15), 14), []).append(place)
    gaps = [len(held) * abs(of.probabilities[held].mean() - of.labels[held].mean()) for held in bins.values()]
    assert METRICS["ece"](of) == pytest.approx(sum(gaps) / len(of.labels), abs=1e-12)
    assert reliability(of).count.sum() == len(of.labels)


@given(predictions())
@settings(max_examples=30, deadline=None)
def test_areas_and_log_loss(of):
    if of.has_both:
        above = [(p > q) + (p == q) / 2 for p in of.probabilities[of.labels == 1] for q in of.probabilities[of.labels == 0]]
        assert METRICS["auc"](of) == pytest.approx(np.mean(above))
        assert METRICS["pr_auc"](of) == sklearn_metrics.average_precision_score(of.labels, of.probabilities)
    inside = Predicted(of.labels, 0.01 + 0.98 * of.probabilities, of.users)
    expected = -np.mean(np.log(np.where(of.labels == 1, inside.probabilities, 1 - inside.probabilities)))
    assert METRICS["log_loss"](inside) == pytest.approx(expected, rel=1e-9)


def test_one_class_or_nobody_is_nan_not_an_error():
    one = Predicted(np.ones(3, np.int64), np.array([0.2, 0.4, 0.9]), np.zeros(3, np.int64))
    assert math.isnan(METRICS["auc"](one))
    assert math.isnan(METRICS["gauc"](one))
    assert METRICS["recall"](one) == pytest.approx(1 / 3)
    nobody = Predicted(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
    assert all(math.isnan(METRICS[name](nobody)) for name in METRICS)


def test_names():
    with pytest.raises(ConfigError, match=r"unknown metric 'aucc' of the ranking task; did you mean auc\?"):
        check_metric("aucc")
    with pytest.raises(ConfigError, match=r"known metrics: auc, pr_auc"):
        check_metric("zzz")
    assert not higher_is_better("label/log_loss")
    assert higher_is_better("label/auc")
    assert set(classification.LOWER_IS_BETTER) < set(METRICS)
