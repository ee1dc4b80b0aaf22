"""`attnrec when` and `attnrec replay` against the order itself, read from its beginning."""

from __future__ import annotations

import json
import re

import pytest

from attnrec_dist.data import order as order_of
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.engine.replay import reopen, replay, when
from attnrec_dist.run_dir import RunDir


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def past(trained):
    run = RunDir.existing(trained.run)
    return reopen(run, load_run_config(run.config, {}))


def test_when_finds_every_step_of_every_customer(past):
    names = past.data.users()["id"].to_pylist()
    expected = {name: [] for name in names}
    for step in range(past.max_steps):
        for sample in order_of.samples(past.steps.order, step):
            if sample >= 0:
                row = int(past.task.samples.index.rows_of(sample))
                expected[names[row]].append((step + 1, 1 + step // past.steps.order.steps_per_epoch, int(sample)))
    assert sum(map(len, expected.values())) > len(names)
    for name in names:
        assert when(past, name, past.max_steps) == sorted(expected[name])
        assert when(past, name, 3) == [each for each in sorted(expected[name]) if each[0] <= 3]


def test_the_steps_that_when_tells_are_those_in_which_replay_shows_the_customer(past):
    name = past.data.users()["id"].to_pylist()[0]
    steps = {step for step, _, _ in when(past, name, past.max_steps)}
    for step in range(1, past.max_steps + 1):
        found = replay(past, step)
        assert (name in {each["user"] for each in found["samples"]}) == (step in steps)


def test_a_replayed_batch_is_the_same_and_no_other(past):
    assert replay(past, 2) == replay(past, 2)
    assert len({replay(past, step)["sha256"] for step in range(1, past.max_steps + 1)}) == past.max_steps


def test_the_commands(attnrec, trained, past, tmp_path):
    logged = lines_of(trained.run)
    done = attnrec("replay", trained.run, "--step", 2, "--output", tmp_path / "step.json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "step.json").read_text())
    assert found["logged_loss"] == next(line["loss"] for line in logged if line["step"] == 2 and "loss" in line)
    assert found["sha256"] in done.out
    user = found["samples"][0]["user"]
    told = attnrec("when", trained.run, "--user", user)
    assert told.code == 0, told.err
    assert 2 in map(int, re.findall(r"^step (\d+)  ", told.out, re.MULTILINE))


def test_a_loss_is_computed_again_to_the_last_bit(attnrec, trained, tmp_path):
    logged = {line["step"]: line["loss"] for line in lines_of(trained.run) if "loss" in line}
    checkpoint = int(sorted(path.name for path in (trained.run / "checkpoints").iterdir())[0].rpartition("-")[2])
    before = {path: path.stat().st_mtime_ns for path in trained.run.rglob("*")}
    for step, origin in ((1, "initial weights"), (checkpoint, "initial weights"), (checkpoint + 1, f"step-{checkpoint:08d}")):
        if step > max(logged):
            continue
        done = attnrec("replay", trained.run, "--step", step, "--recompute", "--output", tmp_path / "step.json")
        assert done.code == 0, done.err
        assert f"from {origin}: the same to the last bit" in done.out
        assert json.loads((tmp_path / "step.json").read_text())["recomputed_loss"] == logged[step]
    assert {path: path.stat().st_mtime_ns for path in trained.run.rglob("*")} == before, "nothing of the run is touched"


def test_a_loss_that_was_not_finite_is_so_again(attnrec, trained, tmp_path):
    keys = ("--optimizer.lr", "1e30", "--checkpoint.every_steps", "1", "--optimizer.warmup_steps", "0")
    done = attnrec("train", trained.run_yaml, "--data", trained.data, "--run_dir", tmp_path / "run", *keys)
    assert done.code == 1
    report = json.loads((tmp_path / "run" / "not-finite.json").read_text())
    (tmp_path / "run" / "not-finite.json").write_text("as it was")
    again = attnrec("replay", tmp_path / "run", "--step", report["step"], "--recompute", "--output", tmp_path / "step.json")
    assert again.code == 1
    assert (tmp_path / "run" / "not-finite.json").read_text() == "as it was"
    assert "batch sha256" in again.out
    assert json.loads((tmp_path / "step.json").read_text())["step"] == report["step"]
    assert f"the loss of step {report['step']} is {report['loss']}" in again.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["when", "--user", "nobody"], "--user nobody: nobody of this name is in "),
        (["when"], "--user ID is missing"),
        (["replay", "--step", "0"], "--step 0: the steps of this run are 1 to "),
        (["replay"], "--step N is missing"),
    ],
)
def test_what_is_not_there_is_refused(attnrec, trained, words, said):
    done = attnrec(words[0], trained.run, *words[1:])
    assert done.code == 2
    assert said in done.err
