"""The layout of packed rows and the mean over baskets, against loops over the batch's own fields."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from strategies import batches, make_batch
from torch.autograd import gradcheck

from attnrec_dist.ops.packed import Layout, pool_baskets


def owners(batch):
    """(row, basket) of each token, by walking the rows."""
    ends = batch.offsets.tolist()
    return [(row, int(batch.baskets[t])) for row in range(len(ends) - 1) for t in range(ends[row], ends[row + 1])]


@given(batch=batches())
@settings(deadline=None, max_examples=30)
def test_rows_places_and_segments(batch):
    layout, owner = Layout.of(batch), owners(batch)
    assert layout.rows.tolist() == [row for row, _ in owner]
    assert layout.places.tolist() == [t - int(batch.offsets[row]) for t, (row, _) in enumerate(owner)]
    numbers = {each: number for number, each in enumerate(dict.fromkeys(owner))}
    assert layout.segments.tolist() == [numbers[each] for each in owner]
    if not batch.singletons:
        assert layout.segment_sizes[layout.segments].tolist() == [owner.count(each) for each in owner]


@given(batch=batches(singletons=False))
@settings(deadline=None, max_examples=30)
def test_every_token_gets_the_mean_of_its_basket(batch):
    hidden = torch.randn(batch.num_tokens, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    owner = owners(batch)
    expected = torch.stack([hidden[[t for t, other in enumerate(owner) if other == each]].mean(0) for each in owner])
    torch.testing.assert_close(pool_baskets(hidden, Layout.of(batch)), expected, rtol=1e-13, atol=1e-14)


def test_equal_numbers_of_neighbouring_rows_are_different_baskets():
    # Row 0 ends in its basket 0 and row 1 begins with its own basket 0.
    layout = Layout.of(make_batch([[2], [3]]))
    assert layout.segments.tolist() == [0, 0, 1, 1, 1]


def test_gradient_of_the_mean():
    layout = Layout.of(make_batch([[3, 1], [2]]))
    assert gradcheck(lambda x: pool_baskets(x, layout), torch.randn(6, 2, dtype=torch.float64).requires_grad_())


def test_singletons_pass_unchanged():
    hidden = torch.randn(3, 2)
    assert pool_baskets(hidden, Layout.of(make_batch([[1, 1], [1]]))) is hidden


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_formed_in_fp32(dtype):
    # So the mean is rounded once, at the end.
    hidden = torch.randn(700, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    pooled = pool_baskets(hidden, Layout.of(make_batch([[7] * 100])))
    exact = hidden.double().view(100, 7, 3).mean(1).to(dtype)
    assert torch.equal(pooled, exact.repeat_interleave(7, 0))


def test_what_a_kernel_derives_is_derived_once():
    layout, calls = Layout.of(make_batch([[1]])), []

    def derive(given):
        calls.append(given)
        return 7

    assert layout.once(derive) == layout.once(derive) == 7
    assert calls == [layout]
