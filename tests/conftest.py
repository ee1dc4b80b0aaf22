"""Shared by all tests: a tiny shop, its data set made once by `attnrec prepare`, and a run trained on it once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: workers of pytest-xdist share the cores
os.environ.setdefault("ATTNREC_DEBUG", "1")  # so that what nobody foresaw fails a test with its traceback
os.environ["COLUMNS"] = "80"  # the tests' terminal
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # which knows attnrec

import pytest
from hypothesis import settings
from tiny_shop import Outcome, Shop, attnrec_in_process, write_shop

settings.register_profile("any machine", deadline=None)  # a busy one is slow, not wrong
settings.load_profile("any machine")


@pytest.fixture
def attnrec(capfd) -> Callable[..., Outcome]:
    """Runs a command in this process: its exit code and what it printed. A traceback is never an answer."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        try:
            code = attnrec_in_process(*arguments)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        if "Traceback" in captured.err:
            raise AssertionError(captured.err)
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Shop:
    """The tiny shop with its data set. Read only: copy what you change."""
    made = write_shop(tmp_path_factory.mktemp("shop"))
    if attnrec_in_process("prepare", made.prepare_yaml, "--output", made.data):
        raise RuntimeError("attnrec prepare failed on the tiny shop")
    return made


@pytest.fixture(scope="session")
def trained(shop) -> Shop:
    """The tiny shop with a finished run. Read only."""
    if attnrec_in_process("train", shop.run_yaml, "--run_dir", shop.run, "--data", shop.data):
        raise RuntimeError("attnrec train failed on the tiny shop")
    return shop
