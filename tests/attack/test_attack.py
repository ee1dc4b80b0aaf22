"""A minute of the attack, in a process of its own, which forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = 40


@pytest.mark.parametrize("area", ["inputs", "damage"])
def test_what_is_attacked_is_read_as_before_or_refused(area):
    told = subprocess.run(
        [sys.executable, Path(__file__).parent, "--count", str(CASES), "--only", area],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert told.returncode == 0, told.stdout + told.stderr
