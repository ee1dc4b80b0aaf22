"""Numbers that are a function of a key: against splitmix64 in Python integers, scipy's tests, and the exact distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from strategies import make_batch

from attnrec_dist.data.draw_keys import add_keys
from attnrec_dist.data.order import Order, derive_key
from attnrec_dist.ops.draws import ItemSampler, alias_table, combine, mix, uniforms

WORD = 2**64
any_key = st.integers(-(2**63), 2**63 - 1)


def splitmix64(key: int, count: int) -> list[int]:
    """The published generator, in Python integers."""
    state, found = key % WORD, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WORD
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        found.append(z ^ (z >> 31))
    return found


def test_the_published_first_outputs():
    """Seed 1234567, as Rosetta Code lists them."""
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]


@given(st.lists(any_key, min_size=1, max_size=5), st.integers(1, 9))
def test_uniforms_are_splitmix64(keys, count):
    ours = uniforms(torch.tensor(keys), count)
    assert ours.tolist() == [[(word >> 11) / 2**53 for word in splitmix64(key, count)] for key in keys]


@given(any_key)
def test_mixing_leaves_its_argument_alone(key):
    values = torch.tensor([key, key])
    mix(values)
    assert values.tolist() == [key, key]


def test_keys_tell_parts_and_their_order_apart():
    one, two = torch.meshgrid(torch.arange(-1, 300), torch.arange(300), indexing="ij")
    keys = combine(5, one.flatten(), two.flatten())
    assert len(keys.unique()) == keys.numel()
    assert not torch.equal(keys, combine(6, one.flatten(), two.flatten()))
    bits = (keys[:, None] >> torch.arange(64)) & 1
    assert (bits.double().mean(0) - 0.5).abs().max() < 0.01


shares = st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(sum)


@given(shares)
@settings(max_examples=300)
def test_alias_table_gives_exactly_the_shares(counts):
    share = np.array(counts) / sum(counts)
    keep, alias = alias_table(share)
    assert ((keep >= 0) & (keep <= 1)).all()
    given_share = (keep + np.bincount(alias, weights=1 - keep, minlength=len(counts))) / len(counts)
    np.testing.assert_allclose(given_share, share, rtol=0, atol=1e-12)


def test_alias_table_of_a_long_tail():
    counts = np.random.default_rng(0).zipf(1.3, 20_000).astype(np.float64)
    share = counts / counts.sum()
    keep, alias = alias_table(share)
    given_share = (keep + np.bincount(alias, weights=1 - keep, minlength=len(share))) / len(share)
    np.testing.assert_allclose(given_share, share, rtol=0, atol=1e-13)


@pytest.mark.parametrize("counts", [None, [5, 1, 0, 30, 2, 2]])
def test_draws_have_the_distribution_that_is_told(counts):
    sampler = ItemSampler(6, None if counts is None else np.array(counts))
    items = sampler(torch.arange(500), 200)
    log_p = sampler.log_p(torch.arange(6))
    expected = items.numel() * log_p.exp().numpy()
    seen = np.bincount(items.flatten().numpy(), minlength=6)
    assert (seen[expected == 0] == 0).all()
    assert stats.chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-3
    assert log_p.exp().sum().item() == pytest.approx(1)
    if counts is not None:
        assert log_p.exp().numpy() == pytest.approx(np.array(counts) / 40)


def test_more_draws_begin_with_the_fewer_ones():
    sampler = ItemSampler(1000)
    assert torch.equal(sampler(torch.tensor([3, 4]), 50)[:, :20], sampler(torch.tensor([3, 4]), 20))


def test_a_sampler_leaves_nothing_in_a_checkpoint():
    assert ItemSampler(3, np.array([1, 2, 3])).state_dict() == {}


def test_the_keys_of_docs_order_md():
    """Written again in Python's integers; a change would give every sampled loss other negatives."""
    batch = make_batch([[1, 1], [1]])
    batch.sample_ids = torch.tensor([7, 2])
    order = Order("fingerprint", 3, 10, 4)
    add_keys(batch, order, step=5)
    words = [int(word) for word in derive_key("fingerprint", 3, 5, "draws")]

    def finalised(z: int) -> int:
        z %= WORD
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        return z ^ (z >> 31)

    expected = [finalised(place + finalised(sample + words[1])) for sample, place in ((7, 0), (7, 1), (2, 0))]
    assert [key % WORD for key in batch.query_keys.tolist()] == expected
    assert [key % WORD for key in batch.step_key.tolist()] == words[:1]
