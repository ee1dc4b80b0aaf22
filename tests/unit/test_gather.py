"""Rows and pieces of rows out of Arrow batches, against plain Python lists; both ways of taking pieces."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from attnrec_dist.data import gather
from attnrec_dist.data.gather import Gather

ROWS = st.lists(st.lists(st.integers(-5, 5), max_size=4), min_size=1, max_size=12)


def taken_from(rows, per_batch):
    """A Gather over these rows, `per_batch` a batch; each row's number is its plain column."""
    batches = []
    for first in range(0, len(rows), per_batch):
        part = rows[first : first + per_batch]
        columns = {
            "number": pa.array(range(first, first + len(part)), pa.int64()),
            "one": pa.array(part, pa.list_(pa.int32())),
            "other": pa.array([[value / 2 for value in row] for row in part], pa.list_(pa.float64())),
        }
        batches.append(pa.RecordBatch.from_pydict(columns))
    return Gather(batches, ["number"], ["one", "other"])


@pytest.mark.parametrize("few", [0, 32])
@given(rows=ROWS, per_batch=st.integers(1, 5), data=st.data())
@settings(deadline=None, max_examples=60)
def test_pieces_are_slices_of_the_rows(few, rows, per_batch, data):
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    start = [data.draw(st.integers(0, len(rows[row]))) for row in wanted]
    stop = [data.draw(st.integers(first, len(rows[row]))) for row, first in zip(wanted, start)]
    expected = [value for row, first, last in zip(wanted, start, stop) for value in rows[row][first:last]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "FEW_BATCHES", few)
        numbers = [np.array(each, np.int64) for each in (wanted, start, stop)]
        found = taken_from(rows, per_batch).pieces(*numbers)
    assert found["one"].tolist() == expected
    assert found["other"].tolist() == [value / 2 for value in expected]


@given(rows=ROWS, per_batch=st.integers(1, 5), data=st.data())
@settings(deadline=None, max_examples=60)
def test_rows_are_whole(rows, per_batch, data):
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    offsets, columns = taken_from(rows, per_batch).rows(np.array(wanted, np.int64))
    assert columns["number"].tolist() == wanted
    assert np.diff(offsets).tolist() == [len(rows[row]) for row in wanted]
    assert columns["one"].tolist() == [value for row in wanted for value in rows[row]]
