"""top_k against sorting in plain Python by the stated rule."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnrec_dist.ops.top_k import top_k

SCORES = st.sampled_from([-math.inf, -2.0, -1e-40, -0.0, 0.0, 1e-40, 1.5, 3.0, math.inf, math.nan])


def by_the_rule(scores, k, excluded):
    """Item numbers: score falling, index rising among equals, NaN after all numbers, excluded ones not at all."""
    left = [item for item in range(len(scores)) if item not in excluded]
    left.sort(key=lambda item: (math.isnan(scores[item]), -scores[item] if not math.isnan(scores[item]) else 0.0, item))
    return (left + [-1] * k)[:k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@given(data=st.data(), rows=st.integers(1, 3), width=st.integers(1, 9), k=st.integers(1, 11))
@settings(deadline=None, max_examples=40)
def test_equals_sorting_by_the_rule(dtype, data, rows, width, k):
    scores = torch.tensor(data.draw(st.lists(SCORES, min_size=rows * width, max_size=rows * width)), dtype=dtype).view(
        rows, width
    )
    pairs = data.draw(st.lists(st.tuples(st.integers(0, width - 1), st.integers(0, rows - 1)), max_size=8))
    items, of_row = (torch.tensor([pair[side] for pair in pairs], dtype=torch.int64) for side in (0, 1))
    before = scores.clone()
    best, ids = top_k(scores, k, (items, of_row))
    assert best.dtype == dtype
    for row in range(rows):
        expected = by_the_rule(scores[row].tolist(), k, {item for item, owner in pairs if owner == row})
        assert ids[row].tolist() == expected
        for item, score in zip(expected, best[row].tolist(), strict=True):
            wanted = scores[row, item].item() if item >= 0 else -math.inf
            assert score == wanted or (math.isnan(score) and math.isnan(wanted))
    assert torch.equal(scores.nan_to_num(7.0), before.nan_to_num(7.0))  # the caller's matrix is left alone


def test_many_ties_in_a_wide_row():
    scores = (torch.arange(5000) % 3).float()[None]
    assert top_k(scores, 4)[1].tolist() == [[2, 5, 8, 11]]


@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([3, 40, 100_000]), k=st.integers(1, 12))
@settings(deadline=None, max_examples=20)
def test_a_row_wide_enough_for_blocks(seed, levels, k):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (3, 64 * 64 + 17), generator=generator).float()
    scores[1, torch.randint(64 * 64 + 17, (2,), generator=generator)] = math.nan
    best, ids = top_k(scores, k)
    for row in range(3):
        assert ids[row].tolist() == by_the_rule(scores[row].tolist(), k, set())
        assert torch.equal(best[row], scores[row, ids[row]])


def test_no_rows():
    best, ids = top_k(torch.zeros(0, 5), 3)
    assert best.shape == ids.shape == (0, 3)
