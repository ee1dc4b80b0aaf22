"""Facts about DuckDB that prepare rests on, and the steps checked alone."""

from __future__ import annotations

import numpy as np
import pytest

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.prepare.config.sections import EngineSection
from attnrec_dist.prepare.engines.duckdb import DuckEngine


@pytest.fixture(params=[1, 2, 4])
def engine(tmp_path, request):
    with DuckEngine(EngineSection(memory_limit="300MB", threads=request.param), tmp_path) as engine:
        yield engine


def test_ordered_batches_are_in_order(engine):
    engine.table("t", "SELECT hash(range) % 1000000007 AS k FROM range(600000)")
    values = np.concatenate([batch.column(0).to_numpy() for batch in engine.ordered_batches("SELECT k FROM t ORDER BY k")])
    assert len(values) == 600_000
    assert (np.diff(values.astype(np.int64)) >= 0).all()


def test_text_is_ordered_by_its_utf8_bytes(engine):
    words = ["Z", "a", "B", "ä", "aa", "é", "日本", "\U0001f600", "", "z", "0", "00", " "]
    listed = ", ".join(f"('{word}')" for word in words)
    assert [row[0] for row in engine.rows(f"SELECT w FROM (VALUES {listed}) AS t(w) ORDER BY w")] == sorted(words)


def test_more_rows_than_memory_spill(tmp_path):
    with DuckEngine(EngineSection(memory_limit="60MB", threads=1), tmp_path) as engine:
        engine.table("t", "SELECT DISTINCT md5(CAST(range AS VARCHAR)) AS k FROM range(1000000)")
        assert engine.row("SELECT count(*) FROM t") == (1_000_000,)


def test_many_users_are_numbered_as_a_plain_sort_would(tmp_path):
    import hashlib

    from prepare_helpers import run, write_csv

    rows = [{"user": f"user {k}", "item": "i", "time": "1"} for k in range(20_000)]
    file = write_csv(tmp_path / "log.csv", rows)
    run([file], tmp_path / "data", engine={"threads": 2}, split={"train": 1, "validation": 0, "test": 0})
    ids = DataSet.open(tmp_path / "data").users()["id"].to_pylist()
    assert ids == sorted((row["user"] for row in rows), key=lambda name: hashlib.md5(name.encode()).hexdigest())
