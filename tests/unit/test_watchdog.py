"""The watchdog of one process: what ends a job, and what does not. Several processes: tests/distributed/test_failures.py."""

from __future__ import annotations

import threading
import time

import pytest

from attnrec_dist.distributed import World
from attnrec_dist.engine import watchdog
from attnrec_dist.engine.watchdog import Watchdog, WatchdogConfig, place


@pytest.fixture
def ended(monkeypatch):
    """The exit codes that a watchdog would have ended this process with; its seconds are hundredths here."""
    codes = []
    monkeypatch.setattr(watchdog, "TICK", 0.01)
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda *rest, **more: None)
    monkeypatch.setattr(watchdog.os, "_exit", codes.append)
    return codes


def watch(seconds: float, told: list[str], every: float | None = None, **keys) -> None:
    with Watchdog(WatchdogConfig(**keys), World(), told.append) as dog:
        dog.moved(7)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(every or seconds)
            if every:
                dog.moved()


def test_a_step_that_takes_too_long_ends_the_job_with_code_1(ended, capfd):
    told = []
    watch(0.6, told, step=0.2)
    assert ended[:1] == [1]
    assert told[0].startswith("rank 0 on ")
    assert "(after step 7, in " in told[0]
    assert "has not got on for 0 s" in told[0]
    assert "run the same command again" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("every", "keys"), [(0.01, {"step": 0.3}), (None, {"step": None}), (None, {"start": 0.1, "step": 60}), (None, {"step": 60})]
)
def test_what_gets_on_or_is_not_watched_goes_on(ended, every, keys):
    watch(0.6, [], every, **keys)
    assert ended == []


def test_a_process_that_was_itself_suspended_does_not_count_the_time(ended, monkeypatch):
    monkeypatch.setattr(watchdog, "STANDSTILL", 0.0)  # so that every tick seems late
    watch(0.6, [], step=0.2)
    assert ended == []


def test_a_closed_one_is_quiet(ended):
    with Watchdog(WatchdogConfig(step=0.05, start=0.05), World(), lambda why: None):
        pass
    time.sleep(0.2)
    assert ended == []


def test_a_place_is_two_functions_of_the_package():
    dog = Watchdog(WatchdogConfig(), World(), lambda why: None)
    thread = threading.Thread(target=dog._watch_progress, daemon=True)
    thread.start()
    time.sleep(0.1)
    found = place(thread.ident)
    dog.__exit__()
    assert found.startswith("_ticks (engine/watchdog.py:")
    assert " of _watch_progress (engine/watchdog.py:" in found
    elsewhere = threading.Thread(target=time.sleep, args=(1,), daemon=True)
    elsewhere.start()
    assert place(elsewhere.ident) == "no code of attnrec_dist"
