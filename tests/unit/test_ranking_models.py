"""The battery of the ranking models: what each registered one promises, and a few facts of single ones."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranking_batches import EXAMPLES, FIELDS, NUM_ITEMS, SPEC, TASKS, make_ranking_batch, ranking_batches, take_examples

from attnrec_dist.batch import MISSING, UNSEEN, DataSpec
from attnrec_dist.data import example_format
from attnrec_dist.errors import ConfigError
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.models import MODELS, build_model, model_config_class, model_task
from attnrec_dist.models.feature_attention import FieldScore
from attnrec_dist.models.layers.field_vectors import FieldVectors
from attnrec_dist.models.layers.fields import NumericFields
from attnrec_dist.models.layers.pooling import history_layout
from attnrec_dist.ops.segments import row_means, row_softmax, row_sums
from attnrec_dist.settings import build

# Settings worth running through the battery; each model's defaults are always in it.
VARIANTS = {
    "feature_attention": [
        {"combine": "hidden", "history": "mean", "blocks": 2, "head_width": 0},
        {"attention": "uniform", "history": "gru", "width": 12, "heads": 2},
        {"attention": "uniform", "combine": "hidden", "blocks": 1, "history": "lstm"},
        {"combine": "outputs", "history": "gru", "blocks": 1},
        {"candidate": False, "history": "none", "moment": False, "context": ["colour"]},
        {"context": ["moment", "history", "price"]},
    ],
    "target_attention": [{"kind": "transformer", "width": 8, "blocks": 2, "moment": False}],
}
RANKING = [name for name in MODELS if model_task(name) == "ranking"]
CASES = [(name, keys) for name in RANKING for keys in [{}, *VARIANTS.get(name, [])]]
every_model = pytest.mark.parametrize(
    ("name", "keys"), CASES, ids=[f"{name}-{'-'.join(map(str, keys.values())) or 'defaults'}" for name, keys in CASES]
)
few_examples = settings(deadline=None, max_examples=8)


def make_model(name, keys, spec=SPEC, seed=0):
    """A model whose parameters are all away from zero, so that each of them matters to what it computes."""
    torch.manual_seed(seed)
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), spec)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.mean()), std=0.3)
    return model


def exact(name, keys):
    return make_model(name, keys).double().eval()


def binary_loss(model, batch, **keys):
    loss = build_loss(build(loss_config_class("binary"), {"name": "binary", **keys}, "loss"), SPEC)
    return loss(model(batch), batch, None)


def logits_of(model, batch):
    return torch.stack(list(model(batch).logits.values()))


@every_model
def test_trains_on_any_batch(name, keys):
    for lengths in ([0], [0, 0], [3], [2, 0, 5, 1], [0, 4]):
        model = make_model(name, keys).train()
        batch = make_ranking_batch(lengths, seed=len(lengths))
        output = model(batch)
        assert list(output.logits) == TASKS
        assert all(each.shape == (len(lengths),) for each in output.logits.values())
        loss = binary_loss(model, batch)
        loss.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{key} takes no part"
            assert parameter.grad.isfinite().all(), key


@every_model
def test_every_parameter_matters(name, keys):
    """In a batch with every kind of row each parameter has a gradient somewhere; nothing is only carried along."""
    model = make_model(name, {**keys, "dropout": 0, "unseen": 0}).double().train()
    loss = binary_loss(model, make_ranking_batch([4, 0, 3, 7, 1] * 8, seed=5))
    loss.backward()
    assert [key for key, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


@every_model
@given(batch=ranking_batches(), data=st.data())
@few_examples
def test_an_example_is_the_same_alone_and_in_any_company(name, keys, batch, data):
    model = exact(name, keys)
    whole = model(batch, explain=True)
    order = data.draw(st.permutations(range(batch.num_rows)))
    parts = [model(take_examples(batch, [row]), explain=True) for row in order]
    for task in TASKS:
        got = torch.cat([part.logits[task] for part in parts])
        torch.testing.assert_close(got, whole.logits[task][list(order)], rtol=1e-10, atol=1e-10)
    for what, weights in whole.explanation.items():
        got = torch.cat([part.explanation[what] for part in parts])
        expected = weights[list(order)] if what == "fields" else torch.cat(_rows(weights, batch, order))
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def _rows(weights, batch, order):
    parts = weights.split(batch.offsets.diff().tolist())
    return [parts[row] for row in order]


@every_model
@given(batch=ranking_batches(), cut=st.integers(0, 5))
@few_examples
def test_losses_and_gradients_of_parts_add_up(name, keys, batch, cut):
    model = exact(name, keys)
    rows = list(range(batch.num_rows))
    parts = [take_examples(batch, part) for part in (rows[cut:], rows[:cut]) if part]
    whole, total = _loss_and_gradients(model, [batch]), _loss_and_gradients(model, parts)
    for a, b in zip(total, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def _loss_and_gradients(model, parts):
    model.zero_grad()
    loss = torch.stack([binary_loss(model, part) for part in parts]).sum()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@every_model
def test_stand_ins_and_silent_tasks_weigh_nothing(name, keys):
    model, batch = exact(name, keys), make_ranking_batch([2, 0, 3])
    alone = binary_loss(model, take_examples(batch, [0]))
    batch.sample_ids = torch.tensor([0, -1, -1])
    batch.label_weights = {task: torch.tensor([1.0, 0, 0]) * batch.label_weights[task] for task in TASKS}
    torch.testing.assert_close(binary_loss(model, batch), alone, rtol=1e-12, atol=1e-12)


@every_model
def test_weights_add_up_to_one_and_asking_for_them_changes_nothing(name, keys):
    model, batch = exact(name, keys), make_ranking_batch([3, 0, 5])
    output = model(batch, explain=True)
    assert torch.equal(logits_of(model, batch), torch.stack(list(output.logits.values())))
    assert model(batch).explanation == {}
    layout = history_layout(batch)
    if name == "feature_attention":
        alpha = output.explanation["fields"]
        assert alpha.shape == (3, len(model.field_names))
        torch.testing.assert_close(alpha.sum(1), torch.ones(3, dtype=torch.float64))
        assert (alpha > 0).all()
        if keys.get("attention") == "uniform":
            assert torch.equal(alpha, torch.full_like(alpha, 1 / alpha.shape[1]))
        else:
            assert alpha.std() > 0.01
    if "history" in output.explanation:
        sums = row_sums(output.explanation["history"].abs(), layout)
        torch.testing.assert_close(sums, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))


@every_model
@pytest.mark.parametrize("seed", range(3))
def test_hostile_numbers_stay_finite_and_bounded(name, keys, seed):
    model = make_model(name, keys).train()
    batch = make_ranking_batch([1, 2, 0, 3] * 4, seed, hostile=True)
    loss = binary_loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    limit = 100 * logits_of(model.eval(), make_ranking_batch([1, 2, 0, 3] * 4, seed)).abs().max()
    assert logits_of(model, batch).abs().max() < limit


@every_model
def test_all_that_training_never_showed_is_one_item(name, keys):
    model, batch = exact(name, keys), make_ranking_batch([2, 3])
    cold, colder = (dataclasses.replace(batch, candidates=torch.full((2,), item)) for item in (NUM_ITEMS, NUM_ITEMS + 1000))
    assert torch.equal(logits_of(model, cold), logits_of(model, colder))
    if keys.get("candidate", True):
        known = dataclasses.replace(batch, candidates=torch.full((2,), 3))
        assert not torch.allclose(logits_of(model, cold), logits_of(model, known))


@every_model
def test_float64_stays_float64_and_bf16_stays_close(name, keys):
    model, batch = exact(name, keys), make_ranking_batch([2, 0, 4])
    wide = logits_of(model, batch)
    assert wide.dtype == torch.float64
    model = model.float()
    torch.testing.assert_close(logits_of(model, batch), wide.float(), rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = binary_loss(model, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, binary_loss(model, batch), rtol=0.1, atol=0.1)
    loss.backward()


@every_model
def test_the_first_prediction_is_near_the_share_of_positives(name, keys):
    torch.manual_seed(0)
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), SPEC).eval()
    logits = logits_of(model, make_ranking_batch([3, 0, 2, 5] * 8))
    torch.testing.assert_close(logits.sigmoid().mean(1), torch.tensor([0.5, 0.2]), atol=0.12, rtol=0)


@every_model
def test_learns_what_one_field_decides(name, keys):
    torch.manual_seed(0)
    keys = {**keys, "dropout": 0.0, "context": []} if "context" in keys else {**keys, "dropout": 0.0}
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), SPEC)
    batch = make_ranking_batch([2, 0, 3, 1] * 128, seed=3)
    batch.labels["label"] = (batch.fields["colour"] > 3).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = binary_loss(model, batch, task_weights={"cart": 0.0}) / batch.num_targets
        loss.backward()
        optimizer.step()
    other = make_ranking_batch([2, 0, 3, 1] * 32, seed=4)
    right = (model.eval()(other).logits["label"] > 0) == (other.fields["colour"] > 3)
    assert right.float().mean() > 0.85


@every_model
def test_initial_values_follow_the_seed(name, keys):
    def initial(seed):
        torch.manual_seed(seed)
        return build_model(build(model_config_class(name), {"name": name, **keys}, "model"), SPEC).state_dict()

    one, same, other = initial(1), initial(1), initial(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert len({value.data_ptr() for value in one.values()}) == len(one), "a checkpoint holds every tensor once"


@every_model
def test_every_key_says_what_it_means(name, keys):
    fields = model_config_class(name).model_fields
    assert [key for key, field in fields.items() if key != "name" and not field.description] == []


@pytest.mark.parametrize("combine", ["inputs", "hidden", "outputs"])
def test_uniform_is_the_ablation_of_alpha_alone(combine):
    """Same parameters under the same names and shapes, but for what makes e."""
    keys = {"blocks": 1}
    full, ablated = (
        {
            key: value.shape
            for key, value in make_model("feature_attention", keys | {"attention": kind, "combine": combine}).named_parameters()
        }
        for kind in ("softmax", "uniform")
    )
    of_e = {key for key in full if key.startswith(("score.", "score." if combine == "hidden" else "transformer."))}
    assert full.keys() - ablated.keys() == of_e >= {"score.query_key.weight", "score.read.weight", "score.prior"}
    assert all(full[key] == shape for key, shape in ablated.items())


def test_outputs_are_the_founding_formula():
    """y = sum_k alpha_k M(x_k), recomputed field by field."""
    model, batch = exact("feature_attention", {"combine": "outputs"}), make_ranking_batch([3, 0, 5])
    output = model(batch, explain=True)
    x = model.fields(batch)[0].whole()
    for place, task in enumerate(TASKS):
        parts = [output.explanation["fields"][:, k] * model.heads[place](x[:, k]).squeeze(-1) for k in range(x.shape[1])]
        torch.testing.assert_close(output.logits[task], sum(parts) + model.bias[place])


@pytest.mark.parametrize("combine", ["inputs", "hidden"])
def test_inputs_and_hidden_are_m_of_the_weighted_sum(combine):
    """y = M(sum_k alpha_k v_k), v = x or h, recomputed example by example; M bends the sum, K times as large, first."""
    model, batch = exact("feature_attention", {"combine": combine, "blocks": 1}), make_ranking_batch([3, 0, 5])
    output = model(batch, explain=True)
    values = model.fields(batch)[0].whole()
    if combine == "hidden":
        values = model.transformer(values)
    for place, task in enumerate(TASKS):
        _, first, _, last = model.heads[place]
        for row, (alpha, vectors) in enumerate(zip(output.explanation["fields"], values)):
            pooled = sum(len(alpha) * weight * vector for weight, vector in zip(alpha, vectors))
            gelu = torch.nn.functional.gelu
            expected = last.weight[0] @ gelu(first.weight @ gelu(pooled) + first.bias) + model.bias[place]
            torch.testing.assert_close(output.logits[task][row], expected)


def test_e_is_what_is_asked_of_a_layer_of_multi_head_attention():
    """torch's own layer, one head after another: its values and its output are r and w multiplied out, with room for both."""
    width, heads, fields = 8, 2, 5
    torch.manual_seed(0)
    score = FieldScore(fields, width, heads).double()
    torch.nn.init.normal_(score.prior)
    x = torch.randn(3, fields, width, dtype=torch.float64)
    r, w = score.read.weight.detach().split([heads, 1])
    layer = torch.nn.MultiheadAttention(width, heads, bias=False, batch_first=True).double()
    value, out = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    for head in range(heads):
        value[head * width // heads] = r[head]  # the first value of a head is r . x_j
        out[:, head * width // heads] = w[0] / w.square().sum()  # goes out along w, so that w . out is r . x_j
    layer.in_proj_weight.data = torch.cat([score.query_key.weight.data, value])
    layer.out_proj.weight.data = out
    h = x + layer(x, x, x)[0]
    torch.testing.assert_close(score(FieldVectors(x)), score.prior + h @ w[0])


@given(batch=ranking_batches(), seed=st.integers(0, 9))
@few_examples
def test_factors_compute_what_the_vectors_do(batch, seed):
    torch.manual_seed(seed)
    x, _ = exact("feature_attention", {}).fields(batch)
    whole = FieldVectors(x.whole())
    size, width = whole.vectors.shape[1:]
    assert x.factors is not None
    weight, wide, bias = torch.randn(7, width).double(), torch.randn(6, size * width).double(), torch.randn(6).double()
    shares = torch.randn(batch.num_rows, size).double()
    torch.testing.assert_close(x.projected(weight), whole.projected(weight))
    torch.testing.assert_close(x.summed(shares), whole.summed(shares))
    torch.testing.assert_close(x.joined(wide, bias), whole.joined(wide, bias))


def test_alpha_begins_uniform():
    torch.manual_seed(0)
    model = build_model(build(model_config_class("feature_attention"), {"name": "feature_attention"}, "model"), SPEC)
    alpha = model(make_ranking_batch([3, 0, 5]), explain=True).explanation["fields"]
    torch.testing.assert_close(alpha, torch.full_like(alpha, 1 / alpha.shape[1]))


def test_context_fields_steer_alpha_and_have_no_share():
    model = exact("feature_attention", {"context": ["price", "moment"]})
    assert set(model.field_names) == {"candidate", "history", "colour", "visits", "constant", "size"}
    batch = make_ranking_batch([3, 1])
    moved = dataclasses.replace(batch, fields=batch.fields | {"price": batch.fields["price"].nan_to_num() + 1})
    before, after = (model(each, explain=True).explanation["fields"] for each in (batch, moved))
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"context": ["prize"]}, r"model\.context: there is no field 'prize'"),
        ({"width": 31}, r"model\.width 31 .* try --model\.width 32"),
        ({"attention": "uniform", "context": ["price"]}, r"model\.context steers alpha"),
        ({"combine": "hidden"}, r"type --model\.blocks 1"),
        ({"context": ["candidate", "moment", "history", *(each.name for each in FIELDS)]}, "nothing is left"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        make_model("feature_attention", keys)


def test_a_data_set_without_examples_is_refused():
    for name in RANKING:
        with pytest.raises(ConfigError, match="no labelled examples; add `label`"):
            make_model(name, {}, DataSpec(NUM_ITEMS, 12))


def test_a_feature_with_the_name_of_a_built_in_field_is_refused():
    fields = [FIELDS[0].model_copy(update={"name": "history"})]
    spec = dataclasses.replace(SPEC, examples=EXAMPLES.model_copy(update={"fields": fields}))
    with pytest.raises(ConfigError, match="called history"):
        make_model("feature_attention", {}, spec)


@given(values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20))
@settings(deadline=None)
def test_the_place_among_the_quantiles_rises_with_the_value(values):
    """A value's bin is how many boundaries are not above it; its place lies in that bin's share of -1 to 1."""
    part = NumericFields([field for field in FIELDS if field.kind == "numeric"], 4)
    numbers = torch.tensor(values).expand(3, -1)
    place = part._place(numbers)
    for row, field in enumerate(field for field in FIELDS if field.kind == "numeric"):
        bins = np.searchsorted(np.float32(field.quantiles), np.float32(values), side="right")
        scaled = (place[row].numpy() + 1) / 2 * (len(field.quantiles) + 1)
        assert ((bins - 1e-4 <= scaled) & (scaled <= bins + 1 + 1e-4)).all() or not field.quantiles
    order = numbers[0].argsort()
    assert (place[:, order].diff(dim=1) >= -1e-6).all()
    assert (place.abs() <= 1).all()


def test_row_operations_are_those_of_each_row():
    batch = make_ranking_batch([3, 0, 4, 1])
    layout, x = history_layout(batch), torch.randn(8, 2, dtype=torch.float64)
    parts = x.split([3, 0, 4, 1])
    torch.testing.assert_close(row_sums(x, layout), torch.stack([part.sum(0) for part in parts]))
    torch.testing.assert_close(row_softmax(x * 100, layout), torch.cat([(part * 100).softmax(0) for part in parts]))
    assert row_means(x, layout)[1].tolist() == [0, 0]
    torch.testing.assert_close(row_means(x, layout)[2], parts[2].mean(0))


def test_reserved_codes_are_those_on_disk():
    assert (UNSEEN, MISSING) == (example_format.UNSEEN, example_format.MISSING)


def test_the_loss_is_weighted_cross_entropy():
    """Against the formula written out, label by label."""
    model, batch = exact("target_attention", {}), make_ranking_batch([1, 2, 0])
    got = binary_loss(model, batch, positive_weight={"label": 3.0}, task_weights={"cart": 0.5})
    expected = 0.0
    for task, task_weight, positive in (("label", 1.0, 3.0), ("cart", 0.5, 1.0)):
        for p, y, says in zip(model(batch).logits[task].sigmoid(), batch.labels[task], batch.label_weights[task], strict=True):
            expected -= task_weight * says * (positive * y * math.log(p) + (1 - y) * math.log(1 - p))
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=torch.float64))
    with pytest.raises(ConfigError, match="no task 'cat'; its tasks: label, cart"):
        binary_loss(model, batch, task_weights={"cat": 1.0})
