"""Which signals are stop requests, which end a process at once, and whose launcher is missed. The file and the clock:
test_metrics_log.py; real jobs: tests/distributed/test_stop.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from attnrec_dist.engine import preemption
from attnrec_dist.engine.preemption import SIGNALS, StopRequest


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
