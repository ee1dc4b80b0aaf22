"""The watchdog of one process: what ends a job, and what does not. Several processes: tests/distributed/test_failures.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from attnrec_dist.distributed import World
from attnrec_dist.monitoring import watchdog
from attnrec_dist.monitoring.watchdog import Watchdog, WatchdogConfig, place


@pytest.fixture
def ended(monkeypatch):
    """The exit codes that a watchdog would have ended this process with; its seconds are hundredths here."""
    codes = []
    monkeypatch.setattr(watchdog, "TICK", 0.01)
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda *rest, **more: None)
    monkeypatch.setattr(watchdog.os, "_exit", codes.append)
    return codes


def watched(ended: list[int], every: float | None = None, ticks: int = 60, late: bool = False, **keys) -> list[str]:
    """What is told in so many ticks of 10 ms by a clock of their own, so that a busy machine changes nothing; `every`: seconds
    from one sign that the job got on to the next."""
    told: list[str] = []
    dog, now = Watchdog(WatchdogConfig(**keys), World(), told.append), [0.0]

    def clock() -> Iterator[bool]:
        for tick in range(ticks):
            now[0] += 0.01
            if every and tick % round(every / 0.01) == 0:
                dog.moved()
            yield late
            if ended:
                return

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watchdog.time, "monotonic", lambda: now[0])
        patched.setattr(dog, "_ticks", clock)
        dog._moved = now[0]
        dog.moved(7)
        dog._watch_progress()
    return told


def test_a_step_that_takes_too_long_ends_the_job_with_code_1(ended, capfd):
    told = watched(ended, step=0.2)
    assert ended == [1]
    assert told[0].startswith("rank 0 on ")
    assert "(after step 7, in " in told[0]
    assert "has not got on for 0 s" in told[0]
    assert "run the same command again" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("every", "keys"), [(0.2, {"step": 0.3}), (None, {"step": None}), (None, {"start": 0.1, "step": 60}), (None, {"step": 60})]
)
def test_what_gets_on_or_is_not_watched_goes_on(ended, every, keys):
    assert watched(ended, every, **keys) == []
    assert ended == []


def test_a_process_that_was_itself_suspended_does_not_count_the_time(ended):
    watched(ended, step=0.2, late=True)
    assert ended == []


def test_a_tick_that_comes_late_is_a_standstill(monkeypatch):
    dog, now = Watchdog(WatchdogConfig(), World(), lambda why: None), [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dog._closed, "wait", lambda seconds: None)
    ticks = dog._ticks()
    found = []
    for passed in (0, watchdog.TICK, watchdog.TICK + watchdog.STANDSTILL + 1, watchdog.TICK):
        now[0] += passed
        found.append(next(ticks))
    assert found == [False, False, True, False]


def test_it_looks_by_itself_while_it_is_entered(ended):
    told: list[str] = []
    with Watchdog(WatchdogConfig(start=0.01), World(), told.append):
        until = time.monotonic() + 60
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    assert ended[:1] == [1]
    assert told


def test_a_closed_one_is_quiet(ended):
    with Watchdog(WatchdogConfig(), World(), lambda why: None) as dog:
        pass
    dog._end("late")
    assert ended == []


def test_a_place_is_two_functions_of_the_package():
    dog = Watchdog(WatchdogConfig(), World(), lambda why: None)
    thread = threading.Thread(target=dog._watch_progress, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not (found := place(thread.ident)).startswith("_ticks (monitoring/watchdog.py:") and time.monotonic() < until:
        time.sleep(0.01)
    dog.__exit__()
    assert found.startswith("_ticks (monitoring/watchdog.py:")
    assert " of _watch_progress (monitoring/watchdog.py:" in found
    elsewhere = threading.Thread(target=time.sleep, args=(1,), daemon=True)
    elsewhere.start()
    assert place(elsewhere.ident) == "no code of attnrec_dist"
