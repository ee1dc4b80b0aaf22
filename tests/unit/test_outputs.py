"""Files that a user names: checked before the work, written aside, in the format that the name tells."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import socket
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnrec_dist.comparison import run as compare_runs
from attnrec_dist.errors import ConfigError, StorageError
from attnrec_dist.evaluation import run as evaluate_run
from attnrec_dist.explanation import run as explain_run
from attnrec_dist.recommendation import run as recommend_run
from attnrec_dist.storage.outputs import JSON, PICTURE, TABLE, check_output, replacing, table_writer, write_table

ROWS = [
    {"user": 'a "b", c', "rank": 1, "title": None, "score": 0.5, "shares": [("copy", 0.25), ("trend", 0.75)]},
    {"user": "ä", "rank": 2, "title": "NULL", "score": float("nan"), "shares": []},
]
SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "rank": pa.int32(),
        "title": pa.string(),
        "score": pa.float64(),
        "shares": pa.map_(pa.string(), pa.float64()),
    }
)


@pytest.mark.parametrize("name", ["o.parquet", "o.pq", "o.csv", "o.csv.gz", "o.jsonl", "O.JSONL.GZ"])
def test_the_name_tells_the_format(tmp_path, name):
    with table_writer(tmp_path / name, SCHEMA) as write:
        for row in ROWS:
            write(pa.Table.from_pylist([row], schema=SCHEMA))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    data = (tmp_path / name).read_bytes()
    data = gzip.decompress(data) if name.lower().endswith(".gz") else data
    if "p" in name:
        assert pq.read_table(tmp_path / name).schema == SCHEMA
    elif "csv" in name:
        found = list(csv.DictReader(data.decode().splitlines()))
        assert [row["user"] for row in found] == [row["user"] for row in ROWS]
        assert [json.loads(row["shares"]) for row in found] == [{"copy": 0.25, "trend": 0.75}, {}]
        assert [row["title"] for row in found] == ["", "NULL"]
    else:
        found = [json.loads(line, parse_constant=pytest.fail) for line in data.decode().splitlines()]
        assert found == [{**ROWS[0], "shares": {"copy": 0.25, "trend": 0.75}}, {**ROWS[1], "score": None, "shares": {}}]


def test_a_table_of_no_rows_has_its_header(tmp_path):
    write_table(tmp_path / "o.csv", SCHEMA.empty_table())
    assert (tmp_path / "o.csv").read_text() == '"user","rank","title","score","shares"\n'


def test_two_that_write_at_once_do_not_meet(tmp_path):
    """Both went through one temporary name: the result was a mixture, or one of them failed."""
    target, begun = tmp_path / "o.jsonl", threading.Barrier(2)

    def write(name: str) -> None:
        with table_writer(target, pa.schema({"who": pa.string()})) as rows:
            begun.wait()
            for _ in range(200):
                rows(pa.table({"who": [name] * 20}))
            begun.wait()

    both = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for each in both:
        each.start()
    for each in both:
        each.join()
    found = [json.loads(line)["who"] for line in target.read_text().splitlines()]
    assert (len(found), len(set(found))) == (4000, 1)
    assert list(tmp_path.iterdir()) == [target]


def test_no_link_is_followed_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    victim, target = tmp_path / "victim", tmp_path / "o.json"
    victim.write_text("mine")
    target.symlink_to(victim)
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    (tmp_path / f"o.json.{os.getpid()}-known.partial").symlink_to(victim)  # by someone who knew the name
    with pytest.raises(StorageError, match="exists"), replacing(target) as file:
        file.write(b"yours")
    monkeypatch.undo()
    with replacing(target) as file:
        file.write(b"yours")
    assert (victim.read_text(), target.read_text(), target.is_symlink()) == ("mine", "yours", False)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), replacing(target) as file:
        file.write(bytes(1 // 0))
    assert (sorted(tmp_path.iterdir()), target.read_text()) == (before, "yours")


def test_what_cannot_be_written_is_told_beforehand(tmp_path, trained):
    def refused(path, words: str, suffixes=TABLE, **keys) -> None:
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ConfigError, match=words):
            check_output(path, "--output", suffixes, **keys)
        assert before is None or path.read_bytes() == before

    os.mkfifo(tmp_path / "pipe.parquet")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s.parquet"))
    (tmp_path / "file").write_text("")
    (tmp_path / "link.parquet").symlink_to("/dev/null")
    (tmp_path / "items.parquet").symlink_to(trained.data / "items.parquet")
    (tmp_path / "fresh.csv").write_text("user,item,timestamp\n")
    refused(tmp_path, "is a directory; name the Parquet file")
    for device in ("pipe.parquet", "s.parquet", "link.parquet"):
        refused(tmp_path / device, "is a device or a pipe")
    for name in ("o.txt", "o", "o.parquet.zst", "o.json"):
        refused(tmp_path / name, "the name tells the format; let it end in .parquet or .pq or .csv or .jsonl")
    refused(tmp_path / "c.csv", "let it end in .json", JSON)
    refused(tmp_path / "c.pdf", "let it end in .png", PICTURE)
    refused(tmp_path / "no" / "o.csv", "no does not exist; make it with mkdir -p")
    refused(tmp_path / "file" / "o.csv", "is a file, no directory", make_folder=True)
    refused(tmp_path / "fresh.csv", "is read by this command", inputs=[None, tmp_path / "fresh.csv"])
    refused(trained.data / "items.parquet", "is a file of the data set")
    refused(tmp_path / "items.parquet", "is a file of the data set")
    refused(trained.data / "sequences" / "new.parquet", "is a file of the data set")
    refused(trained.run / "status.json", "is a file of the run", JSON)
    refused(trained.run / "checkpoints" / "x" / "o.json", "is a file of the run", JSON)
    check_output(None, "--output", TABLE)
    check_output(tmp_path / "a" / "b" / "o.csv", "--output", TABLE, make_folder=True)
    check_output(trained.run / "test.parquet", "--per_view", TABLE)
    check_output(trained.run / "test.json", "--output", JSON)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        ("evaluate", "--output", "o.json"),
        ("evaluate", "--per_view", "o.csv"),
        ("compare", "--output", "o.json"),
        ("compare", "--plot", "o.png"),
        ("explain", "--output", "o"),
        ("recommend", "--output", "o.txt"),
        ("replay", "--output", "o.json"),
        ("inspect", "--output", "o.png"),
    ],
)
def test_commands_look_before_they_work(trained, attnrec, tmp_path, monkeypatch, command, option, name):
    """A missing folder was found out after the whole evaluation."""

    def never(*_, **__):
        raise AssertionError("the model was loaded first")

    for module in (evaluate_run, compare_runs, explain_run, recommend_run):
        monkeypatch.setattr(module, "load_model", never)
    monkeypatch.setattr("attnrec_dist.engine.replay.reopen", never)
    monkeypatch.setattr("attnrec_dist.inspection.scan.inspect", never)
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / name if command in ("explain", "recommend") else tmp_path / "no" / name
    runs = [trained.data] if command == "inspect" else [trained.run] * (2 if command == "compare" else 1)
    done = attnrec(command, *runs, option, target, *(["--step", 1] if command == "replay" else []))
    assert (done.code, done.out) == (2, "")
    assert f"{option} {target}" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_recommend_writes_what_the_name_says(trained, attnrec, tmp_path):
    """`--output o.csv` wrote Parquet."""
    for name in ("deep/o.parquet", "o.csv", "o.jsonl.gz"):
        assert attnrec("recommend", trained.run, "--output", tmp_path / name, "--top_k", 3).code == 0
    told = pq.read_table(tmp_path / "deep/o.parquet").to_pylist()
    with open(tmp_path / "o.csv", newline="", encoding="utf-8") as file:
        assert [(row["user"], row["item"]) for row in csv.DictReader(file)] == [(row["user"], row["item"]) for row in told]
    with gzip.open(tmp_path / "o.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line)["item"] for line in file] == [row["item"] for row in told]


def test_a_read_only_folder_is_told_beforehand(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        shutil.rmtree(folder)
        pytest.skip("nothing is forbidden to this user")
    with pytest.raises(StorageError, match="check the permissions"):
        check_output(folder / "o.csv", "--output", TABLE)
