"""attnrec train --profile: a trace that can be read, ten lines, and the same run."""

from __future__ import annotations

import json


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
