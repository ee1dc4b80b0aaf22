"""Faded popularity against a walk over the days, and the as-of rule."""

from __future__ import annotations

import numpy as np
import pytest
from fake_statistics import FakeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

from attnrec_dist.ops.trend import DAY, SMOOTHING, Trend

HALF_LIVES = (0.5, 3.0, 60.0)
ITEMS = 5
logs = st.dictionaries(st.tuples(st.integers(0, ITEMS - 1), st.integers(-3, 40)), st.integers(1, 1000), max_size=30)
seconds = st.integers(-10 * DAY, 60 * DAY)


def trend_of(events: dict[tuple[int, int], int], half_lives=HALF_LIVES, num_items=ITEMS) -> Trend:
    daily = FakeStatistics(num_items, events).daily()
    return Trend(daily.offsets, daily.days, daily.counts, half_lives)


def walk(events: dict[tuple[int, int], int], day: int, half_lives=HALF_LIVES, num_items=ITEMS) -> np.ndarray:
    """Shares [V, H] on a day: from the first day on, each day fades what there is and adds its own events."""
    first = min((when for _, when in events), default=day)
    running = np.zeros((num_items, len(half_lives)))
    for today in range(first, day):
        running *= 0.5 ** (1 / np.array(half_lives))
        for item in range(num_items):
            running[item] += events.get((item, today), 0)
    return (running + SMOOTHING) / (running + SMOOTHING).sum(0)


@settings(deadline=None, max_examples=100)
@given(logs, st.lists(seconds, min_size=1, max_size=6))
def test_shares_are_those_of_a_walk_over_the_days(events, times):
    trend = trend_of(events)
    for time in times:
        expected = walk(events, time // DAY)
        np.testing.assert_allclose(trend.all_items(time), np.log(expected), rtol=2e-7, atol=2e-6)
        np.testing.assert_allclose(np.exp(trend.all_items(time)).sum(0), 1, rtol=1e-5)
    items = np.arange(len(times)) % ITEMS
    each = np.stack([trend.all_items(time)[item] for time, item in zip(times, items, strict=True)])
    assert np.array_equal(trend.log_p(items, np.array(times)), each)


@settings(deadline=None, max_examples=100)
@given(logs, logs, seconds)
def test_events_of_the_day_and_later_change_nothing(events, others, time):
    day = time // DAY
    past = {key: count for key, count in events.items() if key[1] < day}
    future = {key: count for key, count in others.items() if key[1] >= day}
    assert np.array_equal(trend_of(past | future).all_items(time), trend_of(past).all_items(time))
    assert np.array_equal(trend_of(events).all_items(time), trend_of(past).all_items(time))


def test_yesterday_counts_whole_and_today_not_at_all():
    trend = trend_of({(0, 10): 4, (1, 11): 7}, (1.0,))
    on = {day: np.exp(trend.all_items(day * DAY + DAY - 1).astype(np.float64))[:, 0] for day in (10, 11, 12, 13)}
    assert on[10] == pytest.approx([1 / ITEMS] * ITEMS)
    assert on[11][0] == pytest.approx(4.01 / 4.05)
    assert on[12][:2] == pytest.approx([2.01 / 9.05, 7.01 / 9.05])
    assert on[13][:2] == pytest.approx([1.01 / 4.55, 3.51 / 4.55])


def test_twenty_years_with_a_short_half_life_keep_their_beginning():
    """Counts grown by 2^(day / half-life) instead of faded ones would overflow, or drown the early days."""
    draw = np.random.default_rng(0)
    events = {(int(item), int(day)): int(draw.integers(1, 50)) for item, day in draw.integers((0, 0), (ITEMS, 7300), (2000, 2))}
    trend = trend_of(events, (2.0,))
    for day in (3, 30, 300, 3000, 7300):
        recent = {key: count for key, count in events.items() if key[1] > day - 300}
        expected = np.log(walk(recent, day, (2.0,)))
        np.testing.assert_allclose(trend.all_items(day * DAY), expected, rtol=1e-6, atol=2e-6)


def test_a_catalogue_without_events_is_uniform():
    assert np.exp(trend_of({}).all_items(0)) == pytest.approx(1 / ITEMS)
