"""A minute of the attack, in a process of its own, which forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CASES = 40


def test_what_is_attacked_is_read_as_before_or_refused():
    command = [sys.executable, Path(__file__).parent, "--count", str(CASES)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
