"""Time as the models see it, against the calendar and against loops."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_batch, row_sizes

from attnrec_dist.batch import BEGIN, DataSpec
from attnrec_dist.errors import ConfigError
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.models.layers.embedding import basket_before, month, weekday
from attnrec_dist.settings import build

moments = st.integers(-(2**31), 2**32)


@given(moments)
def test_weekday_is_the_calendars(time):
    assert weekday(torch.tensor([time])).item() == datetime.fromtimestamp(time, UTC).weekday()


@given(moments)
def test_month_is_the_calendars_but_for_two_days(time):
    """Twelfths of a mean year drift by up to two days against months of 28 to 31 days and leap years."""
    found = month(torch.tensor([time])).item()
    near = {datetime.fromtimestamp(time + days * 86_400, UTC).month - 1 for days in range(-2, 3)}
    assert found in near


@given(row_sizes(max_rows=4, max_baskets=5), st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_the_basket_before_is_of_the_same_row(sizes, seed):
    batch = make_batch(sizes, 9, seed)
    found = basket_before(batch).tolist()
    for start, stop in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        for token in range(start, stop):
            earlier = [place for place in range(start, stop) if batch.baskets[place] < batch.baskets[token]]
            assert found[token] == batch.times[max(earlier) if earlier else token]


def test_sasrec_reads_the_clock_where_asked_to():
    batch = make_batch([[1, 2, 1]], 9, 0)
    later = make_batch([[1, 2, 1]], 9, 0)
    later.times = later.times + 100 * 86_400 * torch.tensor([0, 0, 0, 1])  # the last basket
    for time in (True, False):
        torch.manual_seed(0)
        config = build(model_config_class("sasrec"), {"name": "sasrec", "width": 8, "dropout": 0.0, "time": time}, "model")
        model = build_model(config, DataSpec(9, 10)).eval()
        before, after = model(batch).hidden, model(later).hidden
        assert torch.equal(before[:3], after[:3])
        assert torch.equal(before[3], after[3]) is not time


@pytest.mark.parametrize("name", ["sasrec", "bsarec"])
def test_an_empty_history_has_a_vector_of_its_own(name):
    torch.manual_seed(0)
    config = build(model_config_class(name), {"name": name, "width": 8, "heads": 2, "dropout": 0.0}, "model")
    batch = make_batch([[1], [2, 1], [1]], 9, 0)
    batch.items[[0, -1]] = BEGIN
    model = build_model(config, DataSpec(9, 10, empty_history=True))
    hidden = model(batch).hidden
    torch.testing.assert_close(hidden[0], hidden[-1])
    batch.items[-1] = 3
    assert not torch.allclose(hidden[-1], model(batch).hidden[-1])
    hidden[0].square().sum().backward()
    assert model.embedding.begin.weight.grad.abs().sum() > 0
    assert model.table.weight.grad is None or not model.table.weight.grad.any(), "no item stands in for it"


def test_experts_that_read_the_history_refuse_an_empty_one():
    config = build(model_config_class("mixture"), {"name": "mixture", "experts": ["sequence"]}, "model")
    with pytest.raises(ConfigError, match=r"data\.empty_history: .* leave it out"):
        build_model(config, DataSpec(9, 10, empty_history=True))
