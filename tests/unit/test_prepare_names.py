"""Columns are found by their name to the letter, whatever the format; a name that two have is refused where it is read."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_helpers import contents, run

from attnrec_dist.errors import ConfigError, InputError

ALL = {"train": 1, "validation": 0, "test": 0}
NAMES = ["U", "u", "I", "i", "T", "t", "P", "p"]
VALUES = ["X", "anna", "Y", "hat", "5", "1000", "7", "2"]
COLUMNS = {"user": "u", "item": "i", "timestamp": "t", "numeric": ["p"]}


def write(path: Path, names: list[str], rows: list[list[str]]) -> Path:
    if path.suffix == ".csv":
        path.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array(list(column)) for column in zip(*rows)], names=names), path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("order", [1, -1])
def test_names_that_differ_in_case_alone(tmp_path, suffix, order):
    log = write(tmp_path / f"log.{suffix}", NAMES[::order], [VALUES[::order]])
    items = write(tmp_path / f"items.{suffix}", ["ID", "id", "Name", "name"][::order], [["hat", "x", "n", "N"][::order]])
    asked = {"file": str(items), "id": "ID", "columns": {"title": "Name"}}
    data = run([log], tmp_path / "data", columns=COLUMNS, split=ALL, items=asked)
    assert contents(data) == [("anna", 1, 1, [("hat", 1000, "", 2.0)])]
    assert data.items()["title"].to_pylist() == ["n"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_texts_of_users_and_items_for_features(tmp_path, suffix):
    draw = random.Random(0)
    rows = [[f"u{k % 5}", f"i{k % 5}", str(1000 + k), draw.choice(["buy", "view"])] for k in range(120)]
    log = write(tmp_path / f"log.{suffix}", ["user", "item", "time", "event"], rows)
    users = write(tmp_path / f"users.{suffix}", ["Age", "age", "USER", "user"], [["9", str(k), "x", f"u{k}"] for k in range(5)])
    data = run(
        [log],
        tmp_path / "data",
        columns={"event": "event"},
        users={"file": str(users), "id": "user", "columns": {"age": "age"}},
        label={"kind": "follow_up", "on": "view", "events": ["buy"], "within": "6s"},
        features={"age": {"kind": "user", "column": "age", "type": "categorical", "min_count": 1}},
    )
    words = pq.read_table(tmp_path / "data" / data.manifest.examples.vocabulary.name)
    assert set(words["value"].to_pylist()) == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_name_that_two_columns_have(tmp_path, suffix):
    names = ["u", "i", "t", "p", "x", "x", "", ""]
    rows = [["anna", "hat", "1000", "2", "a", "b", "", ""]]
    log = write(tmp_path / f"log.{suffix}", names, rows)
    assert contents(run([log], tmp_path / "data", columns=COLUMNS, split=ALL)) == [("anna", 1, 1, [("hat", 1000, "", 2.0)])]
    with pytest.raises(InputError, match=r"2 columns are named 'x', which columns\.user names; rename one") as caught:
        run([log], tmp_path / "other", columns={**COLUMNS, "user": "x"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_directory_called_like_a_column_does_not_stand_in_for_it(tmp_path, suffix):
    (tmp_path / "u=5").mkdir()
    log = write(tmp_path / "u=5" / f"log.{suffix}", ["u", "i", "t", "p"], [["anna", "hat", "1000", "2"]])
    assert contents(run([log], tmp_path / "data", columns=COLUMNS, split=ALL)) == [("anna", 1, 1, [("hat", 1000, "", 2.0)])]


def test_an_item_file_in_parts_of_other_columns(tmp_path):
    log = write(tmp_path / "log.csv", ["u", "i", "t", "p"], [["anna", "hat", "1000", "2"], ["anna", "cap", "1001", "2"]])
    write(tmp_path / "items-1.csv", ["id", "name"], [["hat", "a hat"]])
    write(tmp_path / "items-2.csv", ["name", "more", "id"], [["a cap", "", "cap"]])
    items = {"file": str(tmp_path / "items-*.csv"), "id": "id", "columns": {"title": "name"}}
    data = run([log], tmp_path / "data", columns=COLUMNS, split=ALL, items=items)
    assert sorted(data.items()["title"].to_pylist()) == ["a cap", "a hat"]


def test_text_that_a_parquet_file_calls_bytes(tmp_path):
    ids = pa.array(["ä\\".encode()], pa.binary())
    table = pa.table({"u": ids, "i": pa.array(["hat"]), "t": pa.array([1000]), "p": pa.array([2.0])})
    pq.write_table(table, tmp_path / "log.parquet")
    assert contents(run([tmp_path / "log.parquet"], tmp_path / "data", columns=COLUMNS, split=ALL))[0][0] == "ä\\"
    pq.write_table(table.set_column(0, "u", pa.array([b"\xff\xfe"], pa.binary())), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"log\.parquet: cannot be read"):
        run([tmp_path / "log.parquet"], tmp_path / "other", columns=COLUMNS)


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.list_(pa.int64(), 2)])
def test_a_column_of_lists(tmp_path, kind):
    table = pa.table({"u": ["a"], "i": pa.array([[1, 2]], kind), "t": [1000], "p": [2.0]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(
        ConfigError, match=r"log\.parquet: column 'i', which columns\.item names, holds .*list.* only plain values"
    ):
        run([tmp_path / "log.parquet"], tmp_path / "data", columns=COLUMNS)
