"""Packed training batches against lists: what each query sees, what it predicts, what weighs how much."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from fake_data import EVENT_TYPES, FakeData, Row, baskets_of, codes_of, configs, leave_one_out, time_split
from hypothesis import assume, given, settings

from attnrec_dist.batch import BEGIN, PADDING, SequenceBatch
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.loader import Share, Steps
from attnrec_dist.data.order import Order
from attnrec_dist.data.pack import ranges
from attnrec_dist.data.samples import WindowSamples
from attnrec_dist.data.windows import SampleIndex, target_codes, windows_of


def index_of(data: FakeData, config: DataConfig) -> SampleIndex:
    rows, windows = windows_of(data.rows(np.arange(data.num_rows)), config, target_codes(config, EVENT_TYPES))
    counts = np.bincount(rows, minlength=data.num_rows)
    return SampleIndex(np.concatenate([[0], np.cumsum(counts)]), windows, config.max_length)


def steps_of(data: FakeData, config: DataConfig, global_batch: int = 4, share: Share | None = None) -> Steps:
    index = index_of(data, config)
    assume(len(index))
    order = Order("f", 0, len(index), global_batch)
    return Steps(WindowSamples(data, index, config), config, order, share or Share(0, 1, 10))


def check_shape(batch: SequenceBatch) -> None:
    rows, tokens, queries, targets = len(batch.sample_ids), batch.num_tokens, len(batch.queries), len(batch.targets)
    assert len(batch.users) == rows
    assert batch.offsets.dtype == torch.int32
    assert batch.offsets[0] == 0
    assert batch.offsets[-1] == tokens == len(batch.times) == len(batch.baskets)
    assert (batch.offsets.diff() > 0).all()
    assert int(batch.offsets.diff().max()) == batch.max_length
    assert len(batch.query_times) == queries
    assert len(batch.target_query) == len(batch.target_weight) == targets
    assert batch.target_query.unique().tolist() == list(range(queries))
    assert (batch.target_query.diff() >= 0).all()
    assert batch.target_weight.dtype == torch.float32
    for name in ("sample_ids", "users", "items", "times", "baskets", "queries", "query_times", "targets", "target_query"):
        assert getattr(batch, name).dtype == torch.int64, name
    assert all(len(column) == tokens for column in batch.events.values())


def check_row(batch: SequenceBatch, place: int, data: FakeData, config: DataConfig) -> list[tuple[int, int]]:
    """Checks one row of a batch and returns the (user, basket) that its queries predict."""
    begin, end = int(batch.offsets[place]), int(batch.offsets[place + 1])
    user = int(batch.users[place])
    events = data.content[user].events[: data.content[user].train_end]
    baskets = baskets_of(events, config.basket)
    basket_of = {token: number for number, basket in enumerate(baskets) for token in basket}
    where = [int(token) for token in batch.events["place"][begin:end]]
    if batch.items[begin] == BEGIN:
        assert config.empty_history
        assert end == begin + 1
        answers = [events[place] for place in baskets[0] if events[place][2] in codes_of(config)]
        query = int(np.flatnonzero(batch.queries == begin)[0])
        assert sorted(batch.targets[batch.target_query == query].tolist()) == sorted(event[0] for event in answers)
        assert int(batch.query_times[query]) == events[0][1] > int(batch.times[begin])
        assert (int(batch.baskets[begin]), int(batch.events["event"][begin])) == (0, 0)
        return [(user, 0)]

    assert end - begin <= config.max_length
    assert where == sorted(set(where))
    shown = sorted({basket_of[token] for token in where})
    assert shown == list(range(shown[0], shown[-1] + 1))
    whole = [token for number in shown for token in baskets[number]]
    if len(shown) == 1 and len(whole) > config.max_length:
        assert len(where) == config.max_length  # thinned, evenly
        gaps = np.diff([whole[0] - 1, *where])
        assert gaps.max() - gaps.min() <= 1
    else:
        assert where == whole
    assert batch.items[begin:end].tolist() == [events[token][0] for token in where]
    assert batch.times[begin:end].tolist() == [events[token][1] for token in where]
    assert batch.events["event"][begin:end].tolist() == [events[token][2] for token in where]
    assert batch.baskets[begin:end].tolist() == [basket_of[token] - shown[0] for token in where]

    predicted = []
    for query in np.flatnonzero((batch.queries >= begin) & (batch.queries < end)):
        token = where[int(batch.queries[query]) - begin]
        number = basket_of[token]
        assert token == baskets[number][-1], "the query is its basket's last token"
        answers = [events[place] for place in baskets[number + 1] if events[place][2] in codes_of(config)]
        mine = batch.target_query == int(query)
        assert sorted(batch.targets[mine].tolist()) == sorted(event[0] for event in answers)
        assert torch.allclose(batch.target_weight[mine], torch.tensor(1 / len(answers)))
        assert int(batch.query_times[query]) == events[baskets[number + 1][0]][1]
        if config.basket == "time":
            assert max(batch.times[begin : int(batch.queries[query]) + 1].tolist()) < int(batch.query_times[query])
        predicted.append((user, number + 1))
    assert predicted
    return predicted


@settings(deadline=None, max_examples=200)
@given(time_split(max_events=40) | leave_one_out(), configs())
def test_every_target_is_trained_once_an_epoch_and_no_query_sees_its_own(data, config):
    steps = steps_of(data, config)
    trained: collections.Counter[tuple[int, int]] = collections.Counter()
    weight = 0.0
    for step in range(steps.order.steps_per_epoch):
        for batch in steps[step].micro_batches:
            check_shape(batch)
            real = [place for place in range(len(batch.sample_ids)) if batch.sample_ids[place] >= 0]
            for place in real:
                trained.update(check_row(batch, place, data, config))
            weight += float(batch.target_weight.sum())

    expected = {
        (user, number)
        for user, row in enumerate(data.content)
        for number, basket in enumerate(baskets_of(row.events[: row.train_end], config.basket))
        if (number or config.empty_history) and any(row.events[token][2] in codes_of(config) for token in basket)
    }
    assert set(trained.values()) == {1}
    if config.targets == "last":
        windows = collections.Counter(steps.samples.index.rows_of(np.arange(len(steps.samples.index))).tolist())
        assert collections.Counter(user for user, _ in trained) == windows, "one of each window"
        latest = {user: max(number for owner, number in expected if owner == user) for user, _ in expected}
        assert set(latest.items()) <= set(trained) <= expected
    elif config.windows == "all":
        assert set(trained) == expected
    else:  # the last target of each user at least, and always a run of the last ones
        for user in {user for user, _ in expected}:
            mine = sorted(number for owner, number in trained if owner == user)
            assert mine == sorted(number for owner, number in expected if owner == user)[-len(mine) :]
    assert abs(weight - len(trained)) < 1e-3


@settings(deadline=None, max_examples=60)
@given(time_split(), configs())
def test_weights_and_counts_of_a_step_are_those_of_its_batches(data, config):
    for world in (1, 2):
        shares = [steps_of(data, config, 4, Share(rank, world, 8)) for rank in range(world)]
        for step in range(shares[0].order.steps_per_epoch):
            parts = [steps[step] for steps in shares]
            batches = [micro for part in parts for micro in part.micro_batches]
            assert len({part.target_weight for part in parts}) == 1
            assert abs(sum(float(micro.target_weight.sum()) for micro in batches) - parts[0].target_weight) < 1e-4
            assert sum(part.targets for part in parts) == sum(int((micro.target_weight > 0).sum()) for micro in batches)
            assert sum(part.tokens for part in parts) == sum(micro.num_tokens for micro in batches)
            assert sum(len(micro.sample_ids) for micro in batches) == 4


@settings(deadline=None, max_examples=60)
@given(time_split(), configs())
def test_singletons_says_whether_every_basket_holds_one_token(data, config):
    steps = steps_of(data, config)
    batch = steps.micro_batch(np.arange(len(steps.samples.index)))
    sizes = collections.Counter(
        (row, int(batch.baskets[token]))
        for row in range(len(batch.sample_ids))
        for token in range(int(batch.offsets[row]), int(batch.offsets[row + 1]))
    )
    assert batch.singletons == (set(sizes.values()) == {1})


DATA = FakeData([Row([(0, 1, 0), (1, 2, 2), (2, 2, 2), (3, 3, 2)], 4, 4), Row([(4, 5, 0), (5, 6, 0)], 2, 2)])


def test_standins_are_rows_of_one_token_that_weigh_nothing():
    steps = steps_of(DATA, DataConfig(path="fake"))
    for ids in ([0, 1, PADDING, PADDING], [PADDING], [PADDING] * 3):
        batch = steps.micro_batch(np.array(ids))
        check_shape(batch)
        extra = sum(sample < 0 for sample in ids)
        assert batch.sample_ids.tolist() == ids
        assert batch.offsets.diff()[-extra:].tolist() == [1] * extra
        assert batch.target_weight[-extra:].tolist() == [0.0] * extra
        assert batch.users[-extra:].tolist() == [PADDING] * extra
        assert float(batch.target_weight.sum()) == pytest.approx(
            float(steps.samples.index.queries(np.array(ids)).sum()), abs=1e-6
        )


def test_the_order_inside_a_batch_is_the_order_asked_for():
    steps = steps_of(DATA, DataConfig(path="fake"))
    assert steps.micro_batch(np.array([1, 0])).users.tolist() == [1, 0]


def test_ranges_concatenates_runs():
    places, row = ranges(np.array([5, 0, 9]), np.array([2, 0, 3]))
    assert places.tolist() == [5, 6, 9, 10, 11]
    assert row.tolist() == [0, 0, 2, 2, 2]
