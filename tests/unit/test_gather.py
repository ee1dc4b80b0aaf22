"""Rows and pieces of rows out of mapped Arrow files, against plain Python lists; of one file and of several."""

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from attnrec_dist.data.blocks import StoredFile
from attnrec_dist.data.gather import Gather, MappedFile
from attnrec_dist.prepare.shard_writer import record_of

ROWS = st.lists(st.lists(st.integers(-5, 5), max_size=4), min_size=1, max_size=12)
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("tiny", pa.list_(pa.int8())),
        ("one", pa.list_(pa.int32())),
        ("other", pa.list_(pa.float64())),
    ]
)


def taken_from(rows, per_batch, batches_per_file):
    """A Gather over these rows, `per_batch` a batch; each row's number is its plain column."""
    batches = []
    for first in range(0, len(rows), per_batch):
        part = rows[first : first + per_batch]
        columns = [range(first, first + len(part)), part, part, [[value / 2 for value in row] for row in part]]
        batches.append(pa.record_batch([pa.array(column, field.type) for column, field in zip(columns, SCHEMA)], schema=SCHEMA))
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for first in range(0, len(batches), batches_per_file):
            path = Path(directory) / f"{first}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
                for batch in batches[first : first + batches_per_file]:
                    writer.write_batch(batch)
            files.append(MappedFile.open(StoredFile(path, record_of(path, 0))))
        return Gather(files, SCHEMA)


@given(rows=ROWS, per_batch=st.integers(1, 5), per_file=st.integers(1, 12), data=st.data())
@settings(deadline=None, max_examples=100)
def test_pieces_are_slices_of_the_rows(rows, per_batch, per_file, data):
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    start = [data.draw(st.integers(0, len(rows[row]))) for row in wanted]
    stop = [data.draw(st.integers(first, len(rows[row]))) for row, first in zip(wanted, start)]
    expected = [value for row, first, last in zip(wanted, start, stop) for value in rows[row][first:last]]
    numbers = [np.array(each, np.int64) for each in (wanted, start, stop)]
    found = taken_from(rows, per_batch, per_file).pieces(*numbers)
    assert found["tiny"].tolist() == found["one"].tolist() == expected
    assert found["other"].tolist() == [value / 2 for value in expected]
    assert [found[name].dtype for name in ("tiny", "one", "other")] == [np.int8, np.int32, np.float64]


@given(rows=ROWS, per_batch=st.integers(1, 5), per_file=st.integers(1, 12), data=st.data())
@settings(deadline=None, max_examples=100)
def test_rows_are_whole(rows, per_batch, per_file, data):
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    reader = taken_from(rows, per_batch, per_file)
    offsets, columns = reader.rows(np.array(wanted, np.int64))
    assert reader.take(np.array(wanted, np.int64), ["number"])["number"].tolist() == wanted
    assert np.diff(offsets).tolist() == [len(rows[row]) for row in wanted]
    assert columns["one"].tolist() == [value for row in wanted for value in rows[row]]


def test_no_files_hold_no_rows():
    reader = Gather([], SCHEMA)
    nothing = np.empty(0, np.int64)
    assert reader.take(nothing, ["number"])["number"].dtype == np.int64
    assert reader.pieces(nothing, nothing, nothing)["tiny"].dtype == np.int8


def test_a_file_that_cannot_be_mapped_is_told(tmp_path):
    batch = pa.record_batch([pa.array(range(1000), pa.int64())], names=["number"])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(tmp_path / "a"), "wb") as file, pa.ipc.new_stream(file, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    with pytest.raises(pa.ArrowInvalid, match="compressed"):
        Gather([MappedFile.open(StoredFile(tmp_path / "a", record_of(tmp_path / "a", 0)))], batch.schema)
