"""Prepare against the same thing in plain Python; the same fingerprint however the log is cut up."""

from __future__ import annotations

import gzip
import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_helpers import COLUMNS, Empty, config_of, contents, oracle, run, write_csv

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.pipeline import prepare

# Half of each column's values are the few plain ones, so that users and items gather events; the rest is trouble.
users = st.sampled_from(["u", "ü 1", "007"]) | st.sampled_from(["7", " u", 'Ω,"x"', "日本", "U", ""])
items = st.sampled_from(["a", "b", "ä"]) | st.sampled_from(["b ", "0", "00", "長い" * 30, "it's", "\U0001f600", ""])
seconds = st.integers(0, 12).map(str)
odd_times = st.sampled_from(["", "junk", "1970-01-01 00:00:05", "1970-01-01T01:00:07+01:00", "-3", " 4"])
times = st.one_of(seconds, seconds, seconds, odd_times)
events = st.sampled_from(["view", "view", "buy", "cart", "rate", ""])
quantities = st.sampled_from(["1", "2", "1", "2.0"]) | st.sampled_from(["-1", "1e1", "0.1", "-0.0", "x", "", "1e39", "nan", " 1"])
row = st.fixed_dictionaries(dict(zip(COLUMNS, (users, items, times, events, quantities))))
log = st.lists(row, min_size=1, max_size=10) | st.lists(row, min_size=25, max_size=60)

columns = st.fixed_dictionaries(
    {
        "user": st.just("user"),
        "item": st.just("item"),
        "timestamp": st.just("time"),
        "event": st.sampled_from([None, "event", {"name": "event", "types": ["buy", "view"]}]),
        "numeric": st.sampled_from([[], [], ["quantity"]]),
        "missing_numeric": st.sampled_from([None, 0.5]),
    }
)
filters = st.fixed_dictionaries(
    {
        "where": st.sampled_from([{}, {}, {"quantity": {"min": 1}}, {"quantity": {"min": -0.5, "max": 2}}]),
        "drop_duplicates": st.booleans(),
        "min_item_events": st.integers(1, 3),
        "min_user_events": st.integers(1, 3),
    }
)
split = st.sampled_from([{}, {"train": 0.5, "validation": 0.25, "test": 0.25}, {"kind": "leave_one_out", "ties": "keep"}])


@settings(deadline=None, max_examples=50)
@given(log, columns, filters, split)
def test_equals_the_definition_in_plain_python(rows, columns, filters, split):
    with tempfile.TemporaryDirectory() as folder:
        file = write_csv(Path(folder) / "log.csv", rows)
        sections = {"columns": columns, "filters": filters, "split": split, "output": {"events_per_shard": 5}}
        config = config_of([file], **sections)
        try:
            expected = oracle(rows, config)
        except Empty:
            with pytest.raises(InputError):
                prepare(config, Path("/"), Path(folder) / "data")
            return
        data = run([file], Path(folder) / "data", **sections)
        manifest = data.manifest
        assert contents(data) == expected["rows"]
        assert list(zip(data.items()["id"].to_pylist(), data.items()["count"].to_pylist())) == expected["items"]
        assert (manifest.num_items, manifest.num_all_items) == (expected["num_items"], len(expected["items"]))
        assert (manifest.split.train_end, manifest.split.valid_end) == expected["cuts"]
        assert manifest.event_types == expected["types"]
        kept = sum(len(tokens) for *_, tokens in expected["rows"])
        assert {name: count for name, count in manifest.cleaning.items() if count} == {**expected["reasons"], "events kept": kept}
        assert manifest.counts.events == kept
        assert manifest.counts.train_events == sum(end for _, end, _, _ in expected["rows"])
        assert manifest.counts.users_without_train_events == sum(end == 0 for _, end, _, _ in expected["rows"])


@pytest.fixture(scope="module")
def shop() -> list[dict[str, str]]:
    """A few hundred rows with many ties in time, repeats and damage."""
    draw = random.Random(3)
    rows = [
        {
            "user": f"ü{draw.randrange(40)}",
            "item": f"i {int(draw.paretovariate(0.7)) % 60}",
            "time": str(1_600_000_000 + 100 * draw.randrange(200)) if draw.random() > 0.02 else "?",
            "event": draw.choice(["view", "buy"]),
            "quantity": str(draw.randrange(4)),
        }
        for _ in range(1500)
    ]
    return rows + rows[:50]


SECTIONS = {
    "columns": {"event": "event", "numeric": ["quantity"]},
    "filters": {"min_item_events": 3, "min_user_events": 2, "where": {"quantity": {"min": 1}}},
}


def test_the_fingerprint_does_not_see_files_threads_shards_or_formats(shop, tmp_path):
    write_csv(tmp_path / "whole.csv", shop)
    reference = run([tmp_path / "whole.csv"], tmp_path / "reference", **SECTIONS)
    fingerprint = reference.manifest.fingerprint
    mixed = random.Random(1).sample(shop, len(shop))
    halves = [write_csv(tmp_path / f"half{k}.csv", mixed[k::2], columns=COLUMNS[:: 1 - 2 * k]) for k in (0, 1)]
    fifths = [write_csv(tmp_path / f"fifth{k}.csv", mixed[k::5]) for k in range(5)]
    reversed_file = write_csv(tmp_path / "reversed.csv", shop[::-1])
    tsv = write_csv(tmp_path / "whole.tsv", shop, delimiter="\t")
    (tmp_path / "whole.csv.gz").write_bytes(gzip.compress((tmp_path / "whole.csv").read_bytes()))
    zst = tmp_path / "whole.csv.zst"
    with pa.output_stream(str(zst), compression="zstd") as stream:
        stream.write((tmp_path / "whole.csv").read_bytes())
    parquet = tmp_path / "typed.parquet"
    typed = {name: [row[name] for row in shop] for name in COLUMNS}
    typed["time"] = [int(value) if value.isdigit() else None for value in typed["time"]]
    typed["quantity"] = [int(value) for value in typed["quantity"]]
    pq.write_table(pa.table(typed), parquet)
    iso = write_csv(tmp_path / "iso.csv", [{**row, "time": _iso(row["time"])} for row in shop])
    cases = {
        "two files, other column order": (halves, {}),
        "five files": (fifths, {}),
        "five files backwards": (fifths[::-1], {}),
        "reversed": ([reversed_file], {}),
        "tsv": ([tsv], {}),
        "gz": ([tmp_path / "whole.csv.gz"], {}),
        "zst": ([zst], {}),
        "parquet, typed": ([parquet], {}),
        "parquet and csv": ([parquet, reversed_file], {}),
        "iso": ([iso], {}),
        "two threads": ([tmp_path / "whole.csv"], {"engine": {"threads": 2, "memory_limit": "300MB"}}),
        "many shards": ([tmp_path / "whole.csv"], {"output": {"events_per_shard": 100}}),
    }
    for name, (files, extra) in cases.items():
        data = run(files, tmp_path / "data", **SECTIONS, **extra)
        assert data.manifest.fingerprint == fingerprint, name
        assert contents(data) == contents(reference), name
    assert (
        len(run(*cases["many shards"][:1], tmp_path / "data", **SECTIONS, output={"events_per_shard": 100}).manifest.shards) > 5
    )


def _iso(second: str) -> str:
    return str(np.datetime64(int(second), "s")) if second.isdigit() else second


@pytest.mark.parametrize(
    "change",
    [
        {"filters": {**SECTIONS["filters"], "min_item_events": 4}},
        {"split": {"train": 0.7, "validation": 0.2, "test": 0.1}},
        {"columns": {"event": "event"}},
    ],
)
def test_the_fingerprint_sees_what_shapes_the_data(shop, tmp_path, change):
    file = write_csv(tmp_path / "log.csv", shop)
    one = run([file], tmp_path / "one", **SECTIONS).manifest.fingerprint
    assert run([file], tmp_path / "two", **{**SECTIONS, **change}).manifest.fingerprint != one


def test_one_value_more_changes_the_fingerprint(shop, tmp_path):
    one = run([write_csv(tmp_path / "a.csv", shop)], tmp_path / "one").manifest.fingerprint
    moved = [{**shop[0], "time": str(int(shop[0]["time"]) + 1)}, *shop[1:]]
    assert run([write_csv(tmp_path / "b.csv", moved)], tmp_path / "two").manifest.fingerprint != one


def events_in(rows: list[tuple]) -> dict[str, list]:
    return {user: tokens for user, _, _, tokens in rows}


@pytest.mark.parametrize(
    ("timestamp", "value", "second"),
    [
        ("time", "1600000000", 1600000000),
        ("time", "1600000000123", 1600000000),
        ("time", "1600000000999999", 1600000000),
        ("time", "1600000000.75", 1600000000),
        ("time", "-0.5", -1),
        ({"name": "time", "unit": "ms"}, "1500", 1),
        ({"name": "time", "unit": "us"}, "2500000", 2),
        ({"name": "time", "unit": "s"}, "160000000", 160000000),
        ("time", "2020-09-13", 1599955200),
        ("time", "2020-09-13T12:26:40Z", 1600000000),
        ("time", "2020-09-13 12:26:40.9", 1600000000),
        ("time", "2020-09-13 12:26", 1599999960),
        ("time", "2020-09-13T14:26:40+02:00", 1600000000),
        ("time", "2020-09-13T14:26:40+02", 1600000000),
        ("time", "2020-09-13T06:56:40-0530", 1600000000),
        ({"name": "time", "time_zone": "Europe/London"}, "2020-09-13 13:26:40", 1600000000),
        ({"name": "time", "time_zone": "Europe/London"}, "2020-12-13 12:26:40", 1607862400),
        ({"name": "time", "time_zone": "Europe/London"}, "2020-09-13 12:26:40Z", 1600000000),
        ({"name": "time", "format": "%m/%d/%Y %H:%M"}, "9/13/2020 12:26", 1599999960),
    ],
)
def test_times(tmp_path, timestamp, value, second):
    file = write_csv(tmp_path / "log.csv", [{"user": "u", "item": "i", "time": value}])
    data = run([file], tmp_path / "data", columns={"timestamp": timestamp}, split={"train": 1, "validation": 0, "test": 0})
    assert data.rows(np.array([0])).times.tolist() == [second]


@pytest.mark.parametrize(
    ("timestamp", "value"),
    [
        ({"name": "time", "unit": "iso"}, "1600000000"),
        ({"name": "time", "unit": "s"}, "2020-09-13"),
        ({"name": "time", "unit": "s"}, "1600000000123"),
        ("time", "2020-13-01"),
        ("time", "13.09.2020"),
        ("time", " 1600000000"),
        ("time", "2020-09-13 12:26:40 CET"),
        ("time", "99999999999999999999999999"),
    ],
)
def test_what_is_no_time(tmp_path, timestamp, value):
    rows = [{"user": "u", "item": "i", "time": "1600000000"}, {"user": "u", "item": "i", "time": value}]
    if isinstance(timestamp, dict) and timestamp["unit"] == "iso":
        rows[0]["time"] = "2020-01-01"
    file = write_csv(tmp_path / "log.csv", rows)
    data = run([file], tmp_path / "data", columns={"timestamp": timestamp}, split={"train": 1, "validation": 0, "test": 0})
    assert data.manifest.cleaning["unreadable timestamp"] == 1


@pytest.mark.parametrize("kind", ["timestamp('us')", "timestamp('ns', 'Europe/London')", "date32()", "int64()", "float64()"])
def test_parquet_times_and_ids_have_types_of_their_own(tmp_path, kind):
    moment = 1_600_041_600 if kind != "date32()" else 1_599_955_200
    values = {"int64()": [moment], "float64()": [float(moment)]}.get(kind) or [np.datetime64(moment, "s").item()]
    type_ = eval(f"pa.{kind}", {"pa": pa})
    table = pa.table({"user": [13085.0], "item": [7], "time": pa.array(values, type_)})
    pq.write_table(table, tmp_path / "log.parquet")
    data = run([tmp_path / "log.parquet"], tmp_path / "data", split={"train": 1, "validation": 0, "test": 0})
    assert contents(data) == [("13085", 1, 1, [("7", moment, "")])]


def test_nan_in_a_parquet_file_is_a_missing_value(tmp_path):
    nan = float("nan")
    users, items, numbers = [1.0, nan, 1.0, 1.0], [7.0, 7.0, nan, 8.0], [1.0, 2.0, 3.0, nan]
    pq.write_table(pa.table({"user": users, "item": items, "time": [5, 6, 7, 8], "quantity": numbers}), tmp_path / "log.parquet")
    columns = {"numeric": ["quantity"]}
    data = run([tmp_path / "log.parquet"], tmp_path / "one", columns=columns, split={"train": 1, "validation": 0, "test": 0})
    found = data.manifest.cleaning
    assert [found[reason] for reason in ("missing user", "missing item", "bad number", "events kept")] == [1, 1, 1, 1]
    columns |= {"missing_numeric": -1}
    data = run([tmp_path / "log.parquet"], tmp_path / "two", columns=columns, split={"train": 1, "validation": 0, "test": 0})
    assert contents(data) == [("1", 2, 2, [("7", 5, "", 1.0), ("8", 8, "", -1.0)])]


def test_events_within_a_second_keep_their_order_though_seconds_are_stored(tmp_path):
    rows = [{"user": "u", "item": item, "time": f"1600000000{ms}"} for item, ms in (("b", 100), ("a", 200), ("c", 50 + 100))]
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", split={"train": 1, "validation": 0, "test": 0})
    assert [token[0] for token in contents(data)[0][3]] == ["b", "c", "a"]


def test_dates_cut_at_midnight_of_the_log_s_own_zone(tmp_path):
    times = ["2020-06-30 23:59:59", "2020-07-01 00:00:00", "2020-07-31 23:59:59", "2020-08-01 00:00:00"]
    rows = [{"user": "u", "item": str(place), "time": time} for place, time in enumerate(times)]
    zone = {"timestamp": {"name": "time", "time_zone": "Europe/London"}}
    cuts = {"validation_from": "2020-07-01", "test_from": "2020-08-01"}
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", columns=zone, split=cuts)
    assert contents(data)[0][1:3] == (1, 3)
    assert data.manifest.split.train_end == 1593558000
    assert (data.manifest.num_items, data.manifest.num_all_items) == (1, 4)


def test_titles_come_along_and_an_item_without_one_has_none(tmp_path):
    log = write_csv(tmp_path / "log.csv", [{"user": "u", "item": item, "time": "1"} for item in ("a", "b", "ä")])
    titles = tmp_path / "items.tsv"
    titles.write_text('id\tname\nä\t"say ""ä"" \tnow"\na\tzwei\na\teins\n\tnobody\n', encoding="utf-8")
    items = {"file": str(titles), "id": "id", "columns": {"title": "name"}}
    data = run([log], tmp_path / "data", items=items, split={"train": 1, "validation": 0, "test": 0})
    assert data.titles(data.item_index(["ä", "a", "b"])) == ['say "ä" \tnow', "eins", None]


def test_files_without_a_header(tmp_path):
    (tmp_path / "log.tsv").write_text("u\ti\t5\n007\ti\t6\n")
    layout = {"header": False, "names": ["user", "item", "time"]}
    data = run([tmp_path / "log.tsv"], tmp_path / "data", input={"files": [str(tmp_path / "*.tsv")], **layout})
    assert sorted(row[0] for row in contents(data)) == ["007", "u"]


def test_leave_one_out_needs_three_events(tmp_path):
    rows = [{"user": f"u{n}", "item": f"i{k}", "time": str(k)} for n in (1, 2, 3, 4) for k in range(n)]
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", split={"kind": "leave_one_out"})
    ends = {user: (train_end, valid_end, len(tokens)) for user, train_end, valid_end, tokens in contents(data)}
    assert ends == {"u1": (1, 1, 1), "u2": (2, 2, 2), "u3": (1, 2, 3), "u4": (2, 3, 4)}
    assert (data.manifest.num_items, data.manifest.num_all_items) == (4, 4)
    assert data.items()["count"].to_pylist() == [4, 2, 0, 0]


def test_of_equal_events_the_one_with_the_smallest_numbers_stays(tmp_path):
    rows = [
        {"user": "u", "item": "i", "time": "1", "quantity": q, "price": p}
        for q, p in (("2", "1"), ("1", "9"), ("1", "3"), ("1", "5"))
    ]
    file = write_csv(tmp_path / "log.csv", rows, columns=["user", "item", "time", "quantity", "price"])
    numeric = {"columns": {"numeric": ["quantity", "price"]}, "split": {"train": 1, "validation": 0, "test": 0}}
    assert contents(run([file], tmp_path / "one", **numeric))[0][3] == [("i", 1, "", 1.0, 3.0)]
    every = contents(run([file], tmp_path / "all", **numeric, filters={"drop_duplicates": False}))[0][3]
    assert [token[3:] for token in every] == [(1, 3), (1, 5), (1, 9), (2, 1)]


def test_ties_in_time_are_ordered_by_raw_item_id_then_event(tmp_path):
    pairs = [("b", "buy"), ("a", "view"), ("ä", "buy"), ("a", "buy"), ("b", "buy"), ("b", "buy")]
    rows = [{"user": "u", "item": item, "time": "1", "event": event} for item, event in pairs]
    sections = {
        "columns": {"event": "event"},
        "split": {"train": 1, "validation": 0, "test": 0},
        "filters": {"drop_duplicates": False},
    }
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", **sections)
    expected = [("a", "buy"), ("a", "view"), ("b", "buy"), ("b", "buy"), ("b", "buy"), ("ä", "buy")]
    assert [(token[0], token[2]) for token in contents(data)[0][3]] == expected
    assert data.item_ids(np.arange(3)) == ["b", "a", "ä"]  # and yet b, being more frequent, has the smaller index


def test_minus_zero_is_zero(tmp_path):
    file = write_csv(tmp_path / "log.csv", [{"user": "u", "item": "i", "time": "1", "quantity": "-0.0"}])
    sections = {"columns": {"numeric": ["quantity"]}, "split": {"train": 1, "validation": 0, "test": 0}}
    assert not np.signbit(run([file], tmp_path / "data", **sections).rows(np.array([0])).numeric["quantity"]).any()


def test_the_fingerprint_sees_a_filter_even_where_it_removes_nothing(shop, tmp_path):
    file = write_csv(tmp_path / "log.csv", shop)
    one = run([file], tmp_path / "one")
    two = run([file], tmp_path / "two", filters={"min_user_events": 2})
    assert contents(one) == contents(two)
    assert one.manifest.fingerprint != two.manifest.fingerprint
