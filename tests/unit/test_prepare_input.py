"""Bad input and bad configs: each message says what, where and what to type next, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_helpers import config_of, run, write_csv

from attnrec_dist.errors import AttnrecError, ConfigError, InputError, StorageError
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.prepare.report import summary
from attnrec_dist.settings import parse_yaml

GOOD = [{"user": f"u{k % 7}", "item": f"i{k % 5}", "time": str(1000 + k), "event": "view", "quantity": "1"} for k in range(40)]
ALL = {"train": 1, "validation": 0, "test": 0}


def message_of(tmp_path: Path, files: list[Path], kind: type[AttnrecError] = InputError, **sections) -> str:
    output = tmp_path / "data"
    with pytest.raises(kind) as caught:
        run(files, output, **sections)
    assert caught.value.exit_code == (1 if kind is StorageError else 2)
    assert not output.exists()
    assert not list(tmp_path.glob(".*preparing"))
    return str(caught.value)


def has(message: str, *parts: str) -> None:
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in: {message}"


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    file = write_csv(tmp_path / "log.csv", GOOD)
    message = message_of(tmp_path, [file], columns={"item": "Items"})
    has(message, str(file), "'Items'", "columns.item", "did you mean item?", "user, item, time, event, quantity")


@pytest.mark.parametrize(("delimiter", "written"), [(";", "';'"), ("|", "'|'"), ("\t", '"\\t"')])
def test_another_delimiter_is_seen_in_the_header(tmp_path, delimiter, written):
    file = tmp_path / "log.csv"
    file.write_text("\n".join(delimiter.join(line) for line in (GOOD[0], *(row.values() for row in GOOD))) + "\n")
    has(message_of(tmp_path, [file]), "no column 'user'", f"set input.delimiter: {written}")
    assert parse_yaml(written, "t") == delimiter
    run([file], tmp_path / "data", input={"files": [str(file)], "delimiter": delimiter}, split=ALL)
    file.write_text(f"user{delimiter}item\na{delimiter}b\n")
    has(message_of(tmp_path / "b", [file]), f"set input.delimiter: {written}")
    file.write_text("users\n1\n")
    assert "input.delimiter" not in message_of(tmp_path / "b", [file])


def test_unusual_times_are_warned_of(tmp_path):
    for first, unusual in {600_000_000: True, 1_300_000_000: False, 4_200_000_000: True}.items():
        log = [{**row, "time": str(first + place)} for place, row in enumerate(GOOD)]
        data = run([write_csv(tmp_path / "log.csv", log)], tmp_path / f"{first}", split=ALL)
        assert ("is columns.timestamp the right column" in " ".join(summary(data.manifest).split())) == unusual


def test_one_of_two_files_lacks_the_column(tmp_path):
    files = [write_csv(tmp_path / "a.csv", GOOD), write_csv(tmp_path / "b.csv", GOOD, columns=["user", "item"])]
    has(message_of(tmp_path, files), "b.csv", "'time'", "columns.timestamp")


def test_an_empty_file(tmp_path):
    (tmp_path / "log.csv").touch()
    has(message_of(tmp_path, [tmp_path / "log.csv"]), "log.csv", "empty")


def test_a_header_and_nothing_else(tmp_path):
    has(message_of(tmp_path, [write_csv(tmp_path / "log.csv", [])]), "log.csv", "no rows")


def test_text_in_the_timestamp_names_file_row_column_and_value(tmp_path):
    good = write_csv(tmp_path / "a.csv", GOOD[:5])
    bad = write_csv(tmp_path / "b.csv", [GOOD[0], *({**row, "time": "yesterday"} for row in GOOD)])
    message = message_of(tmp_path, [good, bad], input={"files": [str(good), str(bad)], "max_bad_share": 0.5})
    has(message, "40 of 46", "max_bad_share 0.5", "unreadable timestamp", f"row 2 of {bad}", "'time'", "'yesterday'")
    has(message, "columns.timestamp.unit", "columns.timestamp.format")


def test_a_share_of_bad_rows_within_the_limit_is_only_counted(tmp_path):
    bad = write_csv(tmp_path / "b.csv", [*GOOD, {**GOOD[0], "time": "yesterday"}])
    data = run([bad], tmp_path / "data", input={"files": [str(bad)], "max_bad_share": 0.1})
    assert data.manifest.cleaning["unreadable timestamp"] == 1


def test_no_row_left_shows_the_counts(tmp_path):
    file = write_csv(tmp_path / "log.csv", GOOD)
    message = message_of(tmp_path, [file], filters={"where": {"quantity": {"min": 5}}})
    has(message, "no row is left", "out of bounds", "40", "filters.where", f"row 1 of {file}", "'quantity'", "'1'")


@pytest.mark.parametrize("content", [b"", b"user,item,time\nu,i,1\n", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_not_a_parquet_file(tmp_path, content):
    (tmp_path / "log.parquet").write_bytes(content)
    has(message_of(tmp_path, [tmp_path / "log.parquet"]), "log.parquet", "cannot be read as Parquet", "input.format")


def test_a_truncated_parquet_page(tmp_path):
    draw = random.Random(0)
    table = pa.table({name: [str(draw.random()) for _ in range(5000)] for name in ("user", "item", "time")})
    pq.write_table(table, tmp_path / "log.parquet")
    data = bytearray((tmp_path / "log.parquet").read_bytes())
    data[20:2000] = bytes(1980)
    (tmp_path / "log.parquet").write_bytes(data)
    has(message_of(tmp_path, [tmp_path / "log.parquet"]), "log.parquet")


@pytest.mark.parametrize("cut", [20, 3000])
def test_a_damaged_gz(tmp_path, cut):
    draw = random.Random(0)
    rows = [{"user": str(draw.random()), "item": str(draw.random()), "time": "5"} for _ in range(3000)]
    whole = gzip.compress(write_csv(tmp_path / "x.csv", rows).read_bytes())
    (tmp_path / "log.csv.gz").write_bytes(whole[:cut])
    has(message_of(tmp_path, [tmp_path / "log.csv.gz"]), "log.csv.gz")


def test_plain_text_called_gz(tmp_path):
    file = write_csv(tmp_path / "log.csv.gz", GOOD)
    has(message_of(tmp_path, [file]), "log.csv.gz", "damaged or not what its name says")


@pytest.mark.parametrize("suffix", ["bz2", "xz", "zip"])
def test_a_compression_that_cannot_be_read(tmp_path, suffix):
    (tmp_path / f"log.csv.{suffix}").write_bytes(b"anything")
    has(message_of(tmp_path, [tmp_path / f"log.csv.{suffix}"]), "compression", "gzip or zstd")


def test_no_file_matches(tmp_path):
    write_csv(tmp_path / "purchases.csv", GOOD)
    has(message_of(tmp_path, [tmp_path / "purchase.csv"]), "no such file", "did you mean purchases.csv?", "input.files")
    has(message_of(tmp_path, [tmp_path / "*.parquet"]), "no file matches", "*.parquet")
    (tmp_path / "folder.d").mkdir()
    has(message_of(tmp_path, [tmp_path / "*.d"]), "folder.d holds no file to read")


def test_names_with_pattern_characters_are_taken_literally(tmp_path):
    file = write_csv(tmp_path / "log [1] it's*.csv", GOOD)
    write_csv(tmp_path / "log 1 it's2.csv", GOOD + GOOD)
    assert run([file], tmp_path / "data").manifest.cleaning["rows read"] == 40


def test_the_name_does_not_tell_the_format(tmp_path):
    file = write_csv(tmp_path / "log.txt", GOOD)
    has(message_of(tmp_path, [file]), "log.txt", "input.format")
    assert run([file], tmp_path / "data", input={"files": [str(file)], "format": "csv"}).num_rows == 7


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"user,item,time\na,b\n", ["log.csv", "line 2", "'a,b'", "damaged row"]),
        (b'user,item,time\na,"b,1\nc,d,1\n', ["log.csv", "quote"]),
        (b"user,item,time\na,\xff\xfe,1\n", ["log.csv", "line 2", "not UTF-8", "input.encoding"]),
        (b"\xff\xfeu\0s\0", ["log.csv", "UTF-16", "input.encoding: utf-16"]),
        (b"user,item,item,time\na,b,b,1\n", ["log.csv", "'item'", "input.names"]),
    ],
)
def test_broken_csv(tmp_path, text, parts):
    (tmp_path / "log.csv").write_bytes(text)
    has(message_of(tmp_path, [tmp_path / "log.csv"]), *parts)


def test_bom_and_crlf_are_no_trouble(tmp_path):
    (tmp_path / "log.csv").write_bytes(b'\xef\xbb\xbfuser,item,time\r\n"a",b,1\r\nc,d,2\r\n')
    data = run([tmp_path / "log.csv"], tmp_path / "data", split=ALL)
    assert sorted(data.users()["id"].to_pylist()) == ["a", "c"]


def test_too_many_kinds_of_events(tmp_path):
    file = write_csv(tmp_path / "log.csv", [{**GOOD[0], "event": f"e{k}"} for k in range(200)])
    has(message_of(tmp_path, [file], columns={"event": "event"}), "200 kinds", "columns.event.types")


def test_a_split_that_leaves_no_training_events(tmp_path):
    file = write_csv(tmp_path / "log.csv", GOOD)
    dates = {"validation_from": "1970-01-01", "test_from": "1970-01-02"}
    has(message_of(tmp_path, [file], split=dates), "no training event", "1970-01-01 00:00:00", "1970-01-01 00:16:40", "split.")
    has(message_of(tmp_path, [file], filters={"min_item_events": 100}), "no training event", "min_item_events 100")
    whole = {"filters": {"min_item_events": 100}, "split": {"kind": "leave_one_out"}}
    has(message_of(tmp_path, [file], **whole), "no event is left", "min_item_events 100")


def test_the_item_file_is_checked_too(tmp_path):
    log = write_csv(tmp_path / "log.csv", GOOD)
    (tmp_path / "items.csv").write_text("id,name\na,A\n")
    items = {"file": str(tmp_path / "items.csv"), "id": "id", "columns": {"title": "Name"}}
    has(message_of(tmp_path, [log], items=items), "items.csv", "'Name'", "items.columns.title", "did you mean name?")


def test_memory_limit_too_small(tmp_path):
    draw = random.Random(0)
    rows = [{"user": str(draw.random()), "item": str(draw.random()), "time": "5"} for _ in range(30_000)]
    file = write_csv(tmp_path / "log.csv", rows)
    has(message_of(tmp_path, [file], ConfigError, engine={"memory_limit": "1MB"}), "engine.memory_limit 1MB", "raise it")
    has(message_of(tmp_path, [file], ConfigError, engine={"memory_limit": "0GB"}), "engine.memory_limit 0GB", "raise it")


def test_a_memory_limit_that_no_machine_has(tmp_path):
    file = write_csv(tmp_path / "log.csv", GOOD)
    message = message_of(tmp_path, [file], ConfigError, engine={"memory_limit": "99999999999TB"})
    has(message, "engine.memory_limit 99999999999TB", "too large", "for example 2GB")


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"split": {"kind": "leave_one_out", "test_from": "2020-01-01"}}, ["split", "leave_one_out", "test_from"]),
        ({"split": {"test_from": "2020-01-01"}}, ["both validation_from and test_from"]),
        ({"split": {"validation_from": "soon", "test_from": "2020-01-01"}}, ["'soon'", "ISO 8601"]),
        ({"split": {"train": 0.7}}, ["add up to 1"]),
        ({"split": {"validation_from": "2020-01-01", "test_from": "2020-02-01", "train": 0.7}}, ["both dates and shares"]),
        ({"split": {"kind": "random"}}, ["split.kind", "time", "leave_one_out"]),
        ({"filters": {"min_items_events": 3}}, ["unknown key", "filters.min_item_events"]),
        ({"filters": {"where": {"quantity": {}}}}, ["filters.where.quantity", "min, max or both"]),
        ({"filters": {"where": {"quantity": {"min": 2, "max": 1}}}}, ["min 2.0 is above max 1.0"]),
        ({"columns": {"timestamp": {"name": "time", "unit": "s", "format": "%Y"}}}, ["columns.timestamp", "exclude each other"]),
        ({"columns": {"timestamp": {"name": "time", "time_zone": "London"}}}, ["unknown time zone", "Europe/London"]),
        ({"columns": {"event": {"name": "event", "types": ["a", "a"]}}}, ["listed twice"]),
        ({"input": {"names": ["user"]}}, ["header: false"]),
        ({"input": {"header": False}}, ["names must list"]),
        ({"items": {"file": "x", "id": "id", "columns": {"count": "n"}}}, ["'count'", "index, id, count"]),
        ({"engine": {"memory_limit": "2"}}, ["engine.memory_limit", "unit"]),
        ({"engine": {"memory_limit": "10000PB"}}, ["engine.memory_limit", "unit", "2GB"]),
    ],
)
def test_conflicting_settings(sections, parts):
    with pytest.raises(ConfigError) as caught:
        config_of([Path("log.csv")], **sections)
    has(str(caught.value), *parts)


def test_dates_in_the_wrong_order(tmp_path):
    file = write_csv(tmp_path / "log.csv", GOOD)
    dates = {"validation_from": "2020-02-01", "test_from": "2020-01-01"}
    has(message_of(tmp_path, [file], ConfigError, split=dates), "is after")


def test_a_full_disk_is_a_fault(tmp_path, monkeypatch):
    import errno

    from attnrec_dist.prepare import writing

    def full(rows, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(writing, "write_shard", full)
    has(message_of(tmp_path, [write_csv(tmp_path / "log.csv", GOOD)], StorageError), "No space left", "free some space")


def test_relative_paths_start_at_the_yaml_file(tmp_path):
    (tmp_path / "raw").mkdir()
    write_csv(tmp_path / "raw" / "log.csv", GOOD)
    config = config_of([Path("raw/log.csv")])
    assert prepare(config, tmp_path, tmp_path / "data").counts.rows == 7


def test_the_manifest_names_no_path(tmp_path):
    run([write_csv(tmp_path / "log.csv", GOOD)], tmp_path / "data")
    text = (tmp_path / "data" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert "log.csv" not in text
    assert json.loads(text)["config"]["columns"]["user"] == "user"
