"""The words beside an item of a list say what the log holds, and nothing else: worked out by hand for a log of a few rows."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from prepare_helpers import run, write_csv

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.inference import words
from attnrec_dist.inference.histories import read_histories, stored_histories
from attnrec_dist.inspection.report import report
from attnrec_dist.inspection.scan import inspect
from attnrec_dist.prepare.report import summary
from attnrec_dist.recommendation.reasons import reason
from attnrec_dist.recommendation.recommend import TREND, Recommendation, described

DAY, START = 86_400, 20_000 * 86_400 + 3_600
ROWS = [
    ("ann", "tea", 0, "view"),
    ("ann", "tea", 3, "view"),
    ("ann", "tea", 9, "buy"),
    ("ann", "cup", 9, "buy"),
    ("bob", "tea", 9, "buy"),
    ("bob", "cup", 9, "buy"),
    ("bob", "pot", 30, "view"),
    ("cid", "jar", 31, "view"),
    ("cid", "pot", 100, "view"),
    ("dan", "tea", 101, "view"),
]
ALL_TRAIN = {"split": {"train": 1, "validation": 0, "test": 0}}


def prepared(tmp_path, rows=ROWS, **sections) -> DataSet:
    named = [{"user": user, "item": item, "time": str(START + day * DAY), "event": kind} for user, item, day, kind in rows]
    return run([write_csv(tmp_path / "log.csv", named)], tmp_path / "data", **ALL_TRAIN | sections)


def told(data: DataSet, expert: str, user: str, item: str, is_timed: bool = True) -> str:
    (histories,) = stored_histories(data, [user])
    histories.is_timed = is_timed
    shares = {"copy": 0.1, "graph": 0.1, "trend": 0.1, "sequence": 0.1} | {expert: 0.7}
    return reason(shares, int(data.item_index([item])[0]), histories, data)


KINDS = {"columns": {"event": "event"}}


@pytest.mark.parametrize(
    ("sections", "expert", "user", "item", "words"),
    [
        (KINDS, "copy", "ann", "tea", "in the history 3 times (2 view, 1 buy), last 92 days ago"),
        (KINDS, "copy", "ann", "cup", "in the history once (buy), 92 days ago"),
        (KINDS, "copy", "dan", "tea", "in the history once (view), less than a day ago"),
        ({}, "copy", "ann", "tea", "in the history 3 times, last 92 days ago"),
        ({}, "copy", "cid", "pot", "in the history once, 1 day ago"),
        ({}, "trend", "ann", "pot", "1 event of all customers in the last 14 days"),
        ({}, "trend", "ann", "tea", "4 events of all customers in the whole log"),
        ({}, "trend", "ann", "jar", "1 event of all customers in the whole log"),
        (KINDS | {"statistics": {"events": ["buy"]}}, "trend", "ann", "tea", "2 buy events of all customers in the whole log"),
        (KINDS | {"statistics": {"events": ["buy"]}}, "trend", "ann", "pot", "as likely as any other item"),
        ({"statistics": {"graph": {"kind": "basket"}}}, "graph", "dan", "cup", "goes with tea"),
        ({"statistics": {"graph": {"kind": "next"}}}, "graph", "dan", "cup", "comes after tea"),
        ({"statistics": {"graph": {"kind": "none"}}}, "graph", "dan", "cup", "goes with the history"),
        ({}, "sequence", "dan", "cup", "expected after this history"),
    ],
)
def test_each_expert_says_what_the_log_holds(tmp_path, sections, expert, user, item, words):
    assert told(prepared(tmp_path, **sections), expert, user, item) == words


def test_the_days_of_the_trend_are_those_before_the_lists_own(tmp_path):
    """The list is made at the end of the log, day 101; of what happened on it the trend knows nothing."""
    rows = [("ann", "tea", day, "") for day in (40, 41, 86, 87, 100, 101)]
    assert told(prepared(tmp_path, rows), "trend", "ann", "tea") == "2 events of all customers in the last 14 days"
    (tmp_path / "b").mkdir()
    rows = [("ann", "tea", day, "") for day in (40, 41, 86)] + [("bob", "cup", 101, "")]
    assert told(prepared(tmp_path / "b", rows), "trend", "bob", "tea") == "2 events of all customers in the last 60 days"


def test_places_and_made_up_times_are_no_days(tmp_path):
    rows = [("ann", item, place, "") for place, item in enumerate(["tea", "cup", "tea", "pot"])]
    named = [{"user": user, "item": item, "time": str(place), "event": ""} for user, item, place, _ in rows]
    section = {"columns": {"timestamp": {"name": "time", "unit": "place"}}, "split": {"kind": "leave_one_out"}}
    data = run([write_csv(tmp_path / "log.csv", named)], tmp_path / "data", **section)
    assert told(data, "copy", "ann", "tea") == "in the history 2 times, last 1 event before the newest"
    assert told(data, "copy", "ann", "pot") == "in the history once, the newest event"
    assert told(data, "trend", "ann", "tea") == "as likely as any other item"
    (histories,) = stored_histories(data, ["ann"])
    best = [Recommendation(1, "tea", "  ", 0.5, TREND)]
    lines = described("ann", histories, data, best).splitlines()
    assert lines[1:] == [
        "customer ann",
        "  event 2  cup",
        "  event 3  tea",
        "  event 4  pot",
        "  1. tea (without history: the most frequent)",
    ]
    (tmp_path / "timed").mkdir()
    untimed = told(prepared(tmp_path / "timed"), "copy", "ann", "tea", is_timed=False)
    assert untimed == "in the history 3 times, last the newest event"


def numbered(tmp_path, unit: str, numbers: list[int], **sections) -> DataSet:
    """The log of one customer, whose events have numbers for times."""
    items = ["tea", "cup", "tea", "pot"]
    named = [{"user": "ann", "item": item, "time": str(number), "event": ""} for item, number in zip(items, numbers, strict=True)]
    return run(
        [write_csv(tmp_path / "log.csv", named)],
        tmp_path / "data",
        columns={"timestamp": {"name": "time", "unit": unit}},
        **sections,
    )


def listed(data: DataSet, histories=None) -> list[str]:
    (histories,) = [histories] if histories else stored_histories(data, ["ann"])
    return described("ann", histories, data, [Recommendation(1, "tea", "", 0.5, TREND)]).splitlines()[1:]


def test_orders_are_called_by_their_numbers_and_counted_as_orders(tmp_path):
    """They were events, one too many, and the items of one order were an event apart."""
    data = numbered(tmp_path, "order", [7, 7, 9, 9], split={"kind": "leave_last_basket"})
    assert listed(data)[:3] == ["customer ann", "  order 7  cup, tea", "  order 9  pot, tea"]
    assert told(data, "copy", "ann", "pot") == "in the history once, the newest order"
    assert told(data, "copy", "ann", "tea") == "in the history 2 times, last the newest order"
    assert told(data, "copy", "ann", "cup") == "in the history once, 1 order before the newest"
    assert told(data, "copy", "ann", "cup", is_timed=False).endswith("events before the newest")


@pytest.mark.parametrize(("first", "named"), [(0, ["event 2", "event 3", "event 4"]), (5, ["event 6", "event 7", "event 8"])])
def test_places_are_the_logs_own_unless_they_begin_at_zero(tmp_path, first, named):
    data = numbered(tmp_path, "place", [first, first + 1, first + 2, first + 3], split={"kind": "leave_one_out"})
    assert [line.split("  ")[1] for line in listed(data)[1:4]] == named


def test_numbered_days_are_no_dates_and_histories_have_them_too(tmp_path):
    """They were days of 1970, and a history's day 205 was second 205."""
    data = numbered(tmp_path, "day", [1, 1, 205, 300], **ALL_TRAIN)
    assert listed(data)[:4] == ["customer ann, on day 300", "  day 1  cup, tea", "  day 205  tea", "  day 300  pot"]
    assert told(data, "copy", "ann", "cup") == "in the history once, 299 days ago"
    fresh = tmp_path / "fresh.csv"
    fresh.write_text("user,item,timestamp\nann,tea,205\nann,cup,206.5\nann,pot,17798400\nann,tea,1970-07-26\n")
    histories = read_histories(fresh, data, DataConfig(path=str(data.path)))
    assert histories.times.tolist() == [205 * DAY, 206 * DAY, 206 * DAY, 206 * DAY + DAY // 2]
    assert listed(data, histories)[2:4] == ["  day 206  tea, pot", "  day 206, 12:00  cup"]
    assert "day 1 to day 300" in summary(data.manifest)
    assert "1970" not in summary(data.manifest) + report(inspect(data))


def test_who_gave_nothing_has_no_say(tmp_path):
    data = prepared(tmp_path)
    (histories,) = stored_histories(data, ["ann"])
    assert reason({"copy": 0.0, "graph": 0.0}, 0, histories, data) == ""
    assert reason({"copy": 0.2, "of my own": 0.8}, 0, histories, data) == "of my own"


def test_an_empty_title_is_none(tmp_path):
    rows = [
        {"user": "ann", "item": item, "time": str(START + day * DAY), "event": ""}
        for day, item in enumerate(["tea", "cup", "pot"])
    ]
    (tmp_path / "items.csv").write_text("item,title\ntea,Green tea\ncup,  \n")
    items = {"file": str(tmp_path / "items.csv"), "id": "item", "columns": {"title": "title"}}
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", items=items, **ALL_TRAIN)
    assert words.names(data, data.item_index(["tea", "cup", "pot"])) == ["Green tea", "cup", "pot"]
    assert np.array_equal(data.item_index(["tea", "cup"]) >= 0, [True, True])


def test_examples_in_the_docstrings():
    assert doctest.testmod(words).failed == 0
