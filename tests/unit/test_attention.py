"""Attention kernels against a few lines of plain Python, gradients included."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import batches, make_batch

from attnrec_dist.errors import ConfigError
from attnrec_dist.ops.attention import attention, attention_at_ends, bucketed, dropped, flex
from attnrec_dist.ops.packed import Layout

CPU_KERNELS = ["reference", "bucketed"]


def brute_force(q, k, v, batch):
    """Token by token, from the batch's own fields; nothing of ours is called."""
    out = torch.zeros_like(v)
    offsets = batch.offsets.tolist()
    for first, end in itertools.pairwise(offsets):
        for i in range(first, end):
            seen = [j for j in range(first, end) if batch.baskets[j] <= batch.baskets[i]]
            for head in range(q.shape[1]):
                scores = torch.stack([q[i, head] @ k[j, head] / math.sqrt(q.shape[2]) for j in seen])
                out[i, head] = scores.softmax(0) @ v[seen, head]
    return out


def random_qkv(tokens, seed=0, dtype=torch.float64, heads=2, width=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tokens, heads, width, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("kernel", CPU_KERNELS)
@given(batch=batches())
@example(batch=make_batch([[1]]))
@example(batch=make_batch([[40, 1], [1, 1], [2]]))
@settings(deadline=None, max_examples=15)
def test_values_and_gradients_equal_brute_force(kernel, batch):
    qkv = random_qkv(batch.num_tokens)
    expected = brute_force(*qkv, batch)
    actual = attention(*qkv, Layout.of(batch), kernel=kernel)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    for mine, theirs in zip(
        torch.autograd.grad(actual, qkv, upstream), torch.autograd.grad(expected, qkv, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


@given(batch=batches())
@example(batch=make_batch([[40, 1], [1, 1], [2]]))
@settings(deadline=None, max_examples=15)
def test_at_the_ends_it_equals_brute_force(batch):
    q, k, v = random_qkv(batch.num_tokens)
    layout = Layout.of(batch)
    found = attention_at_ends(q[layout.ends], k, v, layout)
    torch.testing.assert_close(found, brute_force(q, k, v, batch)[layout.ends], rtol=1e-12, atol=1e-12)


def test_at_the_ends_of_no_rows_there_is_nothing():
    q = torch.zeros(0, 2, 4)
    layout = Layout(torch.zeros(1, dtype=torch.int32), None, max_length=0, num_tokens=0)
    assert attention_at_ends(q, q, q, layout).shape == attention(q, q, q, layout).shape == (0, 2, 4)


@given(batch=batches())
@settings(deadline=None, max_examples=8)
def test_flex_forward_equals_the_reference(batch):
    # Its backward exists on a GPU only, and so do its half-precision conditions: here the kernel itself, in fp32.
    q, k, v = random_qkv(batch.num_tokens, dtype=torch.float32, width=16)
    layout = Layout.of(batch)
    with torch.no_grad():
        torch.testing.assert_close(flex.attend(q, k, v, layout, 0.0), attention(q, k, v, layout, kernel="reference"))


def test_many_lengths_fall_into_several_groups_and_still_agree():
    batch = make_batch([[1] * length for length in (150, 149, 90, 3, 2, 1)])
    layout = Layout.of(batch)
    assert len(bucketed.pad(layout).groups) >= 3
    qkv = random_qkv(batch.num_tokens)
    torch.testing.assert_close(attention(*qkv, layout), attention(*qkv, layout, kernel="reference"))


@given(lengths=st.lists(st.integers(1, 400), max_size=60))
@settings(deadline=None, max_examples=50)
def test_groups_hold_every_row_and_waste_little(lengths):
    lengths = sorted(lengths, reverse=True)
    groups = bucketed.group_by_length(lengths)
    assert sum(rows for rows, _ in groups) == len(lengths)
    start = 0
    for rows, longest in groups:
        members = lengths[start : start + rows]
        assert longest == max(members)
        assert sum(longest**2 - each**2 for each in members) <= bucketed.CALL_COST
        start += rows


def test_nan_stays_in_its_row():
    batch = make_batch([[1] * 30, [1, 1], [3, 2]])
    qkv, layout = random_qkv(batch.num_tokens), Layout.of(batch)
    with torch.no_grad():
        for each in qkv:
            each[batch.offsets[1] - 1] = float("nan")  # the longest row's last token, which padding might have carried along
    out = attention(*qkv, layout, kernel="bucketed")
    gradients = torch.autograd.grad(out[30:].sum(), qkv)
    assert out[29].isnan().all()
    assert out[30:].isfinite().all()
    assert all(gradient[30:].isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype):
    batch = make_batch([[1, 4, 2], [3, 3]])
    qkv = random_qkv(batch.num_tokens, dtype=torch.float32)
    layout = Layout.of(batch)
    half = attention(*(each.to(dtype) for each in qkv), layout)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), attention(*qkv, layout), rtol=0.03, atol=0.03)


def test_dropout_drops_and_is_seeded():
    batch = make_batch([[1] * 20])
    qkv, layout = random_qkv(20), Layout.of(batch)
    for kernel in CPU_KERNELS:
        torch.manual_seed(1)
        once = attention(*qkv, layout, dropout=0.5, kernel=kernel)
        torch.manual_seed(1)
        again = attention(*qkv, layout, dropout=0.5, kernel=kernel)
        assert torch.equal(once, again)
        assert not torch.allclose(once, attention(*qkv, layout, kernel=kernel))


@pytest.mark.parametrize("length", [1, 5, 150])
@pytest.mark.parametrize("causal", [True, False])
def test_dropped_attention_equals_autograd_through_the_same_choice(length, causal, monkeypatch):
    monkeypatch.setattr(dropped, "CHUNK_ELEMENTS", 3 * 64 * 100)  # several chunks of heads, and of queries
    generator = torch.Generator().manual_seed(length)
    q, k, v, upstream = torch.randn(4, 3, 2, length, length, generator=generator, dtype=torch.float64)  # width = length
    mask = None if causal else torch.rand(3, 1, length, length, generator=generator) < 0.7
    seen = torch.ones(length, length, dtype=torch.bool).tril() if causal else mask
    if not causal:
        mask[..., 0] = True  # everybody sees somebody
    q, k, v = (each.requires_grad_() for each in (q, k, v))
    whole = (q @ k.transpose(2, 3) / math.sqrt(length)).masked_fill(~seen, -math.inf).softmax(-1)

    torch.manual_seed(3)
    left = dropped.dropped_attention(q, k, torch.eye(length, dtype=torch.float64).expand_as(v), mask, 0.25)  # the weights
    assert torch.all((left == 0) | torch.isclose(left, whole / 0.75))
    if length == 150:
        assert (left != 0).sum() / (whole != 0).sum() == pytest.approx(0.75, abs=0.01)
        assert (left[0, 0] != 0).sum() != (left[1, 0] != 0).sum()

    torch.manual_seed(3)
    actual = dropped.dropped_attention(q, k, v, mask, 0.25)
    expected = (whole * (left != 0) / 0.75) @ v
    torch.testing.assert_close(actual, expected)
    for mine, theirs in zip(
        torch.autograd.grad(actual, (q, k, v), upstream), torch.autograd.grad(expected, (q, k, v), upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kernel", ["varlen", "flex"])
def test_a_kernel_that_cannot_run_here_is_refused_by_name(kernel):
    batch = make_batch([[1, 1]])
    with pytest.raises(ConfigError, match=f"attention kernel {kernel} needs a GPU"):
        attention(*random_qkv(2), Layout.of(batch), kernel=kernel)


def test_an_unknown_kernel_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean bucketed"):
        attention(*random_qkv(2), Layout.of(make_batch([[1, 1]])), kernel="bucket")


def test_no_rows_at_all():
    qkv = random_qkv(0)
    out = attention(*qkv, Layout.of(make_batch([])))
    assert out.shape == (0, 2, 4)
    torch.autograd.grad(out.sum(), qkv)
