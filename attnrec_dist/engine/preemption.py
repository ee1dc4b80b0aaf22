"""Stop requests: a signal, a file STOP in the run directory, train.max_hours used up, or a launcher that is gone. Each rank looks
for itself, at no cost worth naming; the loop adds up what all ranks found with its losses, so all stop at one step."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType

from attnrec_dist.errors import StopRequested
from attnrec_dist.terminal.interrupts import TWICE

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT)
OF_TERMINAL = (signal.SIGHUP, signal.SIGQUIT)  # nohup, or a script's background, has these ignored
OF_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
POLL_SECONDS = 1.0  # between looks at the file: on a shared file system a look may cost a millisecond


class StopRequest:
    """Hears signals from `listen` on, where a second Ctrl-C (or Ctrl-\\) is obeyed at once; the clock counts from when this is
    made, and a launcher is missed that lived then."""

    def __init__(self, file: Path | None = None, max_hours: float | None = None) -> None:
        self.file = file
        self._signal = self._reason = ""
        self._max_hours = max_hours
        self._started = time.monotonic()  # a clock that is set meanwhile changes nothing
        self._looked = -POLL_SECONDS
        self._heard = 0.0
        self._launcher = os.getppid() if was_launched() else None

    def listen(self, but: signal.Signals | None = None) -> None:
        for number in SIGNALS:
            left_alone = number in OF_TERMINAL and signal.getsignal(number) == signal.SIG_IGN and not was_launched()
            if number != but and not left_alone:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name, now = f"signal {signal.Signals(number).name}", time.monotonic()
        if not self._signal:
            self._signal, self._heard = name, now
        elif number in OF_KEYBOARD and (name != self._signal or now - self._heard > TWICE):
            raise KeyboardInterrupt

    @property
    def reason(self) -> str:
        """Why this rank is to stop; "" while it is not. A reason stays, also when its file is gone."""
        if not self._reason:
            self._reason = self._signal or self._by_clock() or self._by_launcher() or self._by_file()
        return self._reason

    def _by_clock(self) -> str:
        if self._max_hours is None or time.monotonic() - self._started < self._max_hours * 3600:
            return ""
        return f"train.max_hours {self._max_hours:g} used up"

    def _by_launcher(self) -> str:
        return "" if self._launcher in (None, os.getppid()) else "the launcher is gone"

    def _by_file(self) -> str:
        now = time.monotonic()
        if self.file is None or now - self._looked < POLL_SECONDS:
            return ""
        self._looked = now
        return f"file {self.file.name}" if self.file.exists() else ""

    @property
    def requested(self) -> bool:
        return bool(self.reason)

    def check(self) -> None:
        """For work that can be left undone. Raises StopRequested."""
        if self.requested:
            raise StopRequested(self.reason)


def was_launched() -> bool:
    """By torchrun or accelerate, which sets LOCAL_RANK for several processes only. Any other parent may come and go."""
    return any(name in os.environ for name in ("LOCAL_RANK", "ACCELERATE_DYNAMO_BACKEND"))
