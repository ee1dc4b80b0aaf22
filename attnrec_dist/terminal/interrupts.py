"""Ctrl-C: remembered, since libraries turn it into errors of their own."""

from __future__ import annotations

import signal
import time
from types import FrameType

AFTERMATH = 30.0  # seconds in which an error after a Ctrl-C is put down to it
TWICE = 1.0  # seconds: a launcher passes on what the terminal has sent to all processes already

heard: list[float] = []  # when Ctrl-C came


def hear_interrupts() -> None:
    """In a process of its own: Ctrl-C is remembered, since a library that is just being imported may fail in any way by it."""

    def hear(number: int, frame: FrameType | None) -> None:
        now, before = time.monotonic(), heard[-1] if heard else -TWICE
        heard.append(now)
        if now - before >= TWICE:
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, hear)


def was_interrupted(error: BaseException | None) -> bool:
    """By Ctrl-C, which some libraries turn into an error of their own."""
    if heard and time.monotonic() - heard[-1] < AFTERMATH:
        return True
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or "Interrupt" in type(error).__name__ or str(error) == "Query interrupted":
            return True
        error = error.__cause__ or error.__context__
    return False
