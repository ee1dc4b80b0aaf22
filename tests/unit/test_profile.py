"""attnrec train --profile: a trace that can be read, ten lines, and the same run."""

from __future__ import annotations

import json

import pytest

from attnrec_dist.monitoring.profiler import StepProfile


def test_a_profiled_run_is_the_same_run_and_leaves_a_trace(attnrec, trained, tmp_path):
    options = ["--run_dir", tmp_path / "run", "--data", trained.data, "--profile"]
    done = attnrec("train", trained.run_yaml, *options)
    assert done.code == 0, done.err
    trace = json.loads((tmp_path / "run" / "profile" / "rank-0.json").read_text())
    assert any(event.get("name", "").startswith("aten::") for event in trace["traceEvents"])
    lines = (tmp_path / "run" / "profile" / "rank-0.txt").read_text().splitlines()
    assert len(lines) == 10
    assert all(line in done.err for line in lines)
    times = [float(line.split()[0]) for line in lines[1:]]
    assert times == sorted(times, reverse=True)
    assert 0 < sum(float(line.split()[1].rstrip("%")) for line in lines[1:]) <= 100
    losses = [
        [json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", trained.run)
    ]
    assert losses[0] == losses[1]


def test_a_run_that_ends_within_the_profiled_steps_leaves_them_all_the_same(attnrec, trained, tmp_path):
    options = ["--run_dir", tmp_path / "run", "--data", trained.data, "--tracking.profile_steps", "500"]
    assert attnrec("train", trained.run_yaml, *options).code == 0
    assert (tmp_path / "run" / "profile" / "rank-0.txt").exists()


@pytest.mark.parametrize("steps", [3, 5])
def test_a_run_that_ends_before_a_step_is_profiled_has_nothing_to_tell(steps, attnrec, trained, tmp_path):
    options = ["--run_dir", tmp_path / "run", "--data", trained.data, "--profile", "--train.max_steps", str(steps)]
    done = attnrec("train", trained.run_yaml, *options)
    assert done.code == 0, done.err
    assert not (tmp_path / "run" / "profile").exists()


def test_the_error_of_a_profiled_step_is_the_one_that_is_told(tmp_path):
    def fails_in_a_step() -> None:
        with StepProfile(tmp_path / "profile", 0, 10, print) as profiled:
            for _ in range(7):
                profiled.step()
            raise ZeroDivisionError("of the step")

    with pytest.raises(ZeroDivisionError, match="of the step"):
        fails_in_a_step()
    assert not (tmp_path / "profile").exists()
