"""Logs as shops write them: one log in every dialect gives one data set; what is seen of a dialect names its key."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_helpers import config_of, contents

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.prepare.reading.encodings import likely
from attnrec_dist.settings import parse_overrides

ITEMS = ["Käse", "Größe", "Brot", "商品", "Öl"]
LOG = [
    {"user": f"u{k % 4}", "item": ITEMS[(3 * k + k // 7) % 5], "time": str(1_772_000_000 + 60 * k), "price": f"{k}.5"}
    for k in range(40)
]
WESTERN = [row for row in LOG if row["item"] != "商品"]
PRICES = {"numeric": ["price"]}


def read(tmp_path: Path, name: str, said: list[str] | None = None, **sections: Any) -> DataSet:
    """The data set of a file or directory of tmp_path."""
    output = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
    input_section = {"files": [str(tmp_path / name)], **sections.pop("input", {})}
    split = {"kind": "leave_one_out", "ties": "keep"}
    config = config_of([], input=input_section, **{"split": split, **sections})
    prepare(config, tmp_path, output, said.append if said is not None else lambda _: None)
    return DataSet.open(output)


def refused(tmp_path: Path, name: str, **sections: Any) -> str:
    with pytest.raises((InputError, ConfigError)) as caught:
        read(tmp_path, name, **sections)
    return str(caught.value)


def csv(rows: list[dict[str, str]], delimiter: str = ",", change: Callable[[str, str], str] = lambda _, value: value) -> str:
    lines = [delimiter.join(rows[0]), *(delimiter.join(change(*pair) for pair in row.items()) for row in rows)]
    return "\n".join(lines) + "\n"


def fingerprint(tmp_path: Path, rows: list[dict[str, str]], **sections: Any) -> str:
    (tmp_path / "plain.csv").write_text(csv(rows), encoding="utf-8")
    return read(tmp_path, "plain.csv", **sections).manifest.fingerprint


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "gb18030", "gbk", "shift-jis", "utf-16", "utf-16-le", "utf-8-sig", "utf-32"]
)
def test_every_encoding_gives_the_same_data_set(tmp_path, encoding):
    rows = WESTERN if encoding in ("latin-1", "cp1252") else LOG
    if encoding == "shift-jis":
        rows = [{**row, "item": {"Käse": "チーズ", "Größe": "靴", "Öl": "油"}.get(row["item"], "本")} for row in LOG]
    if encoding == "gbk":
        rows = [{**row, "item": {"Käse": "奶酪", "Größe": "鞋", "Öl": "油"}.get(row["item"], row["item"])} for row in LOG]
    expected = fingerprint(tmp_path, rows)
    (tmp_path / "log.csv").write_bytes(csv(rows).encode(encoding))
    assert read(tmp_path, "log.csv", input={"encoding": encoding}).manifest.fingerprint == expected
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(csv(rows).replace("\n", "\r\n").encode(encoding)))
    assert read(tmp_path, "log.csv.gz", input={"encoding": encoding}).manifest.fingerprint == expected
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "log.jsonl").write_bytes(lines.encode(encoding))
    assert read(tmp_path, "log.jsonl", input={"encoding": encoding}).manifest.fingerprint == expected


@pytest.mark.parametrize("encoding", ["latin-1", "gb18030", "shift-jis", "cp1251", "utf-16"])
def test_the_encoding_that_is_seen_is_named(tmp_path, encoding):
    word = {"gb18030": "商品类别", "shift-jis": "りんごジュース", "cp1251": "молоко"}.get(encoding, "Käse")
    text = csv([{**row, "item": word} for row in LOG])
    (tmp_path / "log.csv").write_bytes(text.encode(encoding))
    message = refused(tmp_path, "log.csv")
    assert f"set input.encoding: {encoding}" in message
    assert str(tmp_path / "log.csv") in message
    if encoding != "utf-16":
        assert "line 2 is not UTF-8" in message
        assert likely(text.encode(encoding)) == encoding
    message = refused(tmp_path, "log.csv", input={"files": [str(tmp_path / "log.csv")], "encoding": "ascii"})
    assert "input.encoding" in message


def test_an_encoding_that_is_none_is_refused(tmp_path):
    for name in ("klingon", "base64", "rot13", ""):
        assert "input.encoding" in refused(tmp_path, "log.csv", input={"encoding": name})


def test_a_file_that_is_not_in_its_encoding_is_refused_with_the_line(tmp_path):
    (tmp_path / "log.csv").write_bytes(csv(LOG).encode().replace(b"u1", b"u\xff", 1))
    assert "line 3 is not UTF-8 text" in refused(tmp_path, "log.csv")
    (tmp_path / "log.csv").write_bytes(csv(LOG).encode("gb18030") + b"\x81")
    assert "is not GB18030 text" in refused(tmp_path, "log.csv", input={"encoding": "gb18030"})


def test_a_decimal_comma_and_groups_of_thousands(tmp_path):
    written = {
        "12,50": 12.5,
        "1.234,5": 1234.5,
        "1.234.567": 1234567,
        "-3,25": -3.25,
        "7": 7,
        "1'234": 1234,
        "1\u202f234,5": 1234.5,
        ",5": 0.5,
    }
    bad = ["12.5", "1.23", "1,2,3", "1.2345,0", ",", "1,234.5"]
    rows = [{"user": "u", "item": f"i{k}", "time": str(k), "price": price} for k, price in enumerate([*written, *bad])]
    (tmp_path / "log.csv").write_text(csv(rows, ";"), encoding="utf-8")
    data = read(tmp_path, "log.csv", columns=PRICES, input={"delimiter": ";", "decimal": ","})
    assert [event[3] for event in contents(data)[0][3]] == list(written.values())
    assert data.manifest.cleaning["bad number"] == len(bad)
    (tmp_path / "log.csv").write_text(csv([{**row, "price": "12,50"} for row in LOG], ";"), encoding="utf-8")
    message = refused(tmp_path, "log.csv", columns=PRICES, input={"delimiter": ";"})
    assert "set input.decimal: ','" in message


def test_null_values_and_trim(tmp_path):
    expected = fingerprint(tmp_path, LOG)
    nulls = [{**LOG[0], "user": "NULL"}, {**LOG[1], "item": "\\N"}, {**LOG[2], "user": " NaN "}]
    padded = csv(LOG, change=lambda _, value: f" {value}\u3000") + csv(nulls).partition("\n")[2]
    (tmp_path / "log.csv").write_text(padded.replace("user,item", " user, item\t", 1), encoding="utf-8")
    data = read(tmp_path, "log.csv", input={"trim": True, "null_values": ["NULL", "NaN", "\\N"]})
    assert data.manifest.fingerprint == expected
    assert (data.manifest.cleaning["missing user"], data.manifest.cleaning["missing item"]) == (2, 1)
    table = pa.table({name: [f" {row[name]}" for row in LOG] + ["NULL"] for name in LOG[0]})
    pq.write_table(table, tmp_path / "log.parquet")
    data = read(tmp_path, "log.parquet", input={"trim": True, "null_values": [None]})
    assert data.manifest.fingerprint == expected
    assert data.manifest.cleaning["missing user"] == 1


def test_the_item_file_has_its_own_dialect(tmp_path):
    (tmp_path / "log.csv").write_text(csv(WESTERN), encoding="utf-8")
    titles = "".join(f" {item} :: Titel ü {item}\n" for item in ITEMS if item != "商品") + "Brot2::NULL\n"
    (tmp_path / "items.dat").write_bytes(("id::title\n" + titles).encode("cp1252"))
    items = {
        **{"file": str(tmp_path / "items.dat"), "id": "id", "columns": {"title": "title"}, "format": "csv"},
        **{"delimiter": "::", "encoding": "cp1252", "trim": True, "null_values": ["NULL"]},
    }
    data = read(tmp_path, "log.csv", items=items)
    found = data.items()
    assert dict(zip(found["id"].to_pylist(), found["title"].to_pylist()))["Größe"] == "Titel ü Größe"


@pytest.mark.parametrize("delimiter", ["::", "||", "|~|", ";", "\x01", "¦"])
def test_delimiters_of_several_characters(tmp_path, delimiter):
    expected = fingerprint(tmp_path, LOG)
    (tmp_path / "log.csv").write_text(csv(LOG, delimiter), encoding="utf-8")
    assert read(tmp_path, "log.csv", input={"delimiter": delimiter}).manifest.fingerprint == expected


def test_a_delimiter_that_is_too_long_and_one_that_is_seen(tmp_path):
    (tmp_path / "log.csv").write_text(csv(LOG, "::"), encoding="utf-8")
    assert "at most 4 bytes" in refused(tmp_path, "log.csv", input={"delimiter": "<tab>"})
    assert "set input.delimiter: '::'" in refused(tmp_path, "log.csv")


def as_json(row: dict[str, str]) -> dict[str, Any]:
    return {
        "user": row["user"],
        "product": {"id": row["item"], "tags": [1]},
        "time": int(row["time"]),
        "price": float(row["price"]),
    }


JSON = {"columns": {"item": "product.id", **PRICES}}


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson.gz", "json.zst"])
def test_json_lines_with_nested_fields(tmp_path, suffix):
    expected = fingerprint(tmp_path, LOG, columns=PRICES)
    text = "".join(json.dumps(as_json(row)) + "\r\n\n" for row in LOG).encode()
    file = tmp_path / f"log.{suffix}"
    if suffix.endswith("zst"):
        file.write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    else:
        file.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    assert read(tmp_path, file.name, **JSON).manifest.fingerprint == expected


def test_json_values_are_text_as_in_other_formats(tmp_path):
    rows = [
        {"u": user, "i": item, "t": 5 + k}
        for k, (user, item) in enumerate([(7, "a"), (7.0, "b"), ("7", 12345678901234567), (True, "c")])
    ]
    rows += [
        {"u": None, "i": "x", "t": 1},
        {"i": "x", "t": 1},
        {"u": "", "i": "x", "t": 1},
        {"u": [1], "i": "x", "t": 1},
        {"u": {"a": 1}, "i": "x", "t": 1},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read(tmp_path, "log.jsonl", columns={"user": "u", "item": "i", "timestamp": "t"})
    assert {user: [event[0] for event in events] for user, _, _, events in contents(data)} == {
        "7": ["a", "b", "12345678901234567"],
        "true": ["c"],
    }
    assert data.manifest.cleaning["missing user"] == 5


def test_a_damaged_line_of_json_is_counted_with_its_row(tmp_path):
    lines = [json.dumps(as_json(row)) for row in LOG]
    whole = [*lines[:7], *lines[9:]]
    damaged = [*lines[:7], lines[7][:30], "[1, 2]", *lines[9:]]
    (tmp_path / "log.jsonl").write_text("\n".join(whole))
    expected = read(tmp_path, "log.jsonl", **JSON).manifest.fingerprint
    (tmp_path / "log.jsonl").write_text("\n".join(damaged))
    data = read(tmp_path, "log.jsonl", **JSON)
    assert data.manifest.fingerprint == expected
    assert data.manifest.cleaning["damaged row"] == 2
    message = refused(tmp_path, "log.jsonl", **{**JSON, "input": {"max_bad_share": 0.01}})
    assert f"row 8 of {tmp_path / 'log.jsonl'}: no whole JSON object" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{'a': 1}]\n", "one JSON list"),
        ('{\n "user": 1\n}\n', "over several lines"),
        ("{u'user': u'1'}\n", "Python's notation"),
        ("user,item\n", "none of its first lines"),
        ('{"user": [1], "item": 2, "time": 3}\n', "only plain values"),
        ('{"userid": 1, "item": 2, "time": 3}\n', "did you mean userid?"),
    ],
)
def test_what_is_no_json_lines(tmp_path, text, said):
    (tmp_path / "log.json").write_text(text)
    assert said in refused(tmp_path, "log.json")


def write_partitions(tmp_path: Path, write: Callable[[Path, list[dict[str, str]]], None], suffix: str) -> None:
    """By user, as Hive does: the user stands only in the directories' names."""
    for user in {row["user"] for row in LOG}:
        folder = tmp_path / "log" / f"user={user}" / "kind=a%2Fb"
        folder.mkdir(parents=True)
        rows = [{name: value for name, value in row.items() if name != "user"} for row in LOG if row["user"] == user]
        write(folder / f"part-0.{suffix}", rows)
        (folder / ".part-0.crc").write_bytes(b"x")
    (tmp_path / "log" / "_SUCCESS").touch()
    (tmp_path / "log" / "_temporary").mkdir()
    (tmp_path / "log" / "_temporary" / f"part-1.{suffix}").write_bytes(b"x")


WRITERS: dict[str, Callable[[Path, list[dict[str, str]]], Any]] = {
    "csv": lambda path, rows: path.write_text(csv(rows), encoding="utf-8"),
    "jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())),
    "parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_partitioned_directory(tmp_path, suffix):
    columns = {**PRICES, "event": "kind"}
    expected = fingerprint(tmp_path, [{**row, "kind": "a/b"} for row in LOG], columns=columns)
    write_partitions(tmp_path, WRITERS[suffix], suffix)
    for name in ("log", "log/", "log/user=*", "log/*/*/*", f"log/**/*.{suffix}"):
        assert read(tmp_path, name, columns=columns).manifest.fingerprint == expected, name


def test_a_partition_of_linked_and_rewritten_files(tmp_path):
    write_partitions(tmp_path, lambda path, rows: path.write_bytes(csv(rows).replace("\n", "\r\n", 2).encode()), "csv")
    expected = fingerprint(tmp_path, LOG)
    assert read(tmp_path, "log").manifest.fingerprint == expected
    for number, file in enumerate((tmp_path / "log").rglob("part-0.csv")):
        file.rename(tmp_path / f"blob{number}.csv")
        file.symlink_to(tmp_path / f"blob{number}.csv")
    assert read(tmp_path, "log").manifest.fingerprint == expected


def test_a_column_of_the_file_goes_before_that_of_its_directory(tmp_path):
    (tmp_path / "user=5").mkdir()
    (tmp_path / "user=5" / "log.csv").write_text(csv(LOG), encoding="utf-8")
    assert read(tmp_path, "user=5/log.csv").manifest.fingerprint == fingerprint(tmp_path, LOG)


def test_columns_are_united_by_name(tmp_path):
    (tmp_path / "log").mkdir()
    lacking = [{name: row[name] for name in ("time", "item", "user")} for row in LOG[20:]]
    (tmp_path / "log" / "a.csv").write_text(csv(LOG[:20]), encoding="utf-8")
    (tmp_path / "log" / "b.csv").write_text(csv(lacking), encoding="utf-8")
    expected = fingerprint(
        tmp_path, LOG[:20] + [{**row, "price": ""} for row in LOG[20:]], columns={**PRICES, "missing_numeric": -1}
    )
    assert read(tmp_path, "log", columns={**PRICES, "missing_numeric": -1}).manifest.fingerprint == expected
    assert read(tmp_path, "log", columns=PRICES).manifest.cleaning["bad number"] == 20
    (tmp_path / "log" / "a.csv").write_text(csv(lacking), encoding="utf-8")
    assert "no column 'price'" in refused(tmp_path, "log", columns=PRICES)


def test_an_unknown_file_in_a_directory_is_told(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.csv").write_text(csv(LOG), encoding="utf-8")
    (tmp_path / "log" / "LIESMICH").write_text("x")
    assert "LIESMICH: the name does not tell the format" in refused(tmp_path, "log")


@pytest.mark.parametrize("mixed", [False, True])
def test_ragged_rows_are_counted_and_shown(tmp_path, mixed):
    expected = fingerprint(tmp_path, LOG[:5] + LOG[7:])
    lines = csv(LOG).splitlines(keepends=True)
    lines[6], lines[7] = "u1,Brot\n", "u1,Brot,1,2,3,4\n"
    if mixed:  # read from a copy
        lines[1] = lines[1].replace("\n", "\r\n")
    lines[9] = lines[9].replace(LOG[8]["time"], "soon")
    (tmp_path / "log.csv").write_text("".join(lines), encoding="utf-8", newline="")
    said: list[str] = []
    data = read(tmp_path, "log.csv", said)
    (tmp_path / "plain.csv").write_text("".join([*lines[:6], *lines[8:]]), encoding="utf-8", newline="")
    assert data.manifest.fingerprint == read(tmp_path, "plain.csv").manifest.fingerprint != expected
    assert (data.manifest.cleaning["damaged row"], data.manifest.cleaning["rows read"]) == (2, 40)
    warning = next(line for line in said if "too many or too few" in line)
    assert f"line 7 of {tmp_path / 'log.csv'}: 'u1,Brot'" in warning
    assert "line 8" in warning
    message = refused(tmp_path, "log.csv", input={"max_bad_share": 0.01})
    assert f"line 7 of {tmp_path / 'log.csv'}" in message
    assert "damaged row" in message
    assert f"line 7 of {tmp_path / 'log.csv'}" in refused(tmp_path, "log.csv", input={"max_bad_share": 0})


def test_the_row_of_an_offender_counts_the_ragged_ones_before_it(tmp_path):
    lines = [line if number == 0 else line.replace("1772", "soon") for number, line in enumerate(csv(LOG).splitlines())]
    lines[1] = "u1,Brot"
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert f"row 2 of {tmp_path / 'log.csv'}: column 'time'" in refused(tmp_path, "log.csv")


def test_an_open_quote_is_no_ragged_row(tmp_path):
    lines = csv(LOG).splitlines(keepends=True)
    lines[3], lines[5] = "u1,Brot\n", 'u1,"Brot,5,6\n'
    (tmp_path / "log.csv").write_text("".join(lines), encoding="utf-8")
    assert "quote" in refused(tmp_path, "log.csv")


def orders(tmp_path: Path) -> dict[str, Any]:
    """LOG as lines of orders, in which user and time stand."""
    by_order = [{"order_id": str(k), "user": row["user"], "time": row["time"], "note": "x"} for k, row in enumerate(LOG)]
    lines = [{"order_id": str(k), "item": row["item"], "price": row["price"]} for k, row in enumerate(LOG)]
    (tmp_path / "orders.csv").write_text(csv(by_order, ";"), encoding="utf-8")
    (tmp_path / "lines.csv").write_text(csv(lines), encoding="utf-8")
    return {"input": {"join": {"file": "orders.csv", "on": "order_id", "delimiter": ";"}}, "columns": PRICES}


def test_lines_joined_with_their_orders(tmp_path):
    expected = fingerprint(tmp_path, LOG, columns=PRICES)
    sections = orders(tmp_path)
    data = read(tmp_path, "lines.csv", **sections)
    assert data.manifest.fingerprint == expected
    assert str(tmp_path) not in data.manifest.model_dump_json()
    assert "orders.csv" not in data.manifest.model_dump_json()
    with (tmp_path / "lines.csv").open("a") as file:
        file.write("999,Brot,1\n,Brot,1\n")
    data = read(tmp_path, "lines.csv", **sections)
    assert data.manifest.fingerprint == expected
    assert data.manifest.cleaning["no match in input.join"] == 2


def test_a_join_with_other_names_and_a_name_of_both(tmp_path):
    expected = fingerprint(tmp_path, LOG)
    sections = orders(tmp_path)
    for name, old, new in (("orders.csv", "order_id;user;time", "id;user;time"), ("lines.csv", "price", "time")):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace(old, new))
    join = {**sections["input"]["join"], "id": "id"}
    data = read(tmp_path, "lines.csv", input={"join": join}, columns={"timestamp": "join.time"})
    assert data.manifest.fingerprint == expected
    message = refused(tmp_path, "lines.csv", input={"join": {**join, "id": "ids"}}, columns={"timestamp": "join.time"})
    assert "no column 'ids', which input.join.id names" in message


def test_two_orders_of_one_number_are_refused(tmp_path):
    sections = orders(tmp_path)
    with (tmp_path / "orders.csv").open("a") as file:
        file.write("7;u9;5;x\n")
    message = refused(tmp_path, "lines.csv", **sections)
    assert "2 rows have order_id '7'" in message
    assert "orders.csv" in message
    sections["input"]["join"]["file"] = "order.csv"
    assert "input.join.file: no such file" in refused(tmp_path, "lines.csv", **sections)


def test_order_numbers_make_baskets(tmp_path):
    rows = [{"user": f"u{k % 3}", "item": f"i{k % 11}", "time": str(1 + k // 12)} for k in range(120)]
    (tmp_path / "log.csv").write_text(csv(rows))
    data = read(tmp_path, "log.csv", columns={"timestamp": {"name": "time", "unit": "order"}})
    assert data.manifest.times_are_places
    assert data.manifest.config["statistics"]["graph"]["kind"] == "basket"
    assert [event[1] for event in contents(data)[0][3]] == sorted(int(row["time"]) for row in rows if row["user"] == "u0")
    message = refused(tmp_path, "log.csv", columns={"timestamp": {"name": "time", "unit": "place"}})
    assert "unit: order" in message
    time = refused(tmp_path, "log.csv", columns={"timestamp": {"name": "time", "unit": "order"}}, split={"kind": "time"})
    assert "columns.timestamp.unit order has places only" in time


@pytest.mark.parametrize(
    ("day", "clock", "timestamp", "second"),
    [
        ("3", "1631", {"unit": "day"}, 3 * 86400 + 16 * 3600 + 31 * 60),
        ("3", "5", {"unit": "day"}, 3 * 86400 + 5 * 60),
        ("711", "163105", {"unit": "day"}, 711 * 86400 + 16 * 3600 + 31 * 60 + 5),
        ("0", "8:05", {"unit": "day"}, 8 * 3600 + 5 * 60),
        ("2011-01-04", "08:26", {}, 1294129560),
        ("2011-01-04 00:00:00", "8:26:05", {}, 1294129565),
        ("04.01.2011", "08:26", {"format": "%d.%m.%Y %H:%M"}, 1294129560),
        ("4/1/2011", "826", {"format": "%d/%m/%Y %H:%M"}, 1294129560),
        ("2011-01-04", "09:26", {"time_zone": "Europe/Berlin"}, 1294129560),
    ],
)
def test_a_day_beside_a_time_of_day(tmp_path, day, clock, timestamp, second):
    rows = [{"user": "u", "item": f"i{k}", "day": day, "at": clock} for k in range(3)]
    rows.append({"user": "u", "item": "x", "day": day, "at": "2461"})
    (tmp_path / "log.csv").write_text(csv(rows))
    data = read(tmp_path, "log.csv", columns={"timestamp": {"name": "day", "clock": "at", **timestamp}})
    assert [event[1] for event in contents(data)[0][3]] == [second] * 3
    assert data.manifest.cleaning["unreadable timestamp"] == 1


def test_a_day_number_alone_and_a_clock_without_a_day(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,DAY,at\nu,a,5,1\nu,b,7,1\nu,c,x,1\n")
    data = read(tmp_path, "log.csv", columns={"timestamp": {"name": "DAY", "unit": "day"}})
    assert [event[1] for event in contents(data)[0][3]] == [5 * 86400, 7 * 86400]
    assert data.manifest.cleaning["unreadable timestamp"] == 1
    assert "clock goes with a day" in refused(
        tmp_path, "log.csv", columns={"timestamp": {"name": "DAY", "clock": "at", "unit": "s"}}
    )
    assert "unit: day" in refused(tmp_path, "log.csv", columns={"timestamp": "DAY"})


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        *(
            (text, text)
            for text in ("%d/%m/%Y %H:%M", "*.csv", "|", ",", "#", "'", '"', ":", "::", "@@", "?.csv", "||", "&", "\\N")
        ),
        ("[a, NaN]", ["a", "NaN"]),
        ("'|'", "|"),
        ('"\\t"', "\t"),
        ("1e-3", 0.001),
        ("null", None),
        ("~", None),
    ],
)
def test_what_is_typed_on_the_command_line(typed, value):
    assert parse_overrides(["--a.b", typed]) == {"a.b": value} == parse_overrides([f"--a.b={typed}"])
