"""What is evaluated, against an oracle that walks each user's events with lists."""

from __future__ import annotations

import numpy as np
import pytest
from fake_data import NUM_ITEMS, FakeData, Row, baskets_of, codes_of, configs, leave_one_out, time_split
from hypothesis import given, settings
from hypothesis import strategies as st

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.eval_cases import PROTOCOLS, find_views, known_events

PARTS = st.sampled_from(["validation", "test"])


def plain_views(data: FakeData, config: DataConfig, part: str) -> tuple[list[tuple], list[tuple]]:
    """(user, places of the history, {protocol: relevant items}) of each view in user order; then those without a history."""
    views: list[tuple] = []
    newcomers: list[tuple] = []
    for user, row in enumerate(data.content):
        begin, end = (row.train_end, row.valid_end) if part == "validation" else (row.valid_end, len(row.events))
        targets = [place for place in range(begin, end) if row.events[place][2] in codes_of(config)]
        if not targets:
            continue
        first = targets[0]
        if config.basket == "time":
            before_cut = [place for place in range(len(row.events)) if row.events[place][1] < row.events[begin][1]]
            before_basket = [place for place in range(len(row.events)) if row.events[place][1] < row.events[first][1]]
            basket = [place for place in targets if row.events[place][1] == row.events[first][1]]
        else:
            before_cut, before_basket, basket = list(range(begin)), list(range(first)), [first]
        relevant = {"period": targets, "next_basket": basket}
        asked = {"next_basket": before_basket, "period": before_cut}
        histories = [["next_basket", "period"]] if before_cut == before_basket else [["next_basket"], ["period"]]
        for protocols in histories:
            known = [place for place in asked[protocols[0]] if row.events[place][0] < NUM_ITEMS]
            items = {name: sorted({row.events[place][0] for place in relevant[name]}) for name in protocols}
            (views if known else newcomers).append((user, known, items))
    return views, newcomers


def moment_of_the_cut(data: FakeData, part: str) -> int:
    if data.train_end is not None:
        return data.train_end if part == "validation" else data.valid_end
    ends = [row.train_end if part == "validation" else row.valid_end for row in data.content]
    return max((row.events[place][1] for row, end in zip(data.content, ends, strict=True) for place in range(end)), default=0) + 1


def seen(views) -> list[tuple]:
    """All views as the oracle writes them, through batches of three."""
    result = []
    for first in range(0, len(views), 3):
        batch = views.batch(first, first + 3)
        for row in range(len(batch.views)):
            history = batch.history_row == row
            items = {
                name: batch.relevant[name][0][batch.relevant[name][1] == row].tolist()
                for bit, name in enumerate(PROTOCOLS)
                if views.protocols[first + row] >> bit & 1
            }
            for name in set(PROTOCOLS) - items.keys():
                assert not (batch.relevant[name][1] == row).any()
            events = list(zip(batch.history["item"][history].tolist(), batch.history["time"][history].tolist(), strict=True))
            result.append((int(batch.users[row]), events, items))
        assert batch.views.tolist() == list(range(first, first + len(batch.views)))
    return result


@settings(deadline=None, max_examples=250)
@given(time_split(max_events=30) | leave_one_out(), configs(), PARTS)
def test_views_are_what_a_walk_over_lists_finds(data, config, part):
    events = [[event[:2] for event in row.events] for row in data.content]
    for views, expected in zip(find_views(data, config, part), plain_views(data, config, part), strict=True):
        assert seen(views) == [(user, [events[user][place] for place in history], items) for user, history, items in expected]
        assert views.now == moment_of_the_cut(data, part)
        assert views.rows.tolist() == [user for user, _, _ in expected]


@settings(deadline=None, max_examples=150)
@given(time_split(max_events=30) | leave_one_out(), configs(), PARTS)
def test_the_model_is_asked_after_the_last_baskets_that_fit(data, config, part):
    views, _ = find_views(data, config, part)
    if not len(views):
        return
    whole = views.batch(0, len(views))
    batch = whole.sequences()
    expected, _ = plain_views(data, config, part)
    assert len(batch.queries) == len(views)
    assert len(batch.targets) == 0
    assert np.array_equal(batch.query_times.numpy(), whole.asked_at)
    for row, (user, known, _) in enumerate(expected):
        events = [data.content[user].events[place] for place in known]
        newest = max(time for _, time, _ in events)
        assert whole.asked_at[row] == (newest if data.train_end is None else max(newest, views.now))
        baskets = baskets_of(events, config.basket)
        fitting: list[int] = []
        for basket in reversed(baskets):
            if len(basket) + len(fitting) > config.max_length:
                break
            fitting = basket + fitting
        begin, end = int(batch.offsets[row]), int(batch.offsets[row + 1])
        assert int(batch.queries[row]) == end - 1
        places = batch.events["place"][begin:end].tolist()
        if fitting:
            assert places == [known[place] for place in fitting]
        else:  # a last basket longer than a window is thinned evenly
            last = [known[place] for place in baskets[-1]]
            assert len(places) == config.max_length
            assert set(places) <= set(last)
            assert places[-1] == last[-1]
        mine = whole.history_row == row
        assert whole.history_is_target[mine].tolist() == [event[2] in codes_of(config) for event in events]


@settings(deadline=None, max_examples=150)
@given(time_split(max_events=30), configs(), PARTS)
def test_no_view_holds_anything_from_the_time_of_its_targets_on(data, config, part):
    views, _ = find_views(data, config, part)
    for user, history, items in seen(views):
        row = data.content[user]
        begin, end = (row.train_end, row.valid_end) if part == "validation" else (row.valid_end, len(row.events))
        times = [event[1] for event in row.events[begin:end] if event[2] in codes_of(config)]
        newest = max(time for _, time in history)
        if config.basket == "time":
            assert newest < min(times)
        if "period" in items:
            assert newest < views.now
    if len(views):
        batch = views.batch(0, len(views))
        for view, (user, history, _) in enumerate(seen(views)):
            row = data.content[user]
            coming = row.events[row.train_end if part == "validation" else row.valid_end :]
            coming = [time for _, time, code in coming if code in codes_of(config)]
            assert max(time for _, time in history) <= batch.asked_at[view] <= min(coming)


def test_a_click_between_the_cut_and_the_purchase_makes_two_views():
    """views of a shop: view, view | view, buy, buy: the next basket may look at the third click, the period may not."""
    data = FakeData([Row([(0, 1, 0), (1, 2, 0), (2, 5, 0), (3, 6, 2), (7, 6, 2), (4, 7, 2)], 2, 2)], train_end=4, valid_end=4)
    views, _ = find_views(data, DataConfig(path="fake", target_events=["buy"]), "test")
    assert seen(views) == [
        (0, [(0, 1), (1, 2), (2, 5)], {"next_basket": [3, 7]}),
        (0, [(0, 1), (1, 2)], {"period": [3, 4, 7]}),
    ]
    views, _ = find_views(data, DataConfig(path="fake"), "test")
    assert seen(views) == [(0, [(0, 1), (1, 2)], {"next_basket": [2], "period": [2, 3, 4, 7]})]


def test_customers_with_nothing_or_only_cold_items_before_are_newcomers():
    data = FakeData(
        [Row([(0, 9, 0)], 0, 0), Row([(6, 5, 0), (1, 9, 0)], 0, 1), Row([(1, 1, 0), (1, 9, 0)], 1, 1), Row([(1, 1, 0)], 1, 1)],
        train_end=4,
        valid_end=8,
    )
    customers, newcomers = find_views(data, DataConfig(path="fake"), "test")
    assert customers.rows.tolist() == [2]
    assert newcomers.rows.tolist() == [0, 1]


def test_an_empty_part_has_no_views():
    data = FakeData([Row([(0, 1, 0)], 1, 1)], train_end=4, valid_end=8)
    assert [len(views) for views in find_views(data, DataConfig(path="fake"), "validation")] == [0, 0]


@settings(deadline=None, max_examples=80)
@given(time_split(max_events=30) | leave_one_out(), configs(), PARTS)
def test_known_events_are_all_warm_ones_before_the_cut(data, config, part):
    pieces = list(known_events(find_views(data, config, part)[0]))
    found = [tuple(map(int, event)) for piece in pieces for event in zip(*piece, strict=True)]
    expected, baskets = [], {}
    for user, row in enumerate(data.content):
        for item, time, _ in row.events[: row.train_end if part == "validation" else row.valid_end]:
            if item < NUM_ITEMS:
                number = baskets.setdefault((user, time), len(baskets))
                expected.append((user, item, time, number))
    assert found == expected


@pytest.mark.parametrize("basket", ["time", "none"])
def test_leave_one_out_through_a_basket(basket):
    data = FakeData([Row([(0, 1, 0), (1, 2, 0), (2, 2, 0), (3, 2, 0)], 2, 3)])
    found = seen(find_views(data, DataConfig(path="fake", basket=basket), "test")[0])
    history = [(0, 1)] if basket == "time" else [(0, 1), (1, 2), (2, 2)]
    assert found == [(0, history, {"next_basket": [3], "period": [3]})]


def test_the_newest_event_is_older_than_the_question_in_a_time_split():
    data = FakeData([Row([(0, 1, 0), (1, 9, 0)], 1, 1)], train_end=4, valid_end=8)
    batch = find_views(data, DataConfig(path="fake"), "test")[0].batch(0, 1).sequences()
    assert int(batch.times.max()) < int(batch.query_times[0]) == 8
    assert np.array_equal(batch.baskets.numpy(), [0])
