"""Killed, failed, repeated, concurrent: what is left is a whole data set, or none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prepare_helpers import run, write_csv

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import ConfigError, DataError, InputError
from attnrec_dist.prepare.staging import workplace

ROWS = [{"user": f"u{k % 7}", "item": f"i{k % 5}", "time": str(1000 + k)} for k in range(60)]

# For each line "N HOW" on its input: a fork prepares DIR/log.csv into DIR/data and kills itself, or waits, at its N-th step,
# which is a progress message, an fsync or a rename. Answers with the fork's exit code and the steps it would have.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from prepare_helpers import config_of
from attnrec_dist.prepare.pipeline import prepare
import attnrec_dist.prepare.engines.duckdb

def preparing(stop, how):
    seen = 0
    def step(*_):
        nonlocal seen
        seen += 1
        if seen == stop and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if seen == stop:
            (folder / "waiting").write_text(str(os.getpid()))
            time.sleep(600)
    def before(function):
        return lambda *a, **k: (step(), function(*a, **k))[1]
    os.fsync, Path.rename = before(os.fsync), before(Path.rename)
    config = config_of([folder / "log.csv"], split={"train": 0.5, "validation": 0.25, "test": 0.25})
    prepare(config, folder, folder / "data", step)
    return seen

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(preparing(int(line.split()[0]), line.split()[1]))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Preparer:
    def __init__(self, folder: Path):
        command = [sys.executable, "-c", SCRIPT, str(folder), str(Path(__file__).parent)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, stop: int, how: str) -> None:
        print(stop, how, file=self.process.stdin, flush=True)

    def outcome(self) -> int:
        """Exit code of the fork: the number of its steps where nothing stopped it."""
        return int(self.process.stdout.readline())

    def run(self, stop: int = -1) -> int:
        self.start(stop, "kill")
        return self.outcome()


@pytest.fixture
def preparer(tmp_path):
    preparer = Preparer(tmp_path)
    yield preparer
    preparer.process.communicate(timeout=600)


def fingerprint_at(folder: Path) -> str | None:
    try:
        return DataSet.open(folder / "data").manifest.fingerprint
    except DataError:
        return None


@pytest.mark.parametrize("existing", [False, True])
def test_sigkill_at_every_step_leaves_the_old_data_set_or_none(tmp_path, preparer, existing):
    write_csv(tmp_path / "log.csv", ROWS)
    steps = preparer.run()
    new = fingerprint_at(tmp_path)
    assert new is not None
    assert steps >= 8
    seen_aside = False
    for stop in range(1, steps + 1):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        old = run([tmp_path / "log.csv"], tmp_path / "data").manifest.fingerprint if existing else None
        assert preparer.run(stop) == -signal.SIGKILL
        aside = (tmp_path / ".data.preparing" / "replaced").exists() and not (tmp_path / "data").exists()
        seen_aside = seen_aside or aside
        assert fingerprint_at(tmp_path) in (old, new) or aside, f"killed at step {stop}"
        with pytest.raises(ZeroDivisionError), workplace(tmp_path / "data"):
            1 / 0  # noqa: B018  (the next prepare fails; yet it has cleaned up, and put back what lay aside)
        assert fingerprint_at(tmp_path) in (old, new), f"killed at step {stop}"
        assert not (tmp_path / ".data.preparing").exists()
    assert seen_aside == existing
    assert preparer.run() > 0
    assert fingerprint_at(tmp_path) == new


def test_a_second_prepare_of_the_same_output_is_refused_while_the_first_runs(tmp_path, preparer):
    write_csv(tmp_path / "log.csv", ROWS)
    preparer.start(2, "wait")
    while not (tmp_path / "waiting").exists() or not (tmp_path / "waiting").read_text():
        time.sleep(0.02)
    try:
        with pytest.raises(ConfigError, match="another prepare is writing"):
            run([tmp_path / "log.csv"], tmp_path / "data")
        run([tmp_path / "log.csv"], tmp_path / "other")
    finally:
        os.kill(int((tmp_path / "waiting").read_text()), signal.SIGKILL)
    assert preparer.outcome() == -signal.SIGKILL
    run([tmp_path / "log.csv"], tmp_path / "data")


@pytest.mark.parametrize("what", ["file", "directory"])
def test_somebody_s_files_stay(tmp_path, what):
    log = write_csv(tmp_path / "log.csv", ROWS)
    work = tmp_path / "data" if what == "file" else tmp_path / "data" / "thesis.txt"
    work.parent.mkdir(exist_ok=True)
    work.write_text("precious")
    with pytest.raises(ConfigError, match="--output DIR"):
        run([log], tmp_path / "data")
    assert work.read_text() == "precious"
    assert not list(tmp_path.glob(".*preparing"))


def test_an_empty_directory_may_be_filled_and_a_data_set_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    one = run([write_csv(tmp_path / "a.csv", ROWS)], tmp_path / "data")
    two = run([write_csv(tmp_path / "b.csv", ROWS[:30])], tmp_path / "data")
    assert one.manifest.fingerprint != two.manifest.fingerprint
    assert sum(len(rows.items) for rows in two.scan()) == 30


def test_a_failing_prepare_leaves_no_directory_that_it_made(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,time\n,,\n")
    with pytest.raises(InputError):
        run([tmp_path / "log.csv"], tmp_path / "new" / "of" / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_failing_prepare_leaves_the_old_data_set(tmp_path, monkeypatch):
    old = run([write_csv(tmp_path / "a.csv", ROWS)], tmp_path / "data").manifest.fingerprint
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "dataset":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(Exception, match="Input/output error"):
        run([tmp_path / "a.csv"], tmp_path / "data", filters={"min_item_events": 2})
    monkeypatch.undo()
    assert fingerprint_at(tmp_path) == old
    assert not list(tmp_path.glob(".*preparing"))
