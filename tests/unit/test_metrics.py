"""Metrics against ranx on the same scores, and against their formulas in plain Python."""

import doctest
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation import metrics
from attnrec_dist.evaluation.metrics import METRICS, mean, parse_metric, per_view
from attnrec_dist.evaluation.ranks import ranks

RANX = {"recall": "recall", "precision": "precision", "hr": "hit_rate", "mrr": "mrr", "ndcg": "ndcg"}


def by_definition(stem, k, ranks):
    ranks = [rank for rank in ranks if rank != -1]
    if not ranks:
        return math.nan
    hits = [rank for rank in ranks if 1 <= rank <= k]
    return {
        "recall": lambda: len(hits) / len(ranks),
        "capped_recall": lambda: len(hits) / min(k, len(ranks)),
        "precision": lambda: len(hits) / k,
        "hr": lambda: float(bool(hits)),
        "mrr": lambda: 1 / min(hits) if hits else 0.0,
        "ndcg": lambda: (
            sum(1 / math.log2(r + 1) for r in hits) / sum(1 / math.log2(r + 1) for r in range(1, min(k, len(ranks)) + 1))
        ),
    }[stem]()


def flat(views):
    return np.array([rank for view in views for rank in view], dtype=np.int64)


def offsets_of(views):
    return np.cumsum([0, *map(len, views)])


RANKS = st.lists(st.lists(st.integers(-1, 15), max_size=7), min_size=1, max_size=6)


@given(RANKS, st.sampled_from(list(METRICS)), st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_metrics_are_their_formulas(views, stem, k):
    got = per_view(f"{stem}@{k}", flat(views), offsets_of(views))
    np.testing.assert_allclose(got, [by_definition(stem, k, view) for view in views], rtol=1e-14)


@given(RANKS, st.sampled_from(list(METRICS)), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_other_views_and_their_order_change_no_digit(views, stem, random):
    """Computed alone or in company, first or last: the same bits, and the same mean."""
    order = list(range(len(views)))
    random.shuffle(order)
    whole = per_view(f"{stem}@10", flat(views), offsets_of(views))
    shuffled = per_view(f"{stem}@10", flat([views[v] for v in order]), offsets_of([views[v] for v in order]))
    alone = [per_view(f"{stem}@10", flat([view]), offsets_of([view]))[0] for view in views]
    assert np.array_equal(whole[order], shuffled, equal_nan=True)
    assert np.array_equal(whole, alone, equal_nan=True)
    assert np.array_equal(mean(whole), mean(shuffled), equal_nan=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", ["all", "new"])
def test_equal_to_ranx_on_the_same_scores(policy):
    """40 views of 60 items, scores without ties, one to twelve relevant items, a few of them cold or in the history."""
    import numba

    numba.config.DISABLE_JIT = True  # compiling ranx takes half a minute, running it as Python nothing
    from ranx import Qrels, Run, evaluate

    random = np.random.default_rng(0)
    scores = random.standard_normal((40, 60))
    relevant = [random.permutation(63)[: random.integers(1, 13)] for _ in range(40)]
    history = [random.integers(0, 63, 15) for _ in range(40)]
    row = lambda lists: torch.from_numpy(np.repeat(np.arange(40), [len(each) for each in lists]))  # noqa: E731
    joined = lambda lists: torch.from_numpy(np.concatenate(lists))  # noqa: E731
    chosen = ranks(torch.from_numpy(scores), joined(relevant), row(relevant), joined(history), row(history))[
        policy == "new"
    ].numpy()

    left_out = [set(seen.tolist()) if policy == "new" else set() for seen in history]
    wanted = [[item for item in items.tolist() if item not in out] for items, out in zip(relevant, left_out, strict=True)]
    views = [v for v in range(40) if wanted[v]]
    qrels = Qrels({str(v): {str(item): 1 for item in wanted[v]} for v in views})
    run = Run({str(v): {str(i): float(scores[v, i]) for i in range(60) if i not in left_out[v]} for v in views})
    for stem, theirs in RANX.items():
        for k in (1, 5, 10):
            expected = evaluate(qrels, run, f"{theirs}@{k}")
            assert mean(per_view(f"{stem}@{k}", chosen, offsets_of(relevant))) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ndgc@10", "did you mean ndcg@10"),
        ("NDCG@5", "did you mean ndcg@5"),
        ("auc", "known metrics"),
        ("recall", "write for example"),
    ]
    + [(f"ndcg@{k}", "whole number") for k in ("0", "-1", "x", "1.5", "")],
)
def test_a_misspelt_metric_is_told(name, hint):
    with pytest.raises(ConfigError, match=hint):
        parse_metric(name)


def test_the_mean_leaves_out_views_without_relevant_items():
    assert mean(np.array([1.0, math.nan, 0.5])) == 0.75
    assert math.isnan(mean(np.array([math.nan])))
    assert mean(np.array([1e16, 1.0, -1e16])) == 1 / 3  # a running sum loses the 1


def test_docstring_examples():
    assert doctest.testmod(metrics).failed == 0
