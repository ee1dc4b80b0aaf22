"""A finished run that is started again says so; with more epochs it goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from launching import Trial

pytestmark = pytest.mark.distributed


def test_a_finished_run_says_so_and_goes_on_with_more_epochs(trial: Callable[..., Trial]) -> None:
    constant = {"optimizer__schedule": "constant"}
    run, longer = trial(**constant), trial(**constant, train__max_epochs=3)
    run.run(launcher="plain")
    before = run.curve()
    output = run.run(2)
    assert "nothing left to do: step 28 of 28 is done" in output
    assert run.curve() == before
    assert run.status()["state"] == "done"
    run.run(launcher="plain", train__max_epochs=3)
    longer.run(launcher="plain")
    assert run.losses() == longer.losses()
    assert len(run.losses()) == 42


def test_an_early_stopped_run_says_so_and_goes_on_with_more_patience(trial: Callable[..., Trial]) -> None:
    run = trial(optimizer__lr=1e-9, evaluation__patience=2)  # nothing is learnt, so the first validation stays the best
    assert "has not improved for 2 evaluations" in run.run(launcher="plain")
    assert run.status()["state"] == "done"
    assert max(run.losses()) == 18
    assert (run.run_dir / "best").resolve().name == "step-00000006"
    assert "nothing left to do: next_basket/all/ndcg@10 has not improved for 2 evaluations" in run.run(launcher="plain")
    assert max(run.losses()) == 18
    run.run(launcher="plain", evaluation__patience=3)
    assert max(run.losses()) == 24
