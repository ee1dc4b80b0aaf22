"""What a ranking model looked at: a planted signal is found, noise or not; the check of the weights; words, page and heat map."""

from __future__ import annotations

import doctest
import html
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_examples import add_examples
from torch import nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.errors import ConfigError
from attnrec_dist.explanation import attribution as explain_module
from attnrec_dist.explanation import heat_map as explanation_plots
from attnrec_dist.explanation.attribution import Words, batches, explain, moved_by_events, moved_by_fields
from attnrec_dist.explanation.faithfulness import of_events, of_fields
from attnrec_dist.explanation.heat_map import heat_map
from attnrec_dist.explanation.html import page
from attnrec_dist.explanation.report import Picture, cases, chosen_to_show, mean_weights, segments, told, weights_by_event
from attnrec_dist.explanation.run import of_customers, of_sample, sample
from attnrec_dist.losses.binary import Binary, BinaryConfig
from attnrec_dist.models.feature_attention import FeatureAttention, FeatureAttentionConfig
from attnrec_dist.models.target_attention import TargetAttentionConfig, TargetAttentionModel

CPU = torch.device("cpu")
LENGTH = 12
NOISE = 10


class Trained:
    """What explaining asks of a run."""

    def __init__(self, data, model):
        self.data, self.model, self.device = data, model, CPU
        self.config = type("Config", (), {"max_length": LENGTH, "path": str(data.path)})


def fitted(data, config, model_class=FeatureAttention, steps=150, seed=0):
    """A model trained for a few hundred steps of full batches."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    manifest = data.manifest
    spec = DataSpec(manifest.num_items, LENGTH, tuple(manifest.event_types), data, manifest.examples)
    model, loss = model_class(config, spec), Binary(BinaryConfig(), spec)
    examples = ExampleSet.open(data, "train")
    parts = list(batches(examples, np.random.default_rng(0).permutation(len(examples)), LENGTH))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        total = loss(model(parts[step % len(parts)]), parts[step % len(parts)])
        (total / parts[step % len(parts)].num_targets).backward()
        optimizer.step()
    return Trained(data, model.eval())


SMALL = FeatureAttentionConfig(width=8, heads=2, head_width=16, dropout=0.1)


@pytest.fixture(scope="module")
def data(shop, tmp_path_factory):
    """The tiny shop's data with ten fields of noise beside the one that decides."""
    folder = tmp_path_factory.mktemp("noisy") / "data"
    shutil.copytree(shop.data, folder)
    return add_examples(folder, per_user=16, noise=NOISE)


@pytest.fixture(scope="module")
def noisy(data):
    return fitted(data, SMALL)


@pytest.fixture(scope="module")
def looked(noisy):
    examples = ExampleSet.open(noisy.data, "test")
    ids = sample(len(examples), 200, seed=0)
    return of_sample(noisy.model, noisy, examples, ids, seed=0)


@pytest.mark.parametrize("module", [explain_module], ids=lambda module: module.__name__)
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(module).failed == 0


# A planted signal


def test_the_one_field_that_decides_gets_the_weight_though_ten_mean_nothing(looked):
    picture, explained = looked
    names = list(explained.field_names)
    assert len(names) >= NOISE + 4
    overall = dict(zip(names, picture.segments["all"][1]))
    assert max(overall, key=overall.get) == "signal"
    noise = [weight for name, weight in overall.items() if name.startswith("noise")]
    assert overall["signal"] > 2 * max(noise)
    assert names[int(picture.moved.argmax())] == "signal"
    fields = next(each for each in picture.faithfulness if each.of == "field")
    assert fields.moved.is_clear
    assert fields.moved.difference > 0
    assert "the weights point at what the prediction rests on" in fields.sentence


def test_it_is_found_without_noise_too(shop, tmp_path):
    shutil.copytree(shop.data, tmp_path / "data")
    trained = fitted(add_examples(tmp_path / "data", per_user=20), SMALL, steps=100)
    examples = ExampleSet.open(trained.data, "test")
    picture, explained = of_sample(trained.model, trained, examples, sample(len(examples), 200, 0), 0)
    assert explained.field_names[int(picture.segments["all"][1].argmax())] == "signal"


def test_uniform_attention_has_nothing_to_explain(data):
    trained = fitted(data, SMALL.model_copy(update={"attention": "uniform", "history": "none"}), steps=2)
    examples = ExampleSet.open(data, "test")
    picture, _ = of_sample(trained.model, trained, examples, sample(len(examples), 60, 0), 0)
    assert picture.faithfulness == []
    assert picture.notes == ["All fields have the same weight in every example, so there is nothing to explain by weights."]


# The check of the weights


def test_a_swapped_field_is_the_same_as_swapping_the_input(noisy):
    """Only declared fields can be swapped from outside; the movement by vectors must be that by values."""
    examples = ExampleSet.open(noisy.data, "test")
    [batch] = batches(examples, np.arange(40), LENGTH)
    moved = moved_by_fields(noisy.model, [batch], CPU, draws=1, seed=4)
    shift = int(np.random.default_rng([4, 2]).integers(1, 40, 1)[0])
    place = noisy.model.field_names.index("signal")
    swapped = replace(batch, fields=batch.fields | {"signal": batch.fields["signal"].roll(-shift)})
    with torch.inference_mode():
        expected = (noisy.model(swapped).logits["label"].double() - noisy.model(batch).logits["label"].double()).abs()
    np.testing.assert_allclose(moved[:, place], expected.numpy(), atol=1e-5)
    assert isinstance(noisy.model.fields, nn.Module)
    assert hasattr(noisy.model.fields, "names"), "the model has its own fields back"


@pytest.mark.parametrize("model", ["feature_attention", "din", "transformer"])
def test_an_event_left_out_is_the_same_as_an_example_without_it(data, noisy, model):
    """By brute force: each example alone, its history written anew without the event."""
    if model == "feature_attention":
        trained = noisy
    else:
        trained = fitted(data, TargetAttentionConfig(kind=model, width=8, layers=[8]), TargetAttentionModel, steps=5)
    examples = ExampleSet.open(data, "test")
    ids = sample(len(examples), 50, 1)
    parts = [batch for some in np.array_split(ids, 3) for batch in batches(examples, some, LENGTH)]
    explained = explain(trained.model, parts, CPU)
    top, others = moved_by_events(trained.model, parts, explained, CPU, draws=20, seed=0)
    for place, id_ in enumerate(ids):
        [alone] = batches(examples, np.array([id_]), LENGTH)
        size = len(alone.items)
        assert np.isnan(top[place]) == np.isnan(others[place]) == (size < 2)
        if size < 2:
            continue
        moves = []
        for event in range(size):
            keep = [token for token in range(size) if token != event]
            events = {name: values[keep] for name, values in alone.events.items()}
            without = replace(
                alone,
                items=alone.items[keep],
                history_times=alone.history_times[keep],
                events=events,
                offsets=torch.tensor([0, size - 1], dtype=torch.int32),
                max_length=size - 1,
            )
            with torch.inference_mode():
                moves.append(abs(float(trained.model(without).logits["label"]) - explained.logits[place]))
        weights = np.abs(explained.history[explained.span(place)])
        best = int(weights.argmax())
        assert top[place] == pytest.approx(moves[best], abs=1e-5)
        rest = moves[:best] + moves[best + 1 :]
        assert min(rest) - 1e-5 <= others[place] <= max(rest) + 1e-5


def test_the_check_tells_good_weights_from_shuffled_and_from_misleading_ones():
    random = np.random.default_rng(0)
    moved = random.exponential(1, (900, 6)) * (1 + 3 * (np.arange(6) == random.integers(0, 6, (900, 1))))
    users = random.integers(0, 150, 900)
    good = of_fields(moved / moved.sum(1, keepdims=True), moved, users)
    assert good.agreement == pytest.approx(1)
    assert good.moved.mean_a == pytest.approx(moved.max(1).mean())
    assert "point at what the prediction rests on" in good.sentence
    guessed = of_fields(random.dirichlet(np.ones(6), 900), moved, users)
    assert abs(guessed.agreement) < 0.06
    assert guessed.moved.p > 0.001
    inverse = 1 / moved
    misleading = of_fields(inverse / inverse.sum(1, keepdims=True), moved, users)
    assert "the weights mislead" in misleading.sentence
    hardly = of_events(1.1 + 0.01 * moved[:, 0], 1 + 0.01 * moved[:, 1], users)
    assert "so weakly that they explain little" in hardly.sentence
    nothing = of_events(np.full(4, np.nan), np.full(4, np.nan), np.arange(4))
    assert "nothing is known" in nothing.sentence


# Words, segments, text, page, picture


def test_weights_add_up_and_words_stand_for_numbers(noisy, looked):
    picture, explained = looked
    np.testing.assert_allclose(explained.fields.sum(1), 1, atol=1e-5)
    words = Words(noisy.data)
    shown = cases(explained, words)
    assert {each.said for case in shown for each in case.fields if each.name == "colour"} <= {
        "red",
        "green",
        "blue",
        "(missing)",
        "(unseen in training)",
    }
    assert any(each.said == "(missing)" for case in shown for each in case.fields if each.name == "gap")
    assert all(case.item.startswith("Thing, no. ") for case in shown)
    assert all(each.name.startswith("Thing, no. ") for case in shown for each in case.events)
    assert {each.said.split(",")[0] for case in shown for each in case.events} == {"view", "buy"}
    ordered = [abs(each.weight) for each in shown[0].events]
    assert ordered == sorted(ordered, reverse=True)
    assert sum(share for _, share in weights_by_event(explained, words).values()) == pytest.approx(1)
    text = told(picture_with(picture, shown[:3]))
    assert "mean weight of" in text
    assert shown[0].title in text
    assert re.search(r"fields: .*\(.*\) 0\.\d\d", text)


def picture_with(picture, shown):
    return Picture(**{**picture.__dict__, "cases": shown, "title": "What <b>a & b</b> looked at", "subtitle": "a run"})


def test_segments_part_the_examples(noisy, looked):
    _, explained = looked
    parts = segments(explained, noisy.data.manifest.num_items)
    assert parts["all"].all()
    assert (parts["label: yes"] ^ parts["label: no"]).all()
    either = parts["item had before"].astype(int) + parts["item new to the customer"] + parts["item unknown to the model"]
    assert (either == 1).all()
    means = mean_weights(explained, noisy.data.manifest.num_items)
    yes, no = means["label: yes"], means["label: no"]
    np.testing.assert_allclose((yes[0] * yes[1] + no[0] * no[1]) / (yes[0] + no[0]), means["all"][1])
    for place in np.flatnonzero(parts["item had before"])[:5]:
        assert explained.candidates[place] in explained.items[explained.span(place)]


def test_the_page_stands_alone_and_escapes_every_text(noisy, looked):
    picture, explained = looked
    shown = [replace(case, item='<script>alert("x")</script> & "co"') for case in cases(explained, Words(noisy.data))[:4]]
    text = page(picture_with(picture, shown))
    assert not re.search(r"<script|https?://|src=|<link|javascript:|url\(", text)
    assert html.escape(shown[0].item) in text
    assert "What &lt;b&gt;a &amp; b&lt;/b&gt; looked at" in text
    for each in picture.faithfulness:
        assert html.escape(each.sentence) in text
    for tag in ("table", "section", "div", "p", "tr", "td", "h2"):
        assert len(re.findall(f"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag


def test_a_heat_map_comes_out(noisy, looked, tmp_path, monkeypatch):
    picture, explained = looked
    labels = []
    draw = explanation_plots._draw

    def recorded(figure, axes, title, rows, weights):
        labels.extend(rows)
        return draw(figure, axes, title, rows, weights)

    monkeypatch.setattr(explanation_plots, "_draw", recorded)
    shown = [replace(case, item="a $5 hat, $6 with feather") for case in cases(explained, Words(noisy.data))[:5]]
    heat_map(picture_with(picture, shown), tmp_path / "w.png")
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    assert any("a $5 hat" in label for label in labels)


# Which examples


def test_samples_are_keyed_and_customers_found(data):
    examples = ExampleSet.open(data, "test")
    assert sample(100, 30, 1).tolist() == sample(100, 30, 1).tolist() != sample(100, 30, 2).tolist()
    assert sorted(sample(20, 50, 3)) == list(range(20))
    user = int(examples.column("user")[-1])
    name = data.users()["id"][user].as_py()
    found = examples.take(of_customers(examples, [name]))
    assert set(found.users) == {user}
    assert len(found) == 5
    with pytest.raises(ConfigError, match="nobody-7: not among the customers"):
        of_customers(examples, [name, "nobody-7"])
    absent = set(range(data.num_rows)) - set(examples.column("user").tolist())
    with pytest.raises(ConfigError, match="no example in the test part; try another --split"):
        of_customers(examples, [data.users()["id"][absent.pop()].as_py()])


def test_half_of_what_is_shown_is_positive(looked):
    _, explained = looked
    shown = explained.labels[chosen_to_show(explained, 8)]
    assert (shown == 1).sum() == 4
    assert len(chosen_to_show(explained, 10_000)) == len(explained)
