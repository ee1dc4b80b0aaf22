"""Stop requests. A signal only sets a flag; the loop adds up the flags of all ranks with its losses, so all stop at one step."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Listens from `listen` on; a second Ctrl-C is obeyed at once."""

    def __init__(self) -> None:
        self.reason = ""

    def listen(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.reason and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = f"signal {signal.Signals(number).name}"

    @property
    def requested(self) -> bool:
        return bool(self.reason)
