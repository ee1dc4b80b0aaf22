"""Ranks against a definition spelt out in plain Python: ties, NaN, infinities, cold items, repeats, any batching."""

import doctest
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from attnrec_dist.evaluation import ranks as ranking
from attnrec_dist.evaluation.ranks import ranks

SCORES = st.sampled_from([-math.inf, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, math.inf, math.nan])  # few values: many ties


@st.composite
def views(draw):
    """[(scores of V items, distinct relevant items, history)] of B views."""
    num_items = draw(st.integers(1, 9))
    items = st.integers(0, num_items + 2)
    view = st.tuples(
        st.lists(SCORES, min_size=num_items, max_size=num_items),
        st.lists(items, unique=True, max_size=6),
        st.lists(items, max_size=8),
    )
    return draw(st.lists(view, min_size=1, max_size=5))


def rank_by_definition(scores, target, left_out):
    if target in left_out:
        return -1
    if target >= len(scores):
        return 0
    ranked = [item for item in range(len(scores)) if item not in left_out]
    return sum(1 for item in ranked if not scores[item] < scores[target])


def packed(batch, dtype=torch.float32):
    """The tensors that ranks() takes, of a list of views."""
    scores = torch.tensor([view[0] for view in batch], dtype=dtype)
    relevant = torch.tensor([item for view in batch for item in view[1]], dtype=torch.int64)
    relevant_row = torch.tensor([row for row, view in enumerate(batch) for _ in view[1]], dtype=torch.int64)
    seen = torch.tensor([item for view in batch for item in view[2]], dtype=torch.int64)
    seen_row = torch.tensor([row for row, view in enumerate(batch) for _ in view[2]], dtype=torch.int64)
    return scores, relevant, relevant_row, seen, seen_row


@given(views(), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
@settings(deadline=None, max_examples=200)
def test_ranks_are_the_definition(batch, dtype):
    rank_all, rank_new = ranks(*packed(batch, dtype))
    assert rank_all.dtype == rank_new.dtype == torch.int64
    assert rank_all.tolist() == [rank_by_definition(scores, item, ()) for scores, relevant, _ in batch for item in relevant]
    assert rank_new.tolist() == [rank_by_definition(scores, item, seen) for scores, relevant, seen in batch for item in relevant]


@given(views(), st.data())
@settings(deadline=None, max_examples=100)
def test_any_partition_into_batches_gives_the_same_ranks(batch, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(batch)), max_size=3)))
    parts = [batch[lo:hi] for lo, hi in zip([0, *cuts], [*cuts, len(batch)], strict=True) if lo < hi]
    pieces = [ranks(*packed(part)) for part in parts]
    whole = ranks(*packed(batch))
    for policy in (0, 1):
        assert torch.equal(whole[policy], torch.cat([piece[policy] for piece in pieces]))


@pytest.mark.parametrize("chunk", [1, 7, 50, 10**6])
def test_the_chunk_does_not_matter(monkeypatch, chunk):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 20, generator=generator).round(decimals=1)
    row = torch.arange(4).repeat_interleave(5)
    relevant = torch.cat([torch.randperm(22, generator=generator)[:5] for _ in range(4)])
    seen = torch.randint(0, 22, (20,), generator=generator)
    whole = ranks(scores, relevant, row, seen, row)
    monkeypatch.setattr(ranking, "CPU_CHUNK", chunk)
    assert all(torch.equal(a, b) for a, b in zip(whole, ranks(scores, relevant, row, seen, row), strict=True))


def test_a_constant_score_ranks_everything_last():
    none = torch.zeros(0, dtype=torch.int64)
    row = torch.zeros(3, dtype=torch.int64)
    rank_all, rank_new = ranks(torch.zeros(1, 10), torch.tensor([0, 4, 9]), row, none, none)
    assert rank_all.tolist() == rank_new.tolist() == [10, 10, 10]


def test_nothing_relevant_gives_nothing():
    none = torch.zeros(0, dtype=torch.int64)
    assert [len(part) for part in ranks(torch.zeros(2, 3), none, none, torch.tensor([1]), torch.tensor([0]))] == [0, 0]


def test_docstring_examples():
    assert doctest.testmod(ranking, optionflags=doctest.NORMALIZE_WHITESPACE, extraglobs={"torch": torch}).failed == 0
