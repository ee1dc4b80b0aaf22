"""What is learnt from and what is held out: busy customers, lists of ids, last baskets, baskets by a gap."""

from __future__ import annotations

import collections
import gzip
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from prepare_helpers import config_of, contents, run, write_csv

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import find_views
from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.inference.histories import MICROSECONDS, in_baskets, read_histories
from attnrec_dist.inspection.report import report
from attnrec_dist.inspection.scan import inspect
from attnrec_dist.prepare.pipeline import prepare

FINGERPRINT = "e35a34a46129c6d69257cdd71baaf5155a5e4b97769e39ba56e4d0dedaf9d41d"  # of shop() without any of the keys below


def event(user: str, item: str, time: int) -> dict[str, str]:
    return {"user": user, "item": item, "time": str(time)}


def events_of(data):
    """{user: [item, ...]} over all parts."""
    return {user: [token[0] for token in tokens] for user, _, _, tokens in contents(data)}


def shop(busy: int = 30):
    """Ten users with eight events each, and one with `busy` events before the others' last."""
    rows = [event(f"u{user}", f"i{(user + place) % 7}", 100 * place + user) for user in range(10) for place in range(8)]
    return rows + [event("bot", f"i{place % 7}", place) for place in range(busy)]


@pytest.mark.parametrize("split", [{}, {"kind": "leave_one_out"}])
def test_users_with_too_many_events_are_left_out_of_all_parts_and_counted(tmp_path, split):
    rows = [*shop(), event("bot", "i1", 5000)]  # in the test part, where the split is in time
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", filters={"max_user_events": 29}, split=split)
    assert sorted(events_of(data)) == [f"u{user}" for user in range(10)]
    assert data.manifest.cleaning["above max_user_events"] == 31
    assert data.manifest.cleaning["events kept"] == 80
    kept = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "kept", filters={"max_user_events": 31}, split=split)
    assert "bot" in events_of(kept)


def test_split_in_time_later_events_do_not_count_against_a_user(tmp_path):
    rows = shop(busy=0) + [event("late", f"i{place % 7}", 800 + place) for place in range(8)]
    cuts = {"validation_from": "1970-01-01T00:13", "test_from": "1970-01-01T00:13:24"}  # 780, 804
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", filters={"max_user_events": 8}, split=cuts)
    assert len(events_of(data)["late"]) == 8
    assert data.manifest.cleaning["above max_user_events"] == 0


def test_busy_users_go_before_rare_items_are_looked_for(tmp_path):
    """Only the bot shows x, so x is rare without him."""
    rows = shop() + [event("bot", "x", 900 + place) for place in range(5)] + [event("u1", "x", 250)]
    filters = {"max_user_events": 20, "min_item_events": 2}
    all_train = {"train": 1, "validation": 0, "test": 0}
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", filters=filters, split=all_train)
    assert "x" not in data.items()["id"].to_pylist()
    assert data.manifest.cleaning["below min_item_events or min_user_events"] == 1


def test_a_limit_that_nobody_keeps_is_refused_with_the_key(tmp_path):
    with pytest.raises(InputError, match=r"raise filters\.max_user_events 1"):
        run([write_csv(tmp_path / "log.csv", shop())], tmp_path / "data", filters={"max_user_events": 1})
    with pytest.raises(ConfigError, match="max_user_events 2 is below min_user_events 3"):
        run([tmp_path / "log.csv"], tmp_path / "data", filters={"max_user_events": 2, "min_user_events": 3})


def test_keys_that_came_later_leave_the_fingerprint_alone_at_their_defaults(tmp_path):
    """The number was computed before the keys were there."""
    data = run([write_csv(tmp_path / "log.csv", shop())], tmp_path / "data")
    assert data.manifest.fingerprint == FINGERPRINT
    assert sorted(data.manifest.config["filters"]) == ["drop_duplicates", "min_item_events", "min_user_events", "where"]
    limited = run([tmp_path / "log.csv"], tmp_path / "limited", filters={"max_user_events": 1000})
    assert limited.manifest.fingerprint != FINGERPRINT
    assert collections.Counter(map(str, contents(limited))) == collections.Counter(map(str, contents(data)))


def orders(users: int = 12):
    """Each user's baskets 0, 1, 2, 3 of three items at one time; p and q stand together in last baskets alone."""
    rows = [
        event(f"u{user}", f"i{(user + 3 * basket + place) % 11}", 1000 * basket + user)
        for user in range(users)
        for basket in range(3)
        for place in range(3)
    ]
    return rows + [event(f"u{user}", item, 3000 + user) for user in range(users) for item in ("i1", "p", "q")]


LAST_BASKET = {"kind": "leave_last_basket"}
WITH_MICROSECONDS = ["2020-01-01T00:00:00.1", "2020-01-01T00:00:01.1", "2020-01-01T00:00:02.1", "2020-01-01T00:00:02.9"]


def test_the_last_basket_is_test_and_the_one_before_validation(tmp_path):
    data = run([write_csv(tmp_path / "log.csv", orders())], tmp_path / "data", split=LAST_BASKET)
    for _, train_end, valid_end, tokens in contents(data):
        assert (train_end, valid_end, len(tokens)) == (6, 9, 12)
        assert [len({time for _, time, _ in part}) for part in (tokens[:6], tokens[6:9], tokens[9:])] == [2, 1, 1]
        assert [item for item, *_ in tokens[9:]] == ["i1", "p", "q"]
    text = " ".join(report(inspect(data)).split())  # however its lines are folded
    assert "split leave_last_basket: of a user's baskets the last is test, the one before validation" in text
    assert data.manifest.split.model_dump() == {"kind": "leave_last_basket", "train_end": None, "valid_end": None, "last": 1}


def test_nothing_is_counted_of_the_baskets_held_out(tmp_path):
    data = run([write_csv(tmp_path / "log.csv", orders())], tmp_path / "data", split=LAST_BASKET)
    items = data.items().to_pydict()
    counts = dict(zip(items["id"], items["count"]))
    assert (counts["p"], counts["q"]) == (0, 0)
    graph = data.graph()
    assert graph is not None
    for planted in (items["id"].index("p"), items["id"].index("q")):
        assert graph.offsets[planted] == graph.offsets[planted + 1]
        assert planted not in graph.neighbours


@pytest.mark.parametrize("protocol", ["next_basket", "period"])
def test_a_view_asks_for_the_whole_last_basket_and_sees_all_before(tmp_path, protocol):
    data = run([write_csv(tmp_path / "log.csv", orders())], tmp_path / "data", split=LAST_BASKET)
    customers, newcomers = find_views(data, DataConfig(path="unused", basket="time"), "test")
    assert (len(customers), len(newcomers)) == (12, 0)
    batch = customers.batch(0, 12)
    items, row = batch.relevant[protocol]
    assert [sorted(data.item_ids(items[row == one])) for one in range(12)] == [["i1", "p", "q"]] * 12
    assert np.bincount(batch.history_row).tolist() == [9] * 12


def test_users_with_two_baskets_are_training_as_a_whole_and_a_second_is_one_basket(tmp_path):
    rows = [event("two", f"i{place}", 10 * (place // 2)) for place in range(4)]
    rows += [event("three", f"i{place}", when) for place, when in enumerate(WITH_MICROSECONDS)]
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", split=LAST_BASKET)
    assert {user: (train, valid) for user, train, valid, _ in contents(data)} == {"two": (4, 4), "three": (1, 2)}
    both = run([tmp_path / "log.csv"], tmp_path / "both", split=LAST_BASKET | {"last": 2})
    assert both.manifest.counts.test_events == 0


def test_leave_one_out_over_baskets_is_refused_with_the_line_to_type(tmp_path):
    log = write_csv(tmp_path / "log.csv", orders())
    with pytest.raises(InputError, match=r"12 of 12 users .* type --split\.kind leave_last_basket, or --split\.ties keep"):
        run([log], tmp_path / "data", split={"kind": "leave_one_out"})
    assert not (tmp_path / "data").exists()
    data = run([log], tmp_path / "data", split={"kind": "leave_one_out", "ties": "keep"})
    assert data.manifest.counts.test_events == 12


def test_a_tie_in_training_or_of_few_users_is_no_reason_to_refuse(tmp_path):
    rows = [event(f"u{user}", f"i{place}", 10 * max(1, place)) for user in range(30) for place in range(5)]
    rows += [event(f"u{user}", "i9", 40) for user in range(2)]
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", split={"kind": "leave_one_out"})
    assert data.manifest.counts.test_events == 30


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"kind": "leave_last_basket", "test_from": "2020-01-01"}, "leave_last_basket has no cuts in time"),
        ({"kind": "leave_last_basket", "ties": "keep"}, "ties is of kind leave_one_out"),
    ],
)
def test_keys_of_another_kind_of_split_are_refused(tmp_path, split, said):
    with pytest.raises(ConfigError, match=said):
        run([tmp_path / "log.csv"], tmp_path / "data", split=split)


def listed(tmp_path, rows, said=None, **filters):
    write_csv(tmp_path / "log.csv", rows)
    config = config_of([tmp_path / "log.csv"], filters=filters)
    prepare(config, tmp_path, tmp_path / "data", (said if said is not None else []).append)
    return DataSet.open(tmp_path / "data")


@pytest.mark.parametrize("form", ["lines", "windows", "gz", "csv", "parquet"])
def test_users_and_items_are_kept_and_left_out_by_lists_in_files(tmp_path, form):
    write_csv(tmp_path / "log.csv", shop())
    for name, ids in {"users": ["u1", "u2", "u3", "gone"], "items": ["i0", "i0", "i4"]}.items():
        if form == "lines":
            (tmp_path / name).write_text("\n".join(ids) + "\n\n")
        elif form == "windows":
            (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(ids).encode())
        elif form == "gz":
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress("\n".join(ids).encode()))
        elif form == "csv":
            (tmp_path / f"{name}.csv").write_text("no;id\n" + "".join(f"1;{each}\n" for each in ids))
        else:
            pq.write_table(pa.table({"id": ids}), tmp_path / f"{name}.parquet")
    ending = {"gz": ".gz", "csv": ".csv", "parquet": ".parquet"}.get(form, "")
    column = {"column": "id"} if form in ("csv", "parquet") else {}
    column |= {"delimiter": ";"} if form == "csv" else {}
    said: list[str] = []
    lists = {"keep_users": {"file": f"users{ending}", **column}, "drop_items": {"file": f"items{ending}", **column}}
    data = listed(tmp_path, shop(), said, **lists)
    expected = {user: [f"i{(int(user[1]) + place) % 7}" for place in range(8)] for user in ("u1", "u2", "u3")}
    assert events_of(data) == {user: [item for item in items if item not in ("i0", "i4")] for user, items in expected.items()}
    assert data.manifest.cleaning["not in filters.keep_users"] == 7 * 8 + 30
    assert data.manifest.cleaning["in filters.drop_items"] == sum(
        item in ("i0", "i4") for own in expected.values() for item in own
    )
    assert "warning: filters.keep_users: 1 of 4 ids are not in the log, such as 'gone'" in said
    assert not any("drop_items" in line and "not in the log" in line for line in said)
    assert "users" not in str(data.manifest.config["filters"])


def test_the_other_two_lists(tmp_path):
    (tmp_path / "users").write_text("bot\n")
    (tmp_path / "items").write_text("i1\ni2\n")
    data = listed(tmp_path, shop(), drop_users="users", keep_items="items")
    assert "bot" not in events_of(data)
    assert sorted(data.items()["id"].to_pylist()) == ["i1", "i2"]


@pytest.mark.parametrize(
    ("content", "filters", "said"),
    [
        ("x\n", {"keep_users": "list"}, r"(?s)row 1 of .*log\.csv: column 'user' = 'u0'.*check filters\.keep_users"),
        ("\n \n", {"drop_users": "list"}, r"list holds no id; leave the key out"),
        ("", {"drop_users": "list"}, r"list: the file is empty"),
        ("x\n", {"drop_users": "lst"}, r"filters\.drop_users: no such file"),
    ],
)
def test_lists_that_cannot_be_meant(tmp_path, content, filters, said):
    (tmp_path / "list").write_text(content)
    with pytest.raises(InputError, match=said):
        listed(tmp_path, shop(), **filters)
    assert not (tmp_path / "data").exists()


def test_a_table_needs_its_column_and_a_list_has_none(tmp_path):
    (tmp_path / "list.csv").write_text("user\nbot\n")
    (tmp_path / "list.txt").write_text("bot\n")
    with pytest.raises(ConfigError, match=r"name the column of the ids: \{file: list\.csv, column: \.\.\.\}"):
        listed(tmp_path, shop(), drop_users="list.csv")
    with pytest.raises(ConfigError, match=r"filters\.drop_users\.column: .*leave it out"):
        listed(tmp_path, shop(), drop_users={"file": "list.txt", "column": "user"})
    with pytest.raises(InputError, match=r"no column 'usr', which filters\.drop_users\.column names; did you mean user"):
        listed(tmp_path, shop(), drop_users={"file": "list.csv", "column": "usr"})


def with_baskets_by_hand(rows, gap):
    """The same rows with the times that baskets of this gap (seconds) have, one user and one event at a time."""
    joined = []
    for user in {row["user"] for row in rows}:
        start = last = None
        for row in sorted((row for row in rows if row["user"] == user), key=lambda row: float(row["time"])):
            time = float(row["time"])
            if last is None or not time - last < gap:
                start = row["time"]
            last = time
            joined.append({**row, "time": start})
    return joined


quarters = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(-40, 200))


@settings(deadline=None, max_examples=25)
@given(st.lists(quarters, min_size=1, max_size=25), st.sampled_from([1, 5, 60]), st.booleans())
def test_baskets_by_a_gap_are_those_found_by_hand(rows, gap, drop_duplicates):
    rows = [{"user": user, "item": item, "time": f"{time / 4:.2f}"} for user, item, time in rows]
    sections = {"filters": {"drop_duplicates": drop_duplicates}, "split": {"train": 1, "validation": 0, "test": 0}}
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        found = run([write_csv(there / "log.csv", rows)], there / "data", baskets={"gap": f"{gap}s"}, **sections)
        by_hand = run([write_csv(there / "joined.csv", with_baskets_by_hand(rows, gap))], there / "by_hand", **sections)
        assert contents(found) == contents(by_hand)
        assert found.manifest.cleaning == by_hand.manifest.cleaning
        assert found.manifest.fingerprint == by_hand.manifest.fingerprint


def test_lines_seconds_apart_are_one_basket_for_the_graph_and_the_split(tmp_path):
    rows = [{**row, "time": str(int(row["time"]) * 100 + place % 3)} for place, row in enumerate(orders())]
    log = write_csv(tmp_path / "log.csv", rows)
    apart = run([log], tmp_path / "apart")
    joined = run([log], tmp_path / "joined", baskets={"gap": "5s"}, split=LAST_BASKET)
    kinds = [data.manifest.config["statistics"]["graph"]["kind"] for data in (apart, joined)]
    assert kinds == ["next", "basket"]
    assert {(train, valid, len(tokens)) for _, train, valid, tokens in contents(joined)} == {(6, 9, 12)}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-9, 60)), max_size=30), st.integers(1, 9))
def test_histories_are_joined_as_the_log_is(events, gap):
    events.sort()
    rows = [{"user": str(row), "time": str(time)} for row, time in events]
    by_hand = sorted((int(each["user"]), int(each["time"])) for each in with_baskets_by_hand(rows, gap))
    row, times = (np.array([event[part] for event in events], np.int64) for part in range(2))
    assert in_baskets(times * MICROSECONDS, row, gap).tolist() == [time * MICROSECONDS for _, time in by_hand]
    assert in_baskets(times, row, None) is times


def test_fresh_histories_of_a_data_set_with_a_gap_have_its_baskets(tmp_path):
    data = run([write_csv(tmp_path / "log.csv", orders())], tmp_path / "data", baskets={"gap": "1m"})
    (tmp_path / "fresh.csv").write_text("user,item,timestamp\nnew,i2,100\nnew,i1,159\nnew,i3,219\n")
    fresh = read_histories(tmp_path / "fresh.csv", data, DataConfig(path="unused"))
    assert fresh.times.tolist() == [100, 100, 219]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"baskets": {"gap": "30"}}, "write a whole number and a unit, as in 45s, 30m"),
        ({"baskets": {"gap": "0m"}}, "length above 0"),
        ({"baskets": {"gap": "99999999w"}}, "longer than a hundred years"),
        (
            {
                "baskets": {"gap": "5m"},
                "split": {"kind": "leave_one_out"},
                "columns": {"timestamp": {"name": "time", "unit": "place"}},
            },
            r"baskets\.gap: columns\.timestamp\.unit place has no times",
        ),
        (
            {
                "baskets": {"gap": "5m"},
                "columns": {"event": "event"},
                "label": {"kind": "follow_up", "on": ["view"], "events": ["buy"], "within": "1d"},
                "features": {"hour": {"kind": "hour"}},
            },
            r"baskets\.gap: the order inside a basket is lost",
        ),
    ],
)
def test_gaps_that_cannot_be_are_refused(tmp_path, sections, said):
    with pytest.raises(ConfigError, match=said):
        run([tmp_path / "log.csv"], tmp_path / "data", **sections)
