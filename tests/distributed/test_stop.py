"""Stop requests: one rank is told, all stop at the same step with a checkpoint, and the next start goes on bitwise."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from launching import Trial
from test_resume import assert_same_run

from attnrec_dist.engine.preemption import POLL_SECONDS

pytestmark = pytest.mark.distributed


def test_sigterm_to_one_rank_stops_all(trial: Callable[..., Trial], whole: Callable[[int], Trial]) -> None:
    stopped = trial()
    job = stopped.start(2, pause_at="before_step:9:1")
    job.wait_paused()
    job.signal(signal.SIGTERM, rank=1)
    job.release()
    output = job.wait(expect=0)
    assert "stopped at step 10" in output
    assert stopped.status()["state"] == "stopped"
    assert stopped.status()["step"] == 10
    assert "step-00000010" in stopped.checkpoints()
    stopped.run(2)
    assert_same_run(stopped, whole(2))


NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]


@pytest.mark.parametrize("number", [*NUMBERS, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_without_a_launcher_the_code_says_run_me_again(
    number: int, trial: Callable[..., Trial], whole: Callable[[int], Trial]
) -> None:
    stopped = trial()
    job = stopped.start(launcher="plain", pause_at="before_step:9:0")
    job.wait_paused()
    job.signal(number)
    job.release()
    job.wait(expect=75)
    assert stopped.status() == {"state": "stopped", "step": 10, "reason": f"signal {signal.Signals(number).name}"}
    if number == signal.SIGTERM:
        stopped.run(launcher="plain")
        assert_same_run(stopped, whole(1))  # the checkpoint of its own is pruned in the end


def test_asked_while_it_starts_it_stops_after_a_step(trial: Callable[..., Trial]) -> None:
    """A preemption that comes early is obeyed, and the run asks for another turn."""
    stopped = trial()
    job = stopped.start(launcher="plain", pause_at="opening:0:0")
    job.wait_paused()
    job.signal(signal.SIGTERM)
    job.release()
    job.wait(expect=75)
    assert stopped.status() == {"state": "stopped", "step": 1, "reason": "signal SIGTERM"}


def test_stopped_before_and_within_an_evaluation_it_is_done_by_the_next_job(
    trial: Callable[..., Trial], whole: Callable[[int], Trial]
) -> None:
    """Step 12 is one with an evaluation. The file comes before it, then during it; before both the hours are used up at once."""
    stopped = trial()
    stopped.run(2, train__max_hours=1e-6)
    assert stopped.status() == {"state": "stopped", "step": 1, "reason": "train.max_hours 1e-06 used up"}
    for pause_at in ("before_step:11:0", "evaluation:12:1"):
        job = stopped.start(2, pause_at=pause_at)
        job.wait_paused()
        (stopped.run_dir / "STOP").touch()
        time.sleep(POLL_SECONDS)  # or the steps until the next look would be trained
        job.release()
        assert "stopped at step 12 (file STOP)" in job.wait(expect=0)
        assert stopped.status() == {"state": "stopped", "step": 12, "reason": "file STOP"}
        assert stopped.progress()["owes_evaluation"]
        assert not (stopped.run_dir / "STOP").exists(), "obeyed, so removed"
        assert [name for step, name, _ in stopped.curve() if step == 12 and "eval/" in name] == []
    stopped.run(2)
    assert_same_run(stopped, whole(2))


def test_sigterm_to_the_launcher(trial: Callable[..., Trial], whole: Callable[[int], Trial]) -> None:
    stopped = trial()
    job = stopped.start(3, launcher="torchrun", pause_at="before_step:9:2")
    job.wait_paused()
    job.signal(signal.SIGTERM)
    job.wait_for(lambda: "closing signal SIGTERM" in job.text(), "the launcher's signal to its ranks")
    job.release()
    job.wait(expect=None)
    assert stopped.status()["state"] == "stopped"
    stopped.run(3)
    assert_same_run(stopped, whole(3))
