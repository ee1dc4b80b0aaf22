"""The arithmetic of benchmarks/ranking.py: resampling by user, against copying the examples of the drawn users."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_examples import add_examples

from attnrec_dist.evaluation.classification import Predicted, values

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import ranking


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_copies(seed):
    generator = np.random.default_rng(seed)
    users = generator.integers(0, 6, 50)
    of = Predicted(generator.integers(0, 2, 50), generator.integers(1, 9, 50) / 10, np.append(users, 5)[:50])
    draws = generator.multinomial(6, np.full(6, 1 / 6), 5).astype(float)
    got = {metric: ranking.Resampled(of, draws).values(metric) for metric in ranking.COMPARED}
    for place, draw in enumerate(draws):
        copies = [(user, copy) for user in range(6) for copy in range(int(draw[user]))]
        rows = np.concatenate([np.flatnonzero(of.users == user) for user, _ in copies])
        owner = np.concatenate([np.full((of.users == user).sum(), number) for number, (user, _) in enumerate(copies)])
        expected = values(Predicted(of.labels[rows], of.probabilities[rows], owner), list(ranking.COMPARED))
        for metric in ranking.COMPARED:
            assert got[metric][place] == pytest.approx(expected[metric], abs=1e-12), metric


def test_baselines_learn_what_the_features_tell(shop, tmp_path, monkeypatch):
    shutil.copytree(shop.data, tmp_path / "data")
    data = add_examples(tmp_path / "data", per_user=12)
    monkeypatch.setattr(ranking, "ROUNDS", 20)
    found = {row: [ranking.baseline(row, data, "test")] for row in ("logistic regression", "boosting")}
    assert min(values(each[0], ["auc"])["auc"] for each in found.values()) > 0.8
    assert ranking.told(found, "test")["comparisons"] == {}
    comparisons = ranking.told({ranking.MAIN: found["boosting"], **found}, "test")["comparisons"]
    assert comparisons["boosting"]["auc"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
