"""Lists that are made in parts: a command that failed goes on, on its own parts only, and two do not meet."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnrec_dist.errors import StorageError
from attnrec_dist.recommendation import run as recommend_run
from attnrec_dist.storage.output_parts import Staging

SCHEMA = pa.schema({"n": pa.int64()})


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    """Of 60 customers in 6 parts, in a directory whose name is what Hive would read as a column."""
    monkeypatch.setattr(recommend_run, "PART", 10)
    (tmp_path / "user=5").mkdir()
    return tmp_path / "user=5" / "my lists.parquet"


@pytest.fixture
def stopped_at(monkeypatch):
    """stopped_at(n): the disk takes no part from n on; None: all."""
    write = Staging.write

    def stop(at: int | None) -> None:
        def failing(self, number, *rest):
            if number == at:
                raise StorageError("the disk is full")
            write(self, number, *rest)

        monkeypatch.setattr(Staging, "write", failing)

    return stop


def test_a_command_goes_on_where_it_failed(trained, attnrec, output, stopped_at):
    command = ["recommend", trained.run, "--output", output, "--top_k", 3]
    whole = attnrec(*command, "--show", 99)
    expected, size = pq.read_table(output), output.stat().st_size
    output.unlink()
    stopped_at(4)
    failed = attnrec(*command, "--show", 99)
    assert (failed.code, failed.out, failed.err) == (1, "", "attnrec: error: the disk is full\n")
    assert [path.name for path in output.parent.iterdir() if path == output] == []
    stopped_at(None)
    done = attnrec(*command, "--show", 99)
    assert done.err == f"{output}: goes on: 4 of 6 parts are done\n{whole.err}"
    assert done.out == whole.out
    assert done.out.count("\ncustomer ") == 60
    assert pq.read_table(output).equals(expected)
    assert (output.stat().st_size, list(output.parent.iterdir())) == (size, [output])


def test_another_run_or_option_does_not_take_over_what_is_there(trained, attnrec, output, stopped_at, tmp_path):
    (tmp_path / "few").write_text("item-1\n")
    stopped_at(4)
    command = ["recommend", trained.run, "--output", output]
    assert attnrec(*command).code == 1
    stopped_at(None)
    (left,) = output.parent.iterdir()
    several = (
        (["--top_k", 3], "top_k"),
        (["--new_only"], "new_only"),
        (["--exclude", tmp_path / "few"], "exclude"),
        (["--users", "u1", "u2"], "customers"),
        (["--checkpoint", "last"], None),
    )
    for options, key in several:
        done = attnrec(*command, *options)
        assert done.code == 0
        assert "goes on" not in done.err or key is None
        assert key is None or f"{left}: parts made with other settings ({key}) are left aside; rm -r '{left}'\n" in done.err
        assert pq.read_table(output).equals(only(trained, attnrec, tmp_path, options))
    left.joinpath("settings.json").write_text("{}")
    assert "left aside" in attnrec(*command, "--top_k", 3).err


def only(trained, attnrec, tmp_path, options) -> pa.Table:
    """What a command writes where nothing stands beside its output."""
    assert attnrec("recommend", trained.run, "--output", tmp_path / "alone.parquet", *options).code == 0
    return pq.read_table(tmp_path / "alone.parquet")


def test_a_failure_before_the_first_part_leaves_nothing(trained, attnrec, output, stopped_at):
    stopped_at(0)
    assert attnrec("recommend", trained.run, "--output", output).code == 1
    assert list(output.parent.iterdir()) == []


def test_a_damaged_part_is_told_and_its_removal_mends_it(trained, attnrec, output, stopped_at):
    stopped_at(4)
    command = ["recommend", trained.run, "--output", output]
    attnrec(*command)
    stopped_at(None)
    (part,) = output.parent.glob("*/000002.parquet")
    whole = part.read_bytes()
    for damaged in (b"", whole[:-9], whole[:150] + bytes([whole[150] ^ 1]) + whole[151:]):
        part.write_bytes(damaged)
        done = attnrec(*command)
        assert done.code == 1
        assert f"{part}: cannot be read (" in done.err
        assert "; remove it and run the same command again" in done.err
        assert not output.exists()
    part.unlink()
    assert "goes on: 5 of 6 parts" in attnrec(*command).err
    assert pq.read_table(output).num_rows == 600


def test_the_same_command_twice_at_once_is_refused(trained, attnrec, output, stopped_at):
    command = ["recommend", trained.run, "--output", output]
    stopped_at(4)
    attnrec(*command)
    stopped_at(None)
    (folder,) = output.parent.iterdir()
    with (folder / "lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # of a file that is opened apart, as by another process
        done = attnrec(*command)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"--output {output}: the same command is writing it already" in done.err
        assert attnrec(*command, "--top_k", 3).code == 0, "another one is not hindered"
    assert attnrec(*command).code == 0


def test_parts_are_joined_in_order_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("attnrec_dist.storage.output_parts.TOGETHER", 4)
    staging = Staging(tmp_path / "o.parquet", SCHEMA, {"a": 1})
    assert staging.open() == []
    for number in (11, 2, 0, 1, *range(3, 11)):
        staging.write(number, pa.table({"n": [number] * (number % 3)}, SCHEMA), {"number": number})
    (staging.folder / "000003.parquet.1-ab.partial").write_text("half")
    staging.close()
    assert staging.open() == list(range(12))
    with staging.joining() as write:
        for number in range(12):
            rows, notes = staging.read(number)
            assert notes == {"number": number}
            write(rows)
    staging.close()
    file = pq.ParquetFile(tmp_path / "o.parquet")
    assert file.read()["n"].to_pylist() == [1, 2, 2, 4, 5, 5, 7, 8, 8, 10, 11, 11]
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 5, 3]
    assert file.schema_arrow.metadata is None
    assert [path.name for path in tmp_path.iterdir()] == ["o.parquet"]
