"""A run's directory: what may stand in its way, the lock, the status, whole files."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from attnrec_dist.errors import CheckpointError, RunDirError, StorageError
from attnrec_dist.run_dir import MARKER, RunDir, write_whole


def test_a_new_directory_is_readable_by_its_owner_only(tmp_path):
    run = RunDir(tmp_path / "runs" / "a")
    run.create()
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert run.checkpoints.is_dir()
    run.create()


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match=r"holds other files and no run; .*--run_dir"):
        RunDir(tmp_path).create()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RunDirError, match="is a file; name a directory"):
        RunDir(tmp_path / "notes.txt").create()
    with pytest.raises(RunDirError, match="no such run directory; `attnrec train"):
        RunDir.existing(tmp_path / "nowhere")
    with pytest.raises(RunDirError, match=r"holds no config.yaml"):
        RunDir.existing(tmp_path)


def test_what_is_named_instead_of_a_run_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/my-model", "runs/other", "mine/my-modal"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "shop.yaml").touch()
    (tmp_path / "notes").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").touch()
    for name, message in {
        "my-model": "no such run directory; did you mean runs/my-model? `attnrec train",
        "mine/my-modal2": "did you mean mine/my-modal?",
        "runs/zzz": "runs/zzz: no such run directory; `attnrec train",
        "runs": "runs inside: my-model, other; name one, such as runs/my-model",
        "data": "it is a data set",
        "notes": "is a file; name the directory of a run",
        "shop.yaml": "is a YAML file; name the run directory that `attnrec train shop.yaml` makes, such as runs/shop",
    }.items():
        with pytest.raises(RunDirError) as caught:
            RunDir.existing(Path(name))
        assert message in str(caught.value)


def test_only_a_new_directory_without_anything_of_worth_is_discarded(tmp_path):
    def claimed(name: str) -> RunDir:
        run = RunDir(tmp_path / name)
        run.create()
        run.lock()
        write_whole(run.config, "a: 1")
        run.write_status("running", 0)
        return run

    assert claimed("new").discard()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert not claimed("old").discard()
    kept = {"metrics.jsonl": "used", "checkpoints/step-00000001": "trained", "index/rows": "indexed"}
    for file, name in kept.items():
        run = claimed(name)
        (run.path / file).touch()
        assert not run.discard()
        assert {path.name for path in run.path.iterdir()} >= {"config.yaml", "status.json", "lock", file.split("/")[0]}
    assert claimed("runs/of/mine").discard()
    assert not (tmp_path / "runs").exists()
    other = claimed("runs/first")
    assert claimed("runs/second").discard()
    assert other.path.is_dir(), "somebody else's run is there by now"
    unlocked = RunDir(tmp_path / "unlocked")
    unlocked.create()
    assert not unlocked.discard()


def test_a_refused_start_leaves_no_trace_in_a_directory_that_was_there(tmp_path):
    def content():
        return {str(path): path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

    for lock in (None, b"process 3 on \xff"):
        (tmp_path / "config.yaml").write_text("a: 1")
        if lock:
            (tmp_path / "lock").write_bytes(lock)
        before, run = content(), RunDir(tmp_path)
        run.create()
        run.lock()
        assert content() != before
        run.leave()
        assert content() == before
        run._lock.close()


def test_a_start_that_was_killed_before_its_config_can_be_repeated(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    run.lock()
    (run.path / "config.yaml.123.partial").write_text("data:")
    RunDir(tmp_path / "run").create()
    (run.path / "thesis.tex").write_text("mine")
    with pytest.raises(RunDirError, match="holds other files"):
        RunDir(tmp_path / "run").create()


HOLDER = """
import sys, time
from pathlib import Path
from attnrec_dist.run_dir import RunDir
run = RunDir(Path(sys.argv[1]))
run.lock()
print("locked", flush=True)
time.sleep(600)
"""


def test_a_second_job_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunDirError, match=rf"another job is training here \(process {holder.pid} on .*--run_dir"):
            run.lock()
        assert not run.locked
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    run.lock()
    assert run.locked
    assert str(os.getpid()) in (run.path / "lock").read_text()


def test_status_is_what_was_written_last_or_unknown(tmp_path):
    run = RunDir(tmp_path)
    assert run.status() == {"state": "unknown", "step": 0, "reason": "no status.json"}
    run.write_status("running", 3)
    run.write_status("stopped", 7, "signal SIGTERM")
    assert run.status() == {"state": "stopped", "step": 7, "reason": "signal SIGTERM"}
    run.write_status("running", 9)  # by a thread that was still saving
    assert run.status()["state"] == "stopped"
    run.lock()
    run.write_status("running", 9)
    assert run.status()["state"] == "running"
    (run.checkpoints / "step-00000005").mkdir(parents=True)
    (run.checkpoints / "step-00000005" / MARKER).touch()
    for damaged in (b'{"state": "runn', b"", b"[]", b"\xff", b'{"state": "x", "step": 1, "reason": ""}', b'{"step": "a"}', b"3"):
        (tmp_path / "status.json").write_bytes(damaged)
        assert run.status() == {"state": "unknown", "step": 5, "reason": "status.json cannot be read"}
    for make in (os.mkdir, os.mkfifo):
        (tmp_path / "status.json").unlink()
        make(tmp_path / "status.json")
        assert run.status()["state"] == "unknown"
        (tmp_path / "status.json").rename(tmp_path / make.__name__)
        (tmp_path / "status.json").touch()


def test_checkpoints_are_found_by_name_or_link_and_only_with_their_marker(tmp_path):
    run = RunDir(tmp_path)
    for step in (20, 100, 3):
        (run.checkpoints / f"step-{step:08d}").mkdir(parents=True)
    for step in (20, 3):
        (run.checkpoints / f"step-{step:08d}" / MARKER).write_text("{}")
    (run.checkpoints / ".step-00000200.1.partial").mkdir()
    (tmp_path / "best").symlink_to("checkpoints/step-00000020")
    assert [path.name for path in run.complete_checkpoints()] == ["step-00000003", "step-00000020"]
    assert run.checkpoint("best").name == "step-00000020"
    assert run.checkpoint("step-00000003").name == "step-00000003"
    assert run.checkpoint("last").name == "step-00000020", "as a training would link it"
    for name in ("step-00000100", "nonsense"):
        with pytest.raises(CheckpointError, match="complete ones: step-00000003, step-00000020"):
            run.checkpoint(name)


WRITER = """
import sys
from pathlib import Path
from attnrec_dist.run_dir import write_whole
n = 0
print("go", flush=True)
while True:
    n += 1
    write_whole(Path(sys.argv[1]), f"{n} " * 20000)
"""


def test_a_reader_sees_the_old_text_or_the_new_never_a_part(tmp_path):
    file = tmp_path / "file"
    write_whole(file, "0 " * 20000)
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "go\n"
        seen = {(*sorted(set(words)), len(words)) for words in (file.read_text().split() for _ in range(300))}
    finally:
        writer.kill()
        writer.communicate()
    assert all(len(each) == 2 and each[1] == 20000 for each in seen)
    assert len(set(file.read_text().split())) == 1


def test_a_refused_write_keeps_the_old_text(tmp_path, monkeypatch):
    write_whole(tmp_path / "file", "old")

    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match="free some space"):
        write_whole(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
