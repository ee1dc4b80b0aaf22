"""`attnrec recommend` on several processes: the file of one, whoever was killed, whoever goes on."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from launching import Trial

pytestmark = pytest.mark.distributed
PARTS = 10  # of 300 customers: scripts/recorded.py


def arguments(trial: Trial, output: Path, *options: str) -> list[str]:
    return ["recommend", str(trial.run_dir), "--output", str(output), "--top_k", "4", *options]


@pytest.fixture(scope="module")
def lists(whole: Callable[[int], Trial], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes: lists.parquet, .csv and .jsonl."""
    folder = tmp_path_factory.mktemp("lists")
    for suffix in ("parquet", "csv", "jsonl"):
        whole(1).start_command(arguments(whole(1), folder / f"lists.{suffix}"), launcher="plain").wait()
    return folder


def assert_same(output: Path, lists: Path) -> None:
    expected = lists / f"lists{output.suffix}"
    if output.suffix == ".parquet":
        assert pq.read_table(output).equals(pq.read_table(expected))
    assert output.read_bytes() == expected.read_bytes()
    assert [path.name for path in output.parent.iterdir()] == [output.name], "nothing is left beside it"


@pytest.mark.parametrize(
    ("world", "launcher", "suffix"),
    [
        (2, "forked", "parquet"),
        (2, "forked", "csv"),
        (3, "forked", "jsonl"),
        pytest.param(2, "accelerate", "parquet", marks=pytest.mark.slow),
    ],
)
def test_several_processes_write_what_one_writes(whole, lists, tmp_path, world, launcher, suffix):
    output = tmp_path / f"lists.{suffix}"
    text = whole(1).start_command(arguments(whole(1), output, "--show", "2"), world, launcher).wait()
    assert_same(output, lists)
    assert text.count("\ncustomer u") == 2
    assert text.count(": 300 customers, 4 items each") == 1
    assert "goes on" not in text


@pytest.mark.parametrize(("before", "after", "suffix"), [(2, 1, "parquet"), (2, 3, "csv"), (1, 2, "jsonl")])
def test_a_killed_job_goes_on_with_the_parts_that_are_done(whole, lists, tmp_path, before, after, suffix):
    output = tmp_path / f"lists.{suffix}"
    job = whole(1).start_command(arguments(whole(1), output), before, pause_at=f"part:5:{(before + 1) % 2 if before > 1 else 0}")
    job.wait_paused()
    job.kill()
    (folder,) = tmp_path.iterdir()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert {f"{number:06d}.parquet" for number in range(4)} <= kept.keys()
    assert "000005.parquet" not in kept

    again = whole(1).start_command(arguments(whole(1), output), after, pause_at="part:5:0" if after == 1 else "")
    if after == 1:
        again.wait_paused()
        assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept, "none of them is made again"
        again.release()
    text = again.wait()
    assert f"{output}: goes on: {len(kept)} of {PARTS} parts are done\n" in text
    assert_same(output, lists)


def test_a_lost_process_ends_the_others_with_a_line(whole, lists, tmp_path):
    output = tmp_path / "lists.parquet"
    job = whole(1).start_command(arguments(whole(1), output), 2, pause_at="part:3:1")
    job.wait_paused()
    job.signal(signal.SIGKILL, rank=1)
    text = job.wait(expect=None, timeout=60)
    assert "rank 0 lost another process of the job" in text
    assert not output.exists()
    text = whole(1).start_command(arguments(whole(1), output), 2).wait()
    assert re.search(rf"goes on: [34] of {PARTS} parts are done", text)
    assert_same(output, lists)


@pytest.mark.parametrize("world", [1, 2])
def test_one_that_is_asked_to_stop_says_so_and_goes_on(whole, lists, tmp_path, world):
    output = tmp_path / "lists.parquet"
    launcher = "plain" if world == 1 else "forked"
    job = whole(1).start_command(arguments(whole(1), output), world, launcher, pause_at="part:3:" + str(world - 1))
    job.wait_paused()
    job.signal(signal.SIGTERM, rank=world - 1)
    job.release()
    text = job.wait(expect=75 if world == 1 else None)
    assert f"{output}: stopped (signal SIGTERM); the same command goes on with the parts that are done\n" in text
    text = whole(1).start_command(arguments(whole(1), output), world, launcher).wait()
    assert re.search(rf"goes on: [45] of {PARTS} parts are done", text), "rank 0 may have made one more"
    assert_same(output, lists)


def test_what_cannot_be_done_is_told_once(whole, tmp_path):
    trial = whole(1)
    for words, expected in (
        (["recommend", str(trial.run_dir), "--users", "u1"], "lists are printed by one process: name a file with --output"),
        (arguments(trial, tmp_path / "lists.txt"), "the name tells the format"),
        (arguments(trial, tmp_path / "lists.csv", "--exclude", str(tmp_path / "x")), "no such file"),
    ):
        text = trial.start_command(words, 2).wait(expect=None)
        assert text.count("attnrec: error:") == 1, text
        assert expected in text
    assert not any(tmp_path.iterdir())
