"""Every registered loss, and the full softmax against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches, make_batch

from attnrec_dist.batch import Output
from attnrec_dist.errors import ConfigError
from attnrec_dist.losses import LOSSES, build_loss, loss_config_class
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.settings import build

every_loss = pytest.mark.parametrize("name", LOSSES)


def make_loss(**keys):
    return build_loss(build(loss_config_class(keys["name"]), keys, "loss"))


def setting(batch, dtype=torch.float64):
    torch.manual_seed(0)
    hidden = torch.randn(batch.num_tokens, 4, dtype=dtype).requires_grad_()
    return Output(hidden=hidden), ItemTable(30, 4).to(dtype)


@every_loss
@pytest.mark.parametrize(("dtype", "sums"), [(torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)])
def test_sum_and_weight_are_scalars_of_the_stated_type(name, dtype, sums):
    batch = make_batch([[1, 2], [3]])
    output, table = setting(batch, dtype)
    total, weight = make_loss(name=name)(output, batch, table)
    assert (total.shape, total.dtype, weight.shape, weight.dtype) == ((), sums, (), sums)
    assert not weight.requires_grad


@every_loss
def test_stand_ins_weigh_nothing(name):
    batch = make_batch([[1, 2], [3]])
    batch.target_weight = torch.zeros_like(batch.target_weight)
    output, table = setting(batch)
    total, weight = make_loss(name=name)(output, batch, table)
    assert total.item() == weight.item() == 0
    gradients = torch.autograd.grad(total, (output.hidden, table.weight))
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@every_loss
def test_no_queries_at_all(name):
    batch = make_batch([])
    output, table = setting(batch)
    total, weight = make_loss(name=name)(output, batch, table)
    assert total.item() == weight.item() == 0


@every_loss
def test_only_the_places_that_predict_are_scored(name):
    batch = make_batch([[2, 3], [4]])
    output, table = setting(batch)
    total, _ = make_loss(name=name)(output, batch, table)
    gradient = torch.autograd.grad(total, output.hidden)[0]
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == sorted(batch.queries.tolist())


@every_loss
def test_an_unknown_key_is_refused(name):
    with pytest.raises(ConfigError, match="temprature"):
        build(loss_config_class(name), {"name": name, "temprature": 1}, "loss")
    assert loss_config_class(name)().name == name


def test_an_unknown_loss_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"loss\.name: there is no 'sofmax'; did you mean softmax\?"):
        loss_config_class("sofmax")


@given(batch=batches(), temperature=st.sampled_from([0.1, 1.0, 3.0]))
@settings(deadline=None, max_examples=25)
def test_softmax_equals_brute_force(batch, temperature):
    output, table = setting(batch)
    total, weight = make_loss(name="softmax", temperature=temperature)(output, batch, table)
    expected = torch.zeros((), dtype=torch.float64)
    for target, query, share in zip(batch.targets, batch.target_query, batch.target_weight, strict=True):
        scores = table.weight @ output.hidden[batch.queries[query]] / temperature
        expected = expected - share * (scores[target] - scores.exp().sum().log())
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weight, batch.target_weight.double().sum())
    leaves = (output.hidden, table.weight)
    torch.testing.assert_close(torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves), rtol=1e-11, atol=1e-12)
