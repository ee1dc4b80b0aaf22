"""Opening, checking and reading a data set. The files are read back with pyarrow alone as oracle."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_helpers import edit_manifest, flip_byte, run, write_csv

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import DataError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    draw = random.Random(0)
    rows = [
        {
            "user": f"ü{draw.randrange(50)}",
            "item": str(draw.randrange(30)),
            "time": str(draw.randrange(10**6)),
            "quantity": str(k % 9),
        }
        for k in range(700)
    ]
    (folder / "items.csv").write_text("id,name\n" + "".join(f"{k},title {k}\n" for k in range(20)))
    items = {"file": str(folder / "items.csv"), "id": "id", "columns": {"title": "name"}}
    sections = {"columns": {"numeric": ["quantity"]}, "output": {"events_per_shard": 120}, "items": items}
    return run([write_csv(folder / "log.csv", rows)], folder / "data", **sections)


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole.path, tmp_path / "data")


@pytest.fixture(scope="module")
def plain(whole) -> list[dict]:
    """All rows by pyarrow alone, as the format's description has it."""
    rows = []
    for shard in json.loads((whole.path / "manifest.json").read_text())["shards"]:
        with pa.OSFile(str(whole.path / "sequences" / shard["name"])) as file:
            rows += pa.ipc.open_stream(file).read_all().to_pylist()
    return rows


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_rows_come_in_the_order_asked_for(whole, plain, data):
    wanted = np.array(data.draw(st.lists(st.integers(0, whole.num_rows - 1), max_size=40)), dtype=np.int64)
    rows = whole.rows(wanted)
    assert rows.users.tolist() == wanted.tolist()
    assert rows.offsets.tolist() == np.cumsum([0, *(len(plain[k]["items"]) for k in wanted)]).tolist()
    for field, column in {"items": rows.items, "times": rows.times, "events": rows.events}.items():
        assert column.tolist() == [value for k in wanted for value in plain[k][field]]
    assert rows.numeric["quantity"].tolist() == [value for k in wanted for value in plain[k]["numeric.quantity"]]
    assert rows.train_end.tolist() == [plain[k]["train_end"] for k in wanted]
    assert rows.valid_end.tolist() == [plain[k]["valid_end"] for k in wanted]


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_pieces_are_slices_of_the_rows(whole, plain, data):
    wanted = data.draw(st.lists(st.integers(0, whole.num_rows - 1), max_size=20))
    start = [data.draw(st.integers(0, len(plain[k]["items"]))) for k in wanted]
    stop = [data.draw(st.integers(first, len(plain[k]["items"]))) for k, first in zip(wanted, start)]
    tokens = whole.pieces(*(np.array(each, np.int64) for each in (wanted, start, stop)))
    assert {name: values.dtype.name for name, values in tokens.items()} == {
        "items": "int32",
        "times": "int64",
        "events": "int8",
        "numeric.quantity": "float32",
    }
    for name, values in tokens.items():
        assert values.tolist() == [value for k, i, j in zip(wanted, start, stop) for value in plain[k][name][i:j]]


def test_types(whole):
    rows = whole.rows(np.arange(3))
    types = {
        name: getattr(rows, name).dtype.name
        for name in ("users", "train_end", "valid_end", "offsets", "items", "times", "events")
    }
    assert list(types.values()) == ["int64", "int32", "int32", "int64", "int32", "int64", "int8"]
    assert rows.numeric["quantity"].dtype == np.float32


@pytest.mark.parametrize("batch_rows", [1, 7, 50, 1000])
def test_scan_reads_every_row_once_in_order(whole, plain, batch_rows):
    batches = list(whole.scan(batch_rows))
    assert len(whole.manifest.shards) > 3
    assert [batch.first for batch in batches] == list(range(0, whole.num_rows, batch_rows))
    assert np.concatenate([batch.users for batch in batches]).tolist() == list(range(whole.num_rows))
    assert np.concatenate([batch.items for batch in batches]).tolist() == [item for row in plain for item in row["items"]]


def test_a_row_that_is_not_there(whole):
    for row in (-1, whole.num_rows):
        with pytest.raises(IndexError, match=str(row)):
            whole.rows(np.array([0, row]))


def test_ids_and_titles(whole):
    users = pq.read_table(whole.path / "users.parquet")["id"].to_pylist()
    items = pq.read_table(whole.path / "items.parquet")["id"].to_pylist()
    assert whole.user_index([users[3], "nobody", users[0]]).tolist() == [3, -1, 0]
    assert whole.item_index([items[2], "", items[0]]).tolist() == [2, -1, 0]
    assert whole.item_ids(np.array([4, 1, 4])) == [items[4], items[1], items[4]]
    expected = [f"title {name}" if int(name) < 20 else None for name in items]
    assert whole.titles(np.arange(len(items))) == expected
    assert whole.user_index([]).tolist() == []


def refused(path, *parts: str, verify: bool = True) -> None:
    with pytest.raises(DataError) as caught:
        DataSet.open(path, verify=verify)
    missing = [part for part in parts if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


@pytest.mark.parametrize("name", ["sequences/part-00002.arrow", "items.parquet", "users.parquet"])
def test_a_flipped_byte(copy, name):
    size = (copy / name).stat().st_size
    flip_byte(copy / name, size // 2)
    refused(copy, name, "damaged: bytes 0 to ", "prepare the data set again")
    DataSet.open(copy, verify=False)


def test_ranks_share_the_checking(copy):
    flip_byte(copy / "sequences" / "part-00001.arrow", 500)
    data = DataSet.open(copy, verify=False)
    data.verify(0, 2)
    with pytest.raises(DataError, match="part-00001"):
        data.verify(1, 2)


def test_a_truncated_shard_is_seen_without_checksums(copy):
    file = copy / "sequences" / "part-00001.arrow"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(size - 8)
    refused(copy, "part-00001.arrow", str(size), str(size - 8), verify=False)


def test_a_missing_shard(copy):
    (copy / "sequences" / "part-00001.arrow").unlink()
    refused(copy, "part-00001.arrow", "missing", verify=False)


def test_no_data_set(tmp_path, copy):
    refused(tmp_path / "nowhere", "no such data set", "attnrec prepare")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is a directory")
    (copy / "manifest.json").unlink()
    refused(copy, "unfinished", "manifest.json")


def test_another_format_version(copy):
    for version in (1, 99):
        edit_manifest(copy, format_version=version)
        refused(copy, str(version), "reads 2", "prepare the data set again")


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"format_version": 2}'])
def test_a_damaged_manifest(copy, text):
    (copy / "manifest.json").write_text(text)
    refused(copy, "manifest.json", "prepare the data set again")


@pytest.mark.parametrize("name", ["../x", "..", ".hidden", "a/b", "", "part 1", "part\n", "/etc/passwd", "täil"])
def test_file_names_that_lead_elsewhere_are_refused(copy, name):
    shards = json.loads((copy / "manifest.json").read_text())["shards"]
    edit_manifest(copy, shards=[{**shards[0], "name": name}, *shards[1:]])
    refused(copy, "refused", repr(name))


def test_a_wrong_row_count_is_noticed_on_reading(copy):
    shards = json.loads((copy / "manifest.json").read_text())["shards"]
    edit_manifest(copy, shards=[{**shards[0], "rows": shards[0]["rows"] + 1}, *shards[1:]])
    with pytest.raises(DataError, match="rows"):
        DataSet.open(copy).rows(np.array([0]))


def test_the_reader_in_the_docs_reads_it_and_finds_the_fingerprint(whole, plain):
    page = (Path(__file__).parents[2] / "docs" / "data-format.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    manifest, rows = names["read"](whole.path)
    assert rows == plain
    assert names["fingerprint"](whole.path) == manifest["fingerprint"]
