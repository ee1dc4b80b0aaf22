"""The battery: what every registered model promises, and a few facts of single models. A new model is found by itself."""

from __future__ import annotations

import dataclasses
import math
from unittest import mock

import pytest
import torch
from fake_statistics import make_statistics, with_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EVENT_TYPES, batches, change_tokens, make_batch, shuffle_inside_baskets, take_rows

from attnrec_dist.batch import DataSpec, Needs
from attnrec_dist.errors import ConfigError, DataError
from attnrec_dist.inference.load import score
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.models import MODELS, build_model, model_config_class, model_task
from attnrec_dist.ops.packed import Layout
from attnrec_dist.settings import build

NUM_ITEMS = 30
STATISTICS = make_statistics(NUM_ITEMS)
SPEC = DataSpec(num_items=NUM_ITEMS, max_length=40, event_types=EVENT_TYPES, statistics=STATISTICS)

# Further settings worth running through the battery; each model's defaults are always in it.
VARIANTS = {
    "sasrec": [{"norm": "post", "activation": "gelu", "feed_forward": 4}, {"width": 30, "heads": 3, "blocks": 1}],
    "bsarec": [{"cutoff": 9, "alpha": 0.3, "heads": 4, "width": 12, "activation": "relu"}],
    "mixture": [{"experts": ["sequence", "trend"], "half_lives": [7.0], "body": {"norm": "post", "width": 12}}],
}
NEXT_ITEM = [name for name in MODELS if model_task(name) == "next_item"]  # the others: test_ranking_models.py
CASES = [(name, keys) for name in NEXT_ITEM for keys in [{}, *VARIANTS.get(name, [])]]
every_model = pytest.mark.parametrize(
    ("name", "keys"), CASES, ids=[f"{name}-{'-'.join(keys) or 'defaults'}" for name, keys in CASES]
)
few_examples = settings(deadline=None, max_examples=12)


def make_model(name, keys, spec=SPEC, seed=0):
    """A model whose parameters are all away from zero, so that each of them matters to what it computes."""
    torch.manual_seed(seed)
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), spec)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.mean()), std=0.2)
    return model


def exact(name, keys):
    return make_model(name, keys).double().eval()


def run(model, batch, statistics=STATISTICS):
    """The model's output; where its configuration has needs, what they ask for is looked up for this very batch."""
    needs = getattr(getattr(model, "config", None), "needs", Needs())
    return model(with_evidence(batch, needs, statistics))


def softmax_loss(model, batch, statistics=STATISTICS):
    loss = build_loss(loss_config_class("softmax")(), SPEC)
    return loss(run(model, batch, statistics), batch, model.table)


def queries_of(model, batch):
    return run(model, batch).hidden[batch.queries]


def log_p(model, batch):
    """Log p of each target, [M], from dense logits."""
    output = run(model, batch)
    dense = model.table.logits(output.hidden[batch.queries]).log_softmax(-1)[batch.target_query, batch.targets]
    if output.beside is None:
        return dense
    log_share, log_rest = output.beside
    return torch.logaddexp(log_share + dense, log_rest)


@every_model
def test_trains_on_any_batch(name, keys):
    for sizes in ([[1]], [[1, 1, 1], [1]], [[2, 3], [1, 4, 1], [5]]):
        model = make_model(name, keys).train()
        batch = make_batch(sizes, NUM_ITEMS)
        hidden = run(model, batch).hidden
        assert hidden.shape == (batch.num_tokens, model.table.width)
        loss = softmax_loss(model, batch)
        loss.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{key} takes no part"
            assert parameter.grad.isfinite().all(), key


@every_model
@given(batch=batches(), data=st.data())
@few_examples
def test_no_query_sees_a_later_basket_or_another_row(name, keys, batch, data):
    model = exact(name, keys)
    layout = Layout.of(batch)
    row = data.draw(st.integers(0, len(batch.sample_ids) - 1))
    cut = data.draw(st.integers(0, int(batch.baskets[layout.rows == row].max())))
    changed = (layout.rows == row) & (batch.baskets >= cut)
    before, after = run(model, batch).hidden, run(model, change_tokens(batch, changed)).hidden
    torch.testing.assert_close(after[~changed], before[~changed], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[changed], before[changed])  # the test would notice
    blind = ~changed[batch.queries[batch.target_query]]
    before, after = log_p(model, batch), log_p(model, change_tokens(batch, changed))
    torch.testing.assert_close(after[blind], before[blind], rtol=1e-11, atol=1e-11)
    assert blind.all() or not torch.equal(after[~blind], before[~blind])


@every_model
@given(batch=batches())
@few_examples
def test_a_query_sees_every_token_of_its_past(name, keys, batch):
    model = exact(name, keys)
    before = queries_of(model, batch)
    first = torch.zeros(batch.num_tokens, dtype=torch.bool)
    first[batch.offsets[:-1].long()] = True
    after = queries_of(model, change_tokens(batch, first))
    assert ((after - before).abs().amax(1) > 1e-12).all()


@every_model
@given(batch=batches(singletons=False), seed=st.integers(0, 99))
@few_examples
def test_order_inside_a_basket_means_nothing(name, keys, batch, seed):
    model, shuffled = exact(name, keys), shuffle_inside_baskets(batch, seed)
    torch.testing.assert_close(queries_of(model, shuffled), queries_of(model, batch), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(log_p(model, shuffled), log_p(model, batch), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(softmax_loss(model, shuffled), softmax_loss(model, batch), rtol=1e-12, atol=0)


@every_model
def test_order_of_baskets_means_something(name, keys):
    model = exact(name, keys)
    one, other = make_batch([[1, 1, 1]]), make_batch([[1, 1, 1]])
    one.items, other.items = torch.tensor([1, 2, 3]), torch.tensor([2, 1, 3])
    assert not torch.allclose(run(model, one).hidden[-1], run(model, other).hidden[-1])


@every_model
@given(batch=batches())
@few_examples
def test_packing_changes_nothing(name, keys, batch):
    model = exact(name, keys)
    rows = [take_rows(batch, [row]) for row in range(len(batch.sample_ids))]
    for what in (lambda each: run(model, each).hidden, lambda each: log_p(model, each)):
        torch.testing.assert_close(torch.cat([what(row) for row in rows]), what(batch), rtol=1e-11, atol=1e-11)


WITH_ENDS = [case for case in CASES if "at_ends" in vars(MODELS[case[0]])]


@pytest.mark.parametrize(("name", "keys"), [*WITH_ENDS, ("bsarec", {"causal": False})])
@given(batch=batches(singletons=True))
@few_examples
def test_asked_at_the_ends_alone_a_model_says_the_same(name, keys, batch):
    model, ends = exact(name, keys), batch.offsets[1:].long() - 1
    forecast = dataclasses.replace(batch, queries=ends)
    expected = model.table.logits(model(forecast).hidden[ends])
    assert forecast.asks_at_ends()
    unused = mock.Mock(side_effect=AssertionError("every place was computed"))
    with mock.patch.object(model, "forward", unused):
        found = score(model, forecast, torch.device("cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "keys"), WITH_ENDS)
def test_asked_elsewhere_or_after_a_basket_the_whole_row_is_computed(name, keys):
    model = exact(name, keys)
    for batch in (make_batch([[1, 1, 1], [1]]), make_batch([[1, 2]])):
        ends = batch.offsets[1:].long() - 1
        asked = batch if batch.singletons else dataclasses.replace(batch, queries=ends)
        assert not asked.asks_at_ends()
        expected = model.table.logits(model(batch).hidden[asked.queries])
        torch.testing.assert_close(score(model, asked, torch.device("cpu")), expected, rtol=1e-11, atol=1e-11)


@every_model
@given(batch=batches(), cut=st.integers(0, 4))
@few_examples
def test_losses_and_gradients_of_parts_add_up(name, keys, batch, cut):
    model = exact(name, keys)
    rows = list(range(len(batch.sample_ids)))
    parts = [take_rows(batch, part) for part in (rows[:cut], rows[cut:]) if part]
    whole, total = _loss_and_gradients(model, [batch]), _loss_and_gradients(model, parts)
    for a, b in zip(total, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def _loss_and_gradients(model, parts):
    model.zero_grad()
    loss = torch.stack([softmax_loss(model, part) for part in parts]).sum()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@every_model
def test_float64_stays_float64(name, keys):
    model, batch = exact(name, keys), make_batch([[1, 3], [2]], NUM_ITEMS)
    exact_hidden = run(model, batch).hidden
    assert exact_hidden.dtype == torch.float64
    assert softmax_loss(model, batch).dtype == torch.float64
    torch.testing.assert_close(exact_hidden.float(), run(model.float(), batch).hidden, rtol=1e-4, atol=1e-4)


@every_model
@pytest.mark.parametrize("sizes", [[[1, 1, 1, 1], [1, 1]], [[2, 3, 1], [4]]])
def test_bf16_autocast_stays_close(name, keys, sizes):
    model, batch = make_model(name, keys).eval(), make_batch(sizes, NUM_ITEMS)
    exact_loss = softmax_loss(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = softmax_loss(model, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact_loss, rtol=0.03, atol=0.0)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_model
def test_initial_values_follow_the_seed(name, keys):
    def initial(seed):
        torch.manual_seed(seed)
        return build_model(build(model_config_class(name), {"name": name, **keys}, "model"), SPEC).state_dict()

    one, same, other = initial(1), initial(1), initial(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@every_model
def test_the_first_loss_is_that_of_guessing(name, keys):
    torch.manual_seed(0)
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), SPEC)
    batch = make_batch([[1] * 30, [3, 2, 4, 5]], NUM_ITEMS)
    loss = softmax_loss(model.eval(), batch) / len(batch.queries)
    guessing = math.log(NUM_ITEMS)
    experts = len(getattr(model.config, "experts", [])) if hasattr(model, "config") else 0
    assert 0.9 * guessing < loss.item() < 1.1 * guessing + math.log(max(experts, 1))


@every_model
def test_learns_a_cycle(name, keys):
    """Item i is always followed by i + 1: a few dozen steps have to bring the loss near zero."""
    torch.manual_seed(0)
    statistics = make_statistics(10)
    spec = DataSpec(num_items=10, max_length=40, statistics=statistics)
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), spec)
    batch = make_batch([[1] * 12] * 4, 10)
    place = torch.arange(48)
    batch.items = (place + place // 12) % 10
    batch.targets, batch.target_query, batch.target_weight = (batch.items + 1) % 10, place, torch.ones(48)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = softmax_loss(model, batch, statistics) / 48
        loss.backward()
        optimizer.step()
    loss = softmax_loss(model.eval(), batch, statistics) / 48
    assert loss.item() < 0.3


@every_model
def test_an_unknown_key_is_refused(name, keys):
    with pytest.raises(ConfigError, match="wdth"):
        build(model_config_class(name), {"name": name, "wdth": 1}, "model")


@every_model
def test_every_key_says_what_it_means(name, keys):
    fields = model_config_class(name).model_fields
    assert [key for key, field in fields.items() if key != "name" and not field.description] == []
    assert model_config_class(name)(name=name).name == name


def test_an_unknown_model_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"model\.name: there is no 'sasrek'; did you mean sasrec\?"):
        model_config_class("sasrek")
    with pytest.raises(ConfigError, match=r"known: .*sasrec"):
        model_config_class("xyz")


def test_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"model\.width 65 .* model\.heads 2; try --model\.width 66"):
        make_model("sasrec", {"width": 65})


def test_missing_event_types_are_refused():
    batch = make_batch([[1]])
    batch.events = {}
    with pytest.raises(DataError, match="event types"):
        make_model("sasrec", {})(batch)
    assert make_model("sasrec", {}, DataSpec(NUM_ITEMS, 40, ("purchase",)))(batch).hidden.isfinite().all()


def test_sasrec_positions_beyond_the_table_share_the_last_one():
    model = make_model("sasrec", {}, DataSpec(NUM_ITEMS, 3, ())).eval()
    assert model(make_batch([[1] * 9])).hidden.isfinite().all()


def test_sasrec_uses_each_dropout_only_in_training():
    batch = make_batch([[1, 1, 1, 1]])
    for keys in ({"dropout": 0.5}, {"dropout": 0.0, "attention_dropout": 0.5}):
        model = make_model("sasrec", keys)
        drawn = [model.train()(batch).hidden for _ in range(2)]
        assert not torch.equal(*drawn)
        assert torch.equal(model.eval()(batch).hidden, model(batch).hidden)
    model = make_model("sasrec", {"dropout": 0.0}).train()
    assert torch.equal(model(batch).hidden, model.eval()(batch).hidden)


def test_sasrec_equals_a_plain_reimplementation():
    """Pre-norm SASRec on one row of singletons, written with dense tensors from the paper's formulas."""
    model, batch = exact("sasrec", {"dropout": 0.0, "heads": 2}), make_batch([[1] * 6], NUM_ITEMS)
    p = dict(model.named_parameters())

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = p["table.weight"][batch.items] + p["embedding.positions.weight"][:6] + p["embedding.events.weight"][batch.events["event"]]
    future = torch.ones(6, 6).triu(1).bool()
    for block in ("blocks.0", "blocks.1"):
        q, k, v = linear(norm(x, f"{block}.norm_attention"), f"{block}.qkv").chunk(3, dim=1)
        mixed = []
        for head in (slice(0, 32), slice(32, 64)):
            scores = (q[:, head] @ k[:, head].T / 32**0.5).masked_fill(future, -1e30)
            mixed.append(scores.softmax(1) @ v[:, head])
        x = x + linear(torch.cat(mixed, dim=1), f"{block}.out")
        x = x + linear(linear(norm(x, f"{block}.norm_feed_forward"), f"{block}.widen").clamp(min=0), f"{block}.narrow")
    torch.testing.assert_close(model(batch).hidden, norm(x, "norm"), rtol=1e-11, atol=1e-11)


def test_registry_names_are_the_configs_names():
    assert all(model_config_class(name)().name == name for name in MODELS)
