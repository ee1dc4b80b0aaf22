"""The asking side of scripts/preloaded.py: one preloaded parent for all tests of a session, started with the first job."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "scripts" / "preloaded.py"
_parent: list[Path] = []  # its socket, once it runs
_kept: list[subprocess.Popen[bytes]] = []


class Forked:
    """A job's first process, as much like subprocess.Popen as the tests need."""

    def __init__(self, **job: Any):
        self._answers = socket.socket(socket.AF_UNIX)
        self._answers.connect(str(_parent_socket()))
        self._answers.sendall(json.dumps(job).encode() + b"\n")
        self._text = b""
        while b"\n" not in self._text:
            self._read(None)
        pid, _, self._text = self._text.partition(b"\n")
        self.pid = int(pid)
        self.returncode: int | None = None

    def _read(self, timeout: float | None) -> None:
        self._answers.settimeout(timeout)
        found = self._answers.recv(100)
        if not found:
            raise RuntimeError("the preloaded parent of all jobs is gone")
        self._text += found

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            try:
                self._read(timeout)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from None
            self.returncode = int(self._text)
            self._answers.close()
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def poll(self) -> int | None:
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None


def _parent_socket() -> Path:
    if not _parent:
        folder = tempfile.TemporaryDirectory(prefix="attnrec-test-")  # short: the system allows some 100 letters
        atexit.register(folder.cleanup)
        _parent.append(Path(folder.name) / "socket")
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        parent = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(_parent[0])],
            env=os.environ | alone,
            stdin=subprocess.PIPE,  # closed with this process, which ends the parent
            stdout=subprocess.PIPE,
        )
        if b"ready\n" not in iter(parent.stdout.readline, b""):  # type: ignore[union-attr]
            raise RuntimeError("the preloaded parent of all jobs did not start")
        _kept.append(parent)
    return _parent[0]
