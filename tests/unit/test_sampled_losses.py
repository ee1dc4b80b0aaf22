"""The sampled losses against loops over queries and negatives, their statistics, and what they refuse."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from fake_statistics import make_statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches, make_batch
from tiny_shop import attnrec_in_process

from attnrec_dist.batch import DataSpec, Output
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.errors import ConfigError, FaultError
from attnrec_dist.inference.load import load_model
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.losses.negatives import hits
from attnrec_dist.losses.sampled_softmax import multiplicity
from attnrec_dist.ops.chosen_logits import chosen_logits
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.settings import build

V, D = 30, 4
SPEC = DataSpec(num_items=V, max_length=40, statistics=make_statistics(V))
COUNTS = torch.from_numpy(SPEC.statistics.popularity()).double()
few_examples = settings(deadline=None, max_examples=20)


def make_loss(spec=SPEC, **keys):
    return build_loss(build(loss_config_class(keys["name"]), keys, "loss"), spec)


def setting(batch, unit=False, num_items=V, std=1.0):
    torch.manual_seed(0)
    output = Output(hidden=torch.randn(batch.num_tokens, D, dtype=torch.float64).mul_(std).requires_grad_())
    table = ItemTable(num_items, D).double()
    torch.nn.init.normal_(table.weight, std=std)
    table.unit = unit
    return output, table


def scores(output, table, batch):
    """All scores, [P, V], the long way."""
    hidden, items = output.hidden[batch.queries], table.weight
    if table.unit:
        hidden, items = (each / each.square().sum(1, keepdim=True).sqrt() for each in (hidden, items))
    return hidden @ items.T


def assert_same(total, expected, output, table):
    leaves = (output.hidden, table.weight)
    torch.testing.assert_close(total, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves), rtol=1e-10, atol=1e-12)


def drawn(loss, batch):
    ids = loss.negatives.draw(batch)
    return ids.tolist() if ids.dim() > 1 else [ids.tolist()] * len(batch.queries)


def targets_of(batch, query):
    return {int(target) for target, of in zip(batch.targets, batch.target_query, strict=True) if of == query}


@given(
    batch=batches(),
    shared=st.booleans(),
    logq=st.booleans(),
    unit=st.booleans(),
    distribution=st.sampled_from(["uniform", "popularity"]),
    count=st.sampled_from([1, 9, 50]),
)
@few_examples
def test_sampled_softmax_equals_a_loop(batch, shared, logq, unit, distribution, count):
    output, table = setting(batch, unit)
    loss = make_loss(
        name="sampled_softmax",
        negatives=count,
        shared=shared,
        logq=logq,
        normalize=unit,
        distribution=distribution,
        temperature=0.7,
    )
    total = loss(output, batch, table)
    p = COUNTS / COUNTS.sum() if distribution == "popularity" else torch.full((V,), 1 / V, dtype=torch.float64)
    score = scores(output, table, batch) / 0.7
    expected = torch.zeros((), dtype=torch.float64)
    for query, negatives in enumerate(drawn(loss, batch)):
        own = targets_of(batch, query)
        z = sum(score[query, item].exp() for item in own)
        for item in negatives:
            if item not in own:
                z = z + score[query, item].exp() / (count * p[item] if logq else 1)
        for target, of, share in zip(batch.targets, batch.target_query, batch.target_weight, strict=True):
            if of == query:
                expected = expected + share * (z.log() - score[query, target])
    assert_same(total, expected, output, table)


@given(batch=batches(), shared=st.booleans(), t=st.sampled_from([0.0, 0.4, 1.0]), count=st.sampled_from([1, 9, 50]))
@few_examples
def test_bce_equals_a_loop(batch, shared, t, count):
    output, table = setting(batch)
    loss = make_loss(name="bce", negatives=count, shared=shared, calibration=t)
    total = loss(output, batch, table)
    probability = scores(output, table, batch).sigmoid()
    alpha = min(1, count / (V - 1))
    beta = alpha * ((1 - 1 / alpha) * t + 1 / alpha)  # as the paper writes it
    expected = torch.zeros((), dtype=torch.float64)
    negatives = drawn(loss, batch)
    for target, query, share in zip(batch.targets, batch.target_query, batch.target_weight, strict=True):
        own = targets_of(batch, query)
        terms = [(probability[query, target] ** beta).log()]
        terms += [(1 - probability[query, item]).log() for item in negatives[query] if item not in own]
        expected = expected - share * sum(terms) / (1 + count)
    assert_same(total, expected, output, table)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("sizes", [[[1] * 12], [[3, 2, 4]]])
def test_with_logq_the_loss_and_its_gradient_go_to_those_of_full_softmax(distribution, sizes):
    """The error falls like one over the root of the number of negatives. Without the correction it does not."""
    batch = make_batch(sizes, V)
    statistics = make_statistics(V, days=(8, 9))
    statistics.events.update({(item, 8): 1 + item % 7 for item in range(V)})  # every item may be drawn
    spec = dataclasses.replace(SPEC, statistics=statistics)
    output, table = setting(batch)
    leaves = (output.hidden, table.weight)
    full = make_loss(name="softmax")(output, batch, table)
    full_gradient = torch.cat([each.flatten() for each in torch.autograd.grad(full, leaves)])

    def errors(count, **keys):
        loss = make_loss(spec, name="sampled_softmax", negatives=count, distribution=distribution, **keys)
        total = loss(output, batch, table)
        gradient = torch.cat([each.flatten() for each in torch.autograd.grad(total, leaves)])
        return abs(total - full).item() / full.item(), ((gradient - full_gradient).norm() / full_gradient.norm()).item()

    few, many = errors(100), errors(30_000)
    assert max(many) < 0.03
    assert few[1] > 5 * many[1]
    assert errors(30_000, logq=False)[0] > 0.3


def test_the_estimate_of_z_is_unbiased():
    """Over many keys the mean of Z is that of all items, with few negatives too."""
    batch = make_batch([[1, 1, 1]], V)
    output, table = setting(batch)
    score = scores(output, table, batch).detach()
    loss = make_loss(name="sampled_softmax", negatives=3, distribution="popularity")
    p = COUNTS / COUNTS.sum()
    batch.target_query, batch.targets = batch.target_query[:1], batch.targets[:1]
    target, found = int(batch.targets[0]), []
    for key in range(3000):
        ids = loss.negatives.sampler(torch.tensor([key]), 3)[0]
        kept = ids[ids != target]
        found.append(score[0, target].exp() + (score[0, kept].exp() / (3 * p[kept])).sum())
    found = torch.stack(found)
    possible = p > 0
    possible[target] = True
    z = score[0, possible].exp().sum()
    assert abs(found.mean() - z) < 4 * found.std() / math.sqrt(len(found))


def test_accidental_hits_and_goods_that_a_basket_holds_twice():
    batch = make_batch([[1, 1]], V)
    batch.targets, batch.target_query = torch.tensor([4, 2, 4, 4, 1]), torch.tensor([0, 0, 0, 1, 1])
    assert multiplicity(batch).tolist() == [2, 1, 2, 1, 1]
    assert hits(torch.tensor([[4, 2, 1, 0], [4, 2, 1, 0]]), batch).tolist() == [
        [True, True, False, False],
        [True, False, True, False],
    ]
    assert hits(torch.tensor([1, 2]), batch).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("name", ["sampled_softmax", "bce"])
def test_a_query_whose_negatives_are_all_hits_has_a_finite_gradient(name):
    batch = make_batch([[1]], 1)
    output, table = setting(batch, num_items=1)
    loss = make_loss(DataSpec(1, 40), name=name, negatives=4)
    total = loss(output, batch, table)
    assert all(each.isfinite().all() for each in torch.autograd.grad(total, (output.hidden, table.weight)))
    assert name == "bce" or total.item() == pytest.approx(0)


def test_shared_negatives_are_those_of_the_step():
    loss = make_loss(name="bce", negatives=64, shared=True)
    one, other = make_batch([[1, 1]], seed=1), make_batch([[3], [2]], seed=1)
    assert torch.equal(loss.negatives.draw(one), loss.negatives.draw(other))
    assert not torch.equal(loss.negatives.draw(one), loss.negatives.draw(make_batch([[1, 1]], seed=2)))


def test_a_mixture_is_refused():
    batch = make_batch([[1, 1]])
    output, table = setting(batch)
    output.beside = (torch.zeros(2), torch.zeros(2))
    for name in ("sampled_softmax", "bce"):
        with pytest.raises(ConfigError, match=rf"loss\.name: {name} .* --loss\.name softmax"):
            make_loss(name=name)(output, batch, table)


def test_a_mixture_is_refused_before_training(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {path: data}\nmodel: {name: mixture}\nloss: {name: bce}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: loss\.name: bce .* model mixture .* --loss\.name softmax"):
        load_run_config(tmp_path / "run.yaml", {})


def test_a_loaded_model_ranks_by_the_cosine_where_that_was_trained(shop, tmp_path):
    keys = ["--loss.name", "sampled_softmax", "--loss.negatives", "9", "--train.max_steps", "2"]
    for normalize in (True, False):
        run = tmp_path / str(normalize)
        options = ["--run_dir", run, "--data", shop.data, *keys, "--loss.normalize", str(normalize).lower()]
        assert attnrec_in_process("train", shop.run_yaml, *options) == 0
        assert load_model(run).model.table.unit is normalize
        assert attnrec_in_process("evaluate", run) == 0


def test_popularity_is_of_the_training_part(shop):
    data = DataSet.open(shop.data)
    counts = torch.zeros(data.manifest.num_items, dtype=torch.int64)
    for rows in data.scan():
        for first, end in zip(rows.offsets[:-1], rows.train_end, strict=True):
            counts += torch.bincount(torch.from_numpy(rows.items[first : first + end]), minlength=len(counts))[: len(counts)]
    assert data.popularity().tolist() == counts.tolist()


def test_popularity_without_counts_is_refused():
    with pytest.raises(ConfigError, match=r"loss\.distribution: .* --loss\.distribution uniform"):
        make_loss(DataSpec(V, 40), name="bce", distribution="popularity")


def test_a_batch_without_keys_is_refused():
    batch = dataclasses.replace(make_batch([[1, 1]]), query_keys=None)
    with pytest.raises(FaultError, match="no keys"):
        make_loss(name="bce")(*setting(batch)[:1], batch, setting(batch)[1])


# ops/chosen_logits.py


@given(st.integers(0, 5), st.integers(1, 6), st.booleans(), st.integers(1, 60), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_chosen_logits_in_chunks_of_any_size(queries, count, unit, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(queries, D, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(7, D, dtype=torch.float64, generator=generator, requires_grad=True)
    ids = torch.randint(7, (queries, count), generator=generator)
    ours = chosen_logits(hidden, weight, ids, unit, chunk)
    items = F.normalize(weight, dim=-1) if unit else weight
    plain = torch.einsum("pd,pnd->pn", hidden, items[ids])
    slope = torch.randn(plain.shape, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(ours, plain)
    leaves = (hidden, weight)
    torch.testing.assert_close(torch.autograd.grad(ours, leaves, slope), torch.autograd.grad(plain, leaves, slope))


def test_gradcheck_of_chosen_logits():
    ids = torch.tensor([[0, 3, 3], [2, 0, 1]])
    values = [torch.randn(size, D, dtype=torch.float64, requires_grad=True) for size in (2, 4)]
    for unit in (False, True):
        assert torch.autograd.gradcheck(lambda h, w, unit=unit: chosen_logits(h, w, ids, unit), values)


def test_a_normalised_table_ranks_by_the_cosine():
    _, table = setting(make_batch([[1]]), unit=True)
    hidden = torch.randn(3, D, dtype=torch.float64)
    cosine = F.cosine_similarity(hidden[:, None], table.weight[None], dim=-1)
    torch.testing.assert_close(table.logits(hidden), cosine)
    torch.testing.assert_close(table.logits(hidden, 4, 9), cosine[:, 4:9])
    torch.testing.assert_close(table.chosen_logits(hidden, torch.tensor([5, 2])), cosine[:, [5, 2]])
