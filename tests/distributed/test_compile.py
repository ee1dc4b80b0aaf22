"""train.compile: the same computation but for rounding, and a resumed run is the uninterrupted one to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from launching import Trial
from test_ranking_runs import config  # noqa: F401  (the tiny ranking run)
from test_resume import assert_same_run, kill
from test_strategies import losses, trained

pytestmark = [pytest.mark.distributed, pytest.mark.slow]  # each compiles for half a minute
FEW = {"train__max_steps": 6, "train__compile": True}
EXACT = {"model__dropout": 0, "model__unseen": 0, "train__max_steps": 6}


def test_compiled_and_resumed_it_is_the_same_run(trial: Callable[..., Trial]) -> None:
    whole, cut = trial(**FEW), trial(**FEW)
    whole.run(launcher="plain")
    kill(cut, 1, "after_step:5:0", "launcher")
    cut.run(launcher="plain")
    assert_same_run(cut, whole)


def test_it_is_the_same_computation_on_two_processes_too(trial: Callable[..., Trial], config: Path, tmp_path: Path) -> None:  # noqa: F811
    eager, alone = trial(**EXACT), trial(**EXACT, train__compile=True)
    eager.run(launcher="plain")
    alone.run(launcher="plain")
    expected = pytest.approx(losses(eager.run_dir), rel=2e-5, abs=0)
    assert losses(alone.run_dir) == expected
    keys = {**EXACT, "train__compile": True}
    folder = trained(2, tmp_path, config, ["ddp:ddp:6", "fsdp2:fsdp2:6"], keys)
    for name in ("ddp", "fsdp2"):
        assert losses(folder / name) == expected, name
