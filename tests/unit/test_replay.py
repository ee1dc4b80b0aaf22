"""`attnrec when` and `attnrec replay` against the order itself, read from its beginning."""

from __future__ import annotations

import json
import re

import pytest

from attnrec_dist.data import order as order_of
from attnrec_dist.engine.replay import reopen, replay, when
from attnrec_dist.run_config import load_run_config
from attnrec_dist.run_dir import RunDir


@pytest.fixture(scope="module")
def past(trained):
    run = RunDir.existing(trained.run)
    return reopen(run, load_run_config(run.config, {}))


def test_when_finds_every_step_of_every_customer(past):
    names = past.data.users()["id"].to_pylist()
    expected = {name: [] for name in names}
    for step in range(past.last):
        for sample in order_of.samples(past.steps.order, step):
            if sample >= 0:
                row = int(past.steps.samples.index.rows_of(sample))
                expected[names[row]].append((step + 1, 1 + step // past.steps.order.steps_per_epoch, int(sample)))
    assert sum(map(len, expected.values())) > len(names)
    for name in names:
        assert when(past, name, past.last) == sorted(expected[name])
        assert when(past, name, 3) == [each for each in sorted(expected[name]) if each[0] <= 3]


def test_the_steps_that_when_tells_are_those_in_which_replay_shows_the_customer(past):
    name = past.data.users()["id"].to_pylist()[0]
    steps = {step for step, _, _ in when(past, name, past.last)}
    for step in range(1, past.last + 1):
        found = replay(past, step)
        assert (name in {each["user"] for each in found["samples"]}) == (step in steps)


def test_a_replayed_batch_is_the_same_and_no_other(past):
    assert replay(past, 2) == replay(past, 2)
    assert len({replay(past, step)["sha256"] for step in range(1, past.last + 1)}) == past.last


def test_the_commands(attnrec, trained, past, tmp_path):
    logged = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    done = attnrec("replay", trained.run, "--step", 2, "--output", tmp_path / "step.json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "step.json").read_text())
    assert found["logged_loss"] == next(line["loss"] for line in logged if line["step"] == 2 and "loss" in line)
    assert found["sha256"] in done.out
    user = found["samples"][0]["user"]
    told = attnrec("when", trained.run, "--user", user)
    assert told.code == 0, told.err
    assert 2 in map(int, re.findall(r"^step (\d+)  ", told.out, re.MULTILINE))


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
