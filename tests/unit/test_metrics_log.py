"""metrics.jsonl: what is written when, cut back on resume, losses that are not finite, full disks; stop requests."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch

from attnrec_dist.engine.preemption import SIGNALS, StopRequest
from attnrec_dist.errors import FaultError, RunDirError, StopRequested, StorageError
from attnrec_dist.monitoring.metrics_log import Metrics, ProgressBar


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def metrics(tmp_path):
    return Metrics(tmp_path / "metrics.jsonl", active=True)


def test_lines_wait_for_a_flush_and_are_written_once(metrics):
    loss = torch.tensor(0.5)
    metrics.log(1, loss=loss, epoch=0.1)
    metrics.log(2, loss=torch.tensor(0.25), learning_rate=1e-3)
    assert not metrics.path.exists()
    metrics.flush()
    metrics.flush()
    metrics.log(3, **{"eval/next_basket/all/ndcg@10": 0.125})
    metrics.flush()
    assert lines_of(metrics.path) == [
        {"step": 1, "loss": 0.5, "epoch": 0.1},
        {"step": 2, "loss": 0.25, "learning_rate": 0.001},
        {"step": 3, "eval/next_basket/all/ndcg@10": 0.125},
    ]


def test_values_are_exact(metrics):
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1e300]
    for step, value in enumerate(values):
        metrics.log(step, loss=torch.tensor(value, dtype=torch.float64))
    metrics.flush()
    assert [line["loss"] for line in lines_of(metrics.path)] == values


@pytest.mark.parametrize("tail", ["", '{"step": 4, "lo', '{"step": 4, "loss": 1}\n{"step', "\n"])
def test_going_back_drops_what_came_after_and_half_a_line(metrics, tail):
    for step in range(1, 6):
        metrics.log(step, loss=float(step))
        if step % 2 == 0:
            metrics.log(step, **{"eval/x": step})
    metrics.flush()
    with open(metrics.path, "a") as file:
        file.write(tail)
    metrics.cut_back(4)
    expected = [(1, "loss"), (2, "loss"), (2, "eval/x"), (3, "loss"), (4, "loss"), (4, "eval/x")]
    assert [(line["step"], list(line)[1]) for line in lines_of(metrics.path)][: len(expected)] == expected
    assert max(line["step"] for line in lines_of(metrics.path)) == 4
    metrics.log(5, loss=5.0)
    metrics.flush()
    assert lines_of(metrics.path)[-1] == {"step": 5, "loss": 5.0}
    metrics.cut_back(4, evaluated=False)
    assert [(line["step"], list(line)[1]) for line in lines_of(metrics.path)][:5] == expected[:-1]
    assert (4, "eval/x") not in [(line["step"], list(line)[1]) for line in lines_of(metrics.path)]
    metrics.cut_back(0)
    assert metrics.path.read_text() == ""


def test_half_a_line_is_gone_before_the_next_is_written(metrics):
    metrics.path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    metrics.cut_back(2)
    metrics.log(2, loss=1.5)
    metrics.flush()
    assert [line["step"] for line in lines_of(metrics.path)] == [1, 2]


@pytest.mark.parametrize(
    "bad", [b"\xff", b"{\n[1]", b'{"step": "2"}', b'{"loss": 1}', b"[" * 100_000, b'{"step": 2, "loss": "x"}']
)
def test_a_line_that_is_none_is_passed_over_and_the_hole_is_told(metrics, bad):
    for step in range(1, 6):
        metrics.log(step, loss=float(step))
    metrics.flush()
    lines = metrics.path.read_bytes().splitlines(keepends=True)
    metrics.path.write_bytes(b"".join([*lines[:2], bad + b"\n", *lines[3:]]))
    told = []
    metrics.cut_back(4, say=told.append)
    assert [line["step"] for line in lines_of(metrics.path)] == [1, 2, 4]
    assert len(told) == 1
    assert "1 of the steps up to 4 are missing (3): the curve has a hole" in told[0]


def test_a_whole_curve_is_not_written_again(metrics):
    for step in (1, 2):
        metrics.log(step, loss=float(step))
    metrics.flush()
    before, told = metrics.path.stat().st_ino, []
    metrics.cut_back(2, say=told.append)
    assert (metrics.path.stat().st_ino, told) == (before, [])


def test_a_fifo_as_metrics_does_not_hang(metrics):
    os.mkfifo(metrics.path)
    with pytest.raises(RunDirError, match="is a FIFO, not a file"):
        metrics.cut_back(2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_is_on_record(metrics, value):
    metrics.log(6, loss=torch.tensor(1.0))
    metrics.log(7, loss=torch.tensor(value))
    with pytest.raises(FaultError, match=r"the loss of step 7 is .*--optimizer.lr"):
        metrics.flush()
    assert len(metrics.path.read_text().splitlines()) == 2


def test_other_ranks_write_nothing_but_notice_a_bad_loss(tmp_path):
    silent = Metrics(tmp_path / "metrics.jsonl", active=False)
    silent.log(1, loss=1.0)
    silent.flush()
    silent.cut_back(0)
    assert not silent.path.exists()
    silent.log(2, loss=math.nan)
    with pytest.raises(FaultError):
        silent.flush()


def test_a_full_disk_is_told(metrics):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    metrics.path.symlink_to("/dev/full")
    metrics.log(1, loss=1.0)
    with pytest.raises(StorageError, match="free some space and run the same command again"):
        metrics.flush()


def test_without_a_terminal_progress_is_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr("attnrec_dist.monitoring.metrics_log.PLAIN_LINE_SECONDS", -1)
    with ProgressBar(first=10, total=20, active=True) as bar:
        bar.show(11, 2.5, targets=100)
        bar.say("hello")
    with ProgressBar(first=0, total=20, active=False) as silent:
        silent.show(20, 2.5, targets=1)
        silent.say("nothing")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("step 11/20  loss 2.5000  ")
    assert "targets/s" in err
    assert err.splitlines()[1:] == ["hello"]


@pytest.fixture
def stop():
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}  # under nohup SIGHUP would stay ignored
    request = StopRequest()
    request.listen()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_a_flag(stop, number):
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested
    assert stop.reason == f"signal {signal.Signals(number).name}"


def test_a_file_is_seen_within_a_second_and_its_reason_stays(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    request = StopRequest(tmp_path / "STOP")
    assert not request.requested
    (tmp_path / "STOP").touch()
    now[0] = 0.9
    assert not request.requested, "a look costs something on a shared file system"
    now[0] = 1.1
    assert request.reason == "file STOP"
    (tmp_path / "STOP").unlink()
    assert request.requested
    with pytest.raises(StopRequested, match="file STOP"):
        request.check()


def test_the_hours_are_those_of_a_clock_that_nobody_sets(monkeypatch):
    now = [50.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: now[0] * 1e6)
    request = StopRequest(max_hours=0.5)
    now[0] += 1799
    assert not request.requested
    now[0] += 2
    assert request.reason == "train.max_hours 0.5 used up"


def test_a_second_interrupt_is_obeyed_at_once(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
