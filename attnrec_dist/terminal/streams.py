"""What is printed never ends a command: letters that a terminal does not have, a full disk, a reader who has left, no stream."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Stream:
    """Wraps stdout or stderr, and is like it in all else. The first error of writing is kept, and nothing more is written."""

    def __init__(self, inner: TextIO | None):
        self.inner: TextIO = open(os.devnull, "w", encoding="utf-8") if inner is None else inner  # noqa: SIM115
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        encoding = self.inner.encoding or "utf-8"
        shown = text.encode(encoding, "backslashreplace").decode(encoding)
        self._try(lambda: self.inner.write(shown))
        return len(text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._try(self.inner.flush)

    def _try(self, act: Any) -> None:
        if self.failure is not None:
            return
        try:
            act()
        except OSError as error:
            self.failure = error
            with contextlib.suppress(OSError, ValueError):  # what waits in the buffer would fail again when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.inner.fileno())

    @property
    def lost(self) -> OSError | None:
        """Why what was printed did not arrive; None also where its reader, `head` say, had read enough."""
        return None if self.failure is None or self.failure.errno == errno.EPIPE else self.failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@contextlib.contextmanager
def forgiving_streams() -> Iterator[Stream]:
    """stdout and stderr wrapped meanwhile; gives stdout's."""
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield out
        finally:
            out.flush()
            err.flush()
