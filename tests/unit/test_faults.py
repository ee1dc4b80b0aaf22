"""What goes wrong around a training: the disk, the clock, a tracker. It ends with a message or goes on, and no figure changes."""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import time
from pathlib import Path

import pytest


@pytest.fixture
def disk(tmp_path):
    """mount(options) -> a small file system of its own, mounted (again) with these options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
        try:
            done = subprocess.run(words, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"mounting a small file system needs rights that this process lacks: {done.stderr.decode().strip()}")
        mounted.append(place)
        return place

    yield mount
    if mounted:
        gc.collect()  # a run that ended in this process may still map its index, in a cycle of references
        subprocess.run(["umount", place], check=True)


def curve(run: Path) -> list[tuple[int, str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], key, value) for line in lines for key, value in line.items() if key == "loss" or key.startswith("eval/")
    ]


@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_a_disk_that_is_full_again_and_again_loses_nothing(disk, trained, attnrec, asynchronous):
    """It grows by a fifth each time that it was full."""
    needed = sum(file.stat().st_blocks * 512 for file in trained.run.rglob("*"))
    for attempt in itertools.count():
        size = int(needed * 0.5 * 1.2**attempt)
        place = disk(f"{'remount,' if attempt else ''}size={size}")
        options = ["--run_dir", place / "run", "--data", trained.data, "--checkpoint.asynchronous", asynchronous]
        done = attnrec("train", trained.run_yaml, *options)
        if done.code == 0:
            break
        assert done.code == 1
        assert "No space left on device" in done.err or "os error 28" in done.err, done.err
    assert attempt > 1
    assert curve(place / "run") == curve(trained.run)
    assert json.loads((place / "run" / "status.json").read_text())["state"] == "done"


def test_a_read_only_directory_is_told(disk, trained, attnrec):
    place = disk("ro,size=1m")
    done = attnrec("train", trained.run_yaml, "--run_dir", place / "run", "--data", trained.data)
    assert done.code == 1
    assert "the file system is read-only; choose another directory" in done.err


def test_a_clock_that_jumps_changes_nothing(trained, attnrec, tmp_path, monkeypatch):
    jumps, now = itertools.cycle([0, 86_400, -86_400 * 400]), time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    options = ["--run_dir", tmp_path / "run", "--data", trained.data, "--train.max_hours", "1"]
    assert attnrec("train", trained.run_yaml, *options).code == 0
    assert curve(tmp_path / "run") == curve(trained.run)
