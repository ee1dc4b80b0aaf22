"""Every registered loss: the contract, and brute force."""

from __future__ import annotations

import pytest
import torch
from fake_statistics import make_statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches, make_batch, take_rows

from attnrec_dist.batch import DataSpec, Output
from attnrec_dist.errors import ConfigError
from attnrec_dist.losses import LOSSES, build_loss, loss_config_class, loss_task
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.settings import build

SPEC = DataSpec(num_items=30, max_length=40, statistics=make_statistics(30))
NEXT_ITEM = [name for name in LOSSES if loss_task(name) == "next_item"]  # the others: test_ranking_models.py
every_loss = pytest.mark.parametrize("name", NEXT_ITEM)
# Settings that compute something else than the defaults do.
VARIANTS = {
    "softmax": [{}, {"temperature": 0.5}],
    "sampled_softmax": [
        {},
        {"negatives": 7, "distribution": "popularity", "shared": True, "temperature": 0.3},
        {"negatives": 5, "normalize": True, "temperature": 0.1, "logq": False},
        {"negatives": 40, "normalize": True, "shared": True},
    ],
    "bce": [{}, {"negatives": 1}, {"negatives": 6, "calibration": 0.75, "distribution": "popularity"}, {"shared": True}],
}
CASES = [{"name": name, **keys} for name in NEXT_ITEM for keys in VARIANTS.get(name, [{}])]
every_case = pytest.mark.parametrize("keys", CASES, ids=[" ".join(map(str, case.values())) for case in CASES])


def make_loss(**keys):
    return build_loss(build(loss_config_class(keys["name"]), keys, "loss"), SPEC)


def make_table(keys, dtype=torch.float64):
    table = ItemTable(30, 4).to(dtype)
    table.unit = keys.get("normalize", False)
    return table


def setting(batch, dtype=torch.float64):
    torch.manual_seed(0)
    hidden = torch.randn(batch.num_tokens, 4, dtype=dtype).requires_grad_()
    return Output(hidden=hidden), ItemTable(30, 4).to(dtype)


@every_loss
@pytest.mark.parametrize(("dtype", "sums"), [(torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)])
def test_the_sum_is_a_scalar_of_the_stated_type(name, dtype, sums):
    batch = make_batch([[1, 2], [3]])
    output, table = setting(batch, dtype)
    total = make_loss(name=name)(output, batch, table)
    assert (total.shape, total.dtype) == ((), sums)


@every_loss
def test_stand_ins_weigh_nothing(name):
    batch = make_batch([[1, 2], [3]])
    batch.target_weight = torch.zeros_like(batch.target_weight)
    output, table = setting(batch)
    total = make_loss(name=name)(output, batch, table)
    assert total.item() == 0
    gradients = torch.autograd.grad(total, (output.hidden, table.weight))
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@every_loss
def test_no_queries_at_all(name):
    batch = make_batch([])
    output, table = setting(batch)
    total = make_loss(name=name)(output, batch, table)
    assert total.item() == 0


@every_loss
def test_only_the_places_that_predict_are_scored(name):
    batch = make_batch([[2, 3], [4]])
    output, table = setting(batch)
    total = make_loss(name=name)(output, batch, table)
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
    total = make_loss(name="softmax", temperature=temperature)(output, batch, table)
    expected = torch.zeros((), dtype=torch.float64)
    for target, query, share in zip(batch.targets, batch.target_query, batch.target_weight, strict=True):
        scores = table.weight @ output.hidden[batch.queries[query]] / temperature
        expected = expected - share * (scores[target] - scores.exp().sum().log())
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    leaves = (output.hidden, table.weight)
    torch.testing.assert_close(torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves), rtol=1e-11, atol=1e-12)


@given(batch=batches(), cut=st.integers(0, 4))
@settings(deadline=None, max_examples=15)
@every_case
def test_micro_batches_add_up(keys, batch, cut):
    """Each query has the same negatives in whatever micro-batch it stands."""
    output, table = setting(batch)
    table.unit = keys.get("normalize", False)
    loss = make_loss(**keys)
    rows = list(range(len(batch.sample_ids)))
    whole = loss(output, batch, table)
    parts = []
    for part in (rows[cut:], rows[:cut]):
        tokens = [token for row in part for token in range(int(batch.offsets[row]), int(batch.offsets[row + 1]))]
        parts.append(loss(Output(hidden=output.hidden[tokens]), take_rows(batch, part), table))
    total = parts[0] + parts[1]
    torch.testing.assert_close(total, whole, rtol=1e-11, atol=1e-12)
    leaves = (output.hidden, table.weight)
    torch.testing.assert_close(torch.autograd.grad(total, leaves), torch.autograd.grad(whole, leaves), rtol=1e-10, atol=1e-12)


@every_case
def test_bf16_autocast_stays_close(keys):
    batch = make_batch([[1, 2, 1], [3, 1]])
    output, table = setting(batch, torch.float32)
    table.unit = keys.get("normalize", False)
    loss = make_loss(**keys)
    exact = loss(output, batch, table)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = loss(output, batch, table)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, exact, rtol=0.02, atol=0.0)
    gradients = torch.autograd.grad(total, (output.hidden, table.weight))
    assert all(each.isfinite().all() and each.dtype == torch.float32 for each in gradients)


@every_case
def test_fp16_has_the_gradient_of_fp32_under_a_loss_scale(keys):
    """What the engine's scaler does: the loss is multiplied, the gradients are divided. Whole runs in fp16: test_loss_runs.py."""
    batch = make_batch([[1, 2, 1], [3, 1]])
    output, table = setting(batch, torch.float32)
    table.unit = keys.get("normalize", False)
    leaves = [output.hidden, table.weight]
    loss, scale = make_loss(**keys), 2.0**10
    exact = torch.autograd.grad(loss(output, batch, table), leaves)
    with torch.autocast("cpu", dtype=torch.float16):
        total = loss(output, batch, table)
    assert total.dtype == torch.float32
    gradients = torch.autograd.grad(total * scale, leaves)
    assert all((each / scale - other).norm() < 0.01 * other.norm() for each, other in zip(gradients, exact, strict=True))
