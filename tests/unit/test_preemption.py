"""Which signals are stop requests, which end a process at once, and whose launcher is missed. The file and the clock:
test_metrics_log.py; real jobs: tests/distributed/test_stop.py."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from attnrec_dist.engine import job, preemption
from attnrec_dist.engine.preemption import SIGNALS, StopRequest
from attnrec_dist.errors import PeerError
from attnrec_dist.run_dir import RunDir
from attnrec_dist.terminal import interrupts


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without a launcher; each signal afterwards as it was before."""
    for name in ("LOCAL_RANK", "ACCELERATE_DYNAMO_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def heard(*numbers: int) -> StopRequest:
    request = StopRequest()
    request.listen()
    for number in numbers:
        os.kill(os.getpid(), number)
    return request


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_that_ends_a_process_is_a_stop_request(number):
    assert heard(number).reason == f"signal {signal.Signals(number).name}"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_under_nohup_what_is_ignored_stays_ignored(number, monkeypatch):
    signal.signal(number, signal.SIG_IGN)
    assert heard(number).reason == ""
    assert signal.getsignal(number) == signal.SIG_IGN
    monkeypatch.setenv("LOCAL_RANK", "0")  # the launcher obeys it all the same, and passes it on
    assert heard(number).reason == f"signal {signal.Signals(number).name}"


def test_a_closing_terminal_sends_more_than_one_and_the_first_is_told():
    assert heard(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM).reason == "signal SIGHUP"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), PeerError("another process is gone"), RuntimeError("Interrupted system call")]
)
def test_a_start_that_ctrl_c_ends_is_stopped_by_the_user(tmp_path, monkeypatch, error, begun):
    """Whatever a library makes of it. Under a launcher, where status.json has to tell."""

    def interrupted(config: object, run_dir: RunDir) -> int:
        run_dir.create()
        run_dir.lock()
        run_dir.begun = begun
        monkeypatch.setattr(interrupts, "heard", [time.monotonic()])
        raise error

    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(job, "run_training", interrupted)
    monkeypatch.setattr(job, "in_our_words", lambda error, config: error)
    with pytest.raises(type(error)):
        job.train_in(RunDir(tmp_path / "run"), None)
    status = RunDir(tmp_path / "run").status()
    assert (status["state"], status["reason"]) == ("stopped", "by the user, with Ctrl-C")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_second_one_by_the_keyboard_ends_at_once_but_not_what_a_launcher_passes_on(number, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    request = heard(number, number)
    now[0] += 2
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert request.requested


@pytest.mark.parametrize("launched", ["LOCAL_RANK", "ACCELERATE_DYNAMO_BACKEND", ""])
def test_a_launcher_is_missed_and_any_other_parent_is_not(launched, monkeypatch):
    if launched:
        monkeypatch.setenv(launched, "0")
    request = StopRequest()
    assert not request.requested
    monkeypatch.setattr(preemption.os, "getppid", lambda: 1)
    assert request.reason == ("the launcher is gone" if launched else "")
