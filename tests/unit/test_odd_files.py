"""What lies beside a log, stands late in it, or is written otherwise than the rest: read, passed over with a note, or refused
with its place in the user's own file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prepare_helpers import contents, run
from test_dialects import LOG, PRICES, csv, fingerprint, read, refused

from attnrec_dist.data.examples import ExampleSet


def folder(tmp_path: Path, *others: str) -> Path:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.csv").write_text(csv(LOG[:20]), encoding="utf-8")
    (tmp_path / "log" / "b.csv").write_text(csv(LOG[20:]), encoding="utf-8")
    for other in others:
        (tmp_path / "log" / other).write_bytes(b"\0 no table")
    return tmp_path / "log"


# What lies beside a log


@pytest.mark.parametrize("pattern", ["log", "log/*", "log/**"])
@pytest.mark.parametrize("given", [{}, {"format": "csv"}])
def test_what_is_no_data_by_its_name_is_passed_over_with_a_note(tmp_path, pattern, given):
    expected = fingerprint(tmp_path, LOG)
    folder(tmp_path, "_SUCCESS", "_metadata.json", ".DS_Store", ".a.csv.crc")
    said: list[str] = []
    assert read(tmp_path, pattern, said, input=given).manifest.fingerprint == expected
    (note,) = [line for line in said if "passed over" in line]
    assert "_SUCCESS" in note
    assert note.startswith(f"note: input.files: {tmp_path / pattern}: ")


def test_a_file_that_is_named_is_read_whatever_its_name(tmp_path):
    (tmp_path / "_log.csv").write_text(csv(LOG), encoding="utf-8")
    for pattern in ("_log.csv", "_*.csv"):
        assert read(tmp_path, pattern).manifest.fingerprint == fingerprint(tmp_path, LOG)
    assert "no file matches" in refused(tmp_path, "*log.csv")


@pytest.mark.parametrize("other", ["README.txt", "README", "a.csv.crc", "notes.md"])
def test_another_file_in_a_directory_is_refused_by_name(tmp_path, other):
    folder(tmp_path, other)
    for pattern in ("log", "log/*"):
        for given in ({}, {"format": "csv"}, {"format": "csv", "header": False, "names": ["user", "item", "time", "price"]}):
            message = refused(tmp_path, pattern, input=given)
            assert other in message
            assert "if it is no data, set it aside" in message


def test_parts_with_numbers_for_suffixes_are_of_one_kind(tmp_path):
    expected = fingerprint(tmp_path, LOG)
    (tmp_path / "log").mkdir()
    for part in range(4):
        (tmp_path / "log" / f"part.{part:04}").write_text(csv(LOG[10 * part : 10 * part + 10]), encoding="utf-8")
    assert read(tmp_path, "log", input={"format": "csv"}).manifest.fingerprint == expected


# Rows have the numbers of the user's own file


MESS = 'u1,"Br\not",1,1\n\nu1,"Käse",2,2\r\n\r\n'  # from line 2 to 6


@pytest.mark.parametrize("share", [0, 0.01])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_a_ragged_row_has_the_line_of_the_users_file(tmp_path, share, encoding):
    text = "user,item,time,price\n" + MESS + "u1,Brot\n" + csv(LOG[:9]).replace("商品", "x").partition("\n")[2]
    (tmp_path / "log.csv").write_text(text, encoding=encoding, newline="")
    message = refused(tmp_path, "log.csv", input={"max_bad_share": share, "encoding": encoding})
    assert f"line 7 of {tmp_path / 'log.csv'}: 'u1,Brot'" in message


def test_an_open_quote_has_the_line_of_the_users_file(tmp_path):
    (tmp_path / "log.csv").write_text(
        "user,item,time,price\n" + MESS + 'u1,"Brot"x,5,6\n' + csv(LOG), encoding="utf-8", newline=""
    )
    message = refused(tmp_path, "log.csv")
    assert "on line 7: a quote is left open" in message
    assert "Line:" not in message


def test_a_ragged_row_of_the_item_file_has_its_line(tmp_path):
    (tmp_path / "log.csv").write_text(csv(LOG), encoding="utf-8")
    (tmp_path / "items.csv").write_text('id,title\n"Käse","a\nb"\n\nBrot,White,bread\n', encoding="utf-8")
    items = {"file": str(tmp_path / "items.csv"), "id": "id", "columns": {"title": "title"}}
    assert f"{tmp_path / 'items.csv'}: line 5 'Brot,White,bread' has 3 values, not 2" in refused(tmp_path, "log.csv", items=items)


# Fields of JSON that come late


def lines(objects: list[dict]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


LATE = [{**row, "time": str(int(row["time"]) + k)} for k in range(60) for row in LOG]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("files", [1, 2])
def test_a_field_that_comes_after_a_thousand_lines_is_read(tmp_path, nested, files):
    columns = {"numeric": ["product.price" if nested else "price"], "missing_numeric": -1}
    kept = {k for k in range(len(LATE)) if k > 1500 or k < 20 * (files - 1)}  # of two files the first has it from the start
    objects = [{name: value for name, value in row.items() if name != "price" or k in kept} for k, row in enumerate(LATE)]
    wide = [{**each, "price": each.get("price", "")} for each in objects]
    expected = [events for *_, events in contents(run_of(tmp_path, wide, csv, "csv", {**columns, "numeric": ["price"]}))]
    shown = [{**each, "product": {"price": each.pop("price")}} if nested and "price" in each else each for each in objects]
    (tmp_path / "log").mkdir()
    for part, some in enumerate([shown[:20], shown[20:]] if files == 2 else [shown]):
        (tmp_path / "log" / f"{part}.jsonl").write_text(lines(some), encoding="utf-8")
    assert [events for *_, events in contents(read(tmp_path, "log", columns=columns))] == expected


def run_of(tmp_path, rows, write, suffix, columns):
    (tmp_path / f"rows.{suffix}").write_text(write(rows), encoding="utf-8")
    return read(tmp_path, f"rows.{suffix}", columns=columns)


def test_a_field_that_never_comes_is_refused(tmp_path):
    (tmp_path / "log.jsonl").write_text(lines(LATE), encoding="utf-8")
    assert "no column 'prize'" in refused(tmp_path, "log.jsonl", columns={"numeric": ["prize"]})


# Lists of events


def baskets() -> list[dict]:
    """LOG, the events of each user in a list."""
    users = sorted({row["user"] for row in LOG})
    own = {user: [{**row, "product": {"id": row["item"]}} for row in LOG if row["user"] == user] for user in users}
    return [{"user": user, "events": events} for user, events in own.items()]


UNNEST = {
    "input": {"unnest": "events"},
    "columns": {"user": "user", "item": "events.product.id", "timestamp": "events.time", "numeric": ["events.price"]},
}


@pytest.mark.parametrize("deep", [False, True])
def test_a_list_in_json_gives_a_row_for_each_of_its_values(tmp_path, deep):
    expected = contents(read_plain(tmp_path))
    objects = [{"user": each["user"], "order": {"events": each["events"]}} for each in baskets()] if deep else baskets()
    (tmp_path / "log.jsonl").write_text(lines(objects), encoding="utf-8")
    asked = json.loads(json.dumps(UNNEST).replace("events", "order.events" if deep else "events"))
    assert contents(read(tmp_path, "log.jsonl", **asked)) == expected


def read_plain(tmp_path):
    (tmp_path / "rows.csv").write_text(csv(LOG), encoding="utf-8")
    return read(tmp_path, "rows.csv", columns=PRICES)


def test_lists_of_plain_values_and_directories_beside_them(tmp_path):
    (tmp_path / "day=2026-03-01").mkdir()
    text = '{"who": 7, "items": ["a", 2, 3.0, null]}\n{"who": 8, "items": []}\n{"who": 9, "items": "b"}\n{"who": 10}\n'
    (tmp_path / "day=2026-03-01" / "log.jsonl").write_text(text)
    columns = {"user": "who", "item": "items", "timestamp": "day"}
    data = read(
        tmp_path, "day=2026-03-01", columns=columns, input={"unnest": "items"}, split={"kind": "leave_one_out", "ties": "keep"}
    )
    assert [(user, [event[0] for event in events]) for user, *_, events in contents(data)] == [("7", ["2", "3", "a"])]
    assert data.manifest.cleaning["missing item"] == 4  # an empty list is one row without an item, not none


def test_a_bad_value_in_a_list_is_told_with_the_line_of_its_object(tmp_path):
    objects = baskets()
    objects[2]["events"][3]["time"] = "soon"
    (tmp_path / "log.jsonl").write_text("{damaged\n" + lines(objects), encoding="utf-8")
    asked = {**UNNEST, "input": {"unnest": "events", "max_bad_share": 0}}
    message = refused(tmp_path, "log.jsonl", **asked)
    assert "2 of 41 rows are unusable" in message
    assert f"row 1 of {tmp_path / 'log.jsonl'}: no whole JSON object" in message
    objects[1:] = [{**each, "events": [{**event, "time": "soon"} for event in each["events"]]} for each in objects[1:]]
    (tmp_path / "log.jsonl").write_text(lines(objects), encoding="utf-8")
    assert f"row 2 of {tmp_path / 'log.jsonl'}: column 'events.time' = 'soon'" in refused(tmp_path, "log.jsonl", **asked)


@pytest.mark.parametrize(
    ("given", "columns", "said"),
    [
        ({}, {"item": "events"}, "for a row for each of its values set input.unnest: events"),
        ({}, {"item": "events.item", "timestamp": "events.time"}, "set input.unnest: events"),
        ({"unnest": "event"}, {"item": "events.item"}, "no list 'event', which input.unnest names; fields with lists: events"),
        ({"unnest": "events"}, {"item": "events.itm", "timestamp": "events.time"}, "did you mean events.item?"),
        ({"unnest": "events"}, {"item": "events", "timestamp": "events.time"}, "holds struct; only plain values"),
    ],
)
def test_lists_that_are_not_read_name_the_key(tmp_path, given, columns, said):
    (tmp_path / "log.jsonl").write_text(lines(baskets()), encoding="utf-8")
    assert said in refused(tmp_path, "log.jsonl", input=given, columns={"user": "user", **columns})


def test_unnest_is_of_json(tmp_path):
    (tmp_path / "log.csv").write_text(csv(LOG), encoding="utf-8")
    for given in ({}, {"format": "csv"}):
        assert "unnest is of jsonl files" in refused(tmp_path, "log.csv", input={"unnest": "events", **given}, columns={})


# Numbers of the files beside the log


def test_each_file_has_its_own_decimal(tmp_path):
    """Numbers of the item's and the user's file as those of the log: 1.234,5 where `decimal` says so."""
    rows = [{**row, "price": f"{k % 7}.5"} for k, row in enumerate(LOG)]
    items = [{"id": item, "weight": f"{1000 + 10 * k}.5"} for k, item in enumerate(sorted({row["item"] for row in LOG}))]
    users = [{"id": user, "spent": f"{k}.25"} for k, user in enumerate(sorted({row["user"] for row in LOG}))]
    features = {
        "weight": {"kind": "item", "column": "weight", "type": "numeric"},
        "spent": {"kind": "user", "column": "spent", "type": "numeric"},
    }
    found = {}
    for decimal in (".", ","):
        home = tmp_path / {".": "point", ",": "comma"}[decimal]
        home.mkdir()
        written = {"log": rows, "items": items, "users": users}
        for name, table in written.items():
            (home / f"{name}.csv").write_text(csv(table, ";").replace(".", decimal), encoding="utf-8")
        beside = {"delimiter": ";", "decimal": decimal, "id": "id"}
        data = run(
            [home / "log.csv"],
            home / "data",
            input={"delimiter": ";", "decimal": decimal},
            columns=PRICES,
            items={"file": str(home / "items.csv"), "columns": {"weight": "weight"}, **beside},
            users={"file": str(home / "users.csv"), "columns": {"spent": "spent"}, **beside},
            label={"kind": "column", "column": "price", "at_least": 3},
            features=features,
        )
        found[decimal] = data.manifest.fingerprint
        train = ExampleSet.open(data, "train")
        (weight,) = [name for name in train.columns if "weight" in name]
        assert set(train.column(weight, 0, len(train)).tolist()) <= {1000.5 + 10 * k for k in range(5)}
    assert found["."] == found[","]
