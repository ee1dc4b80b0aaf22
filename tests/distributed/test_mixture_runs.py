"""The mixture on the promises: its experts, averaged weights and evidence resume, move and measure as the plain models do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from launching import Trial
from test_resume import assert_same_run, kill
from test_worlds import ONE_MICRO_BATCH, assert_close

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="session")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the other jobs here, one epoch, with all four experts."""
    path = tmp_path_factory.mktemp("config") / "mixture.yaml"
    tree = {
        "data": {"path": str(data), "max_length": 32, "block_size": 16},
        "model": {
            "name": "mixture",
            "body": {"name": "sasrec", "width": 16, "blocks": 1, "heads": 2, "dropout": 0.2},
            "expert_dropout": 0.2,
        },
        "optimizer": {"lr": 0.01, "weight_decay": 0.01, "clip_norm": 1.0},
        "train": {"max_epochs": 1, "global_batch_size": 24, "micro_batch_tokens": 200, "average": 0.9, "timeout": 300},
        "checkpoint": {"every_steps": 4, "keep": 2, "asynchronous": False},
        "evaluation": {"every_steps": 6},
        "tracking": {"log_every": 3},
    }
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def uncut(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Two processes that nobody interrupted."""
    trial = Trial(tmp_path_factory.mktemp("trial"), config, {})  # session_trial may hold the other configuration by now
    trial.run(2)
    yield trial
    trial.close()


def test_a_killed_run_is_the_same_run_averages_included(uncut: Trial, trial: Callable[..., Trial]) -> None:
    cut = trial()
    kill(cut, 2, "after_step:9:last", "last")
    cut.run(2)
    assert [len(entries) for entries in cut.trained().values()] == [2] * 14
    assert_same_run(cut, uncut)
    averaged, weights = ((uncut.run_dir / "last" / name) for name in ("average.safetensors", "objective.safetensors"))
    assert averaged.read_bytes() != weights.read_bytes()
    assert (cut.run_dir / "last" / "average.safetensors").read_bytes() == averaged.read_bytes()


def test_evaluate_gives_the_same_bytes_on_one_and_three_processes(uncut: Trial, tmp_path: Path) -> None:
    texts = []
    for world, launcher in ((1, "plain"), (3, "forked")):
        output = tmp_path / f"{world}.json"
        uncut.start_command(["evaluate", str(uncut.run_dir), "--output", str(output)], world, launcher).wait()
        texts.append(output.read_bytes())
    assert texts[0] == texts[1]
    assert b"ndcg@10" in texts[0]


def test_processes_and_accumulation_change_nothing_but_rounding(trial: Callable[..., Trial]) -> None:
    plain, two, small = (trial(model__body__dropout=0, model__expert_dropout=0, train__precision="fp64") for _ in range(3))
    plain.run(launcher="plain", train__micro_batch_tokens=ONE_MICRO_BATCH)
    two.run(2)
    small.run(launcher="plain", train__micro_batch_tokens=60)
    assert {len(entries[0]["samples"]) for entries in plain.trained().values()} == {1}
    assert min(len(entries[0]["samples"]) for entries in small.trained().values()) >= 2
    assert [len(entries) for entries in two.trained().values()] == [2] * 14
    for other in (two, small):
        assert_close(other, plain, 1e-10)


def clicks_of_which_nothing_is_counted(directory: Path) -> Path:
    """A prepared log of clicks at times of their own; statistics count a kind of event that does not occur, nobody validates."""
    from attnrec_dist.prepare.config import PrepareConfig
    from attnrec_dist.prepare.pipeline import prepare
    from attnrec_dist.settings import build

    draw = random.Random(6)
    lines = [f"u{draw.randrange(40)},i{draw.randrange(20)},{1_000_000 + 977 * place},view" for place in range(600)]
    (directory / "log.csv").write_text("\n".join(["user,item,time,kind", *lines]))
    tree = {
        "input": {"files": ["log.csv"]},
        "columns": {"user": "user", "item": "item", "timestamp": "time", "event": {"name": "kind", "types": ["view", "buy"]}},
        "statistics": {"events": ["buy"]},
        "split": {"train": 0.9, "validation": 0, "test": 0.1},
        "output": {"dir": "unused"},
    }
    prepare(build(PrepareConfig, tree, "test"), directory, directory / "clicks")
    return directory / "clicks"


def test_experts_without_their_statistics_are_off_on_every_process(trial: Callable[..., Trial], tmp_path: Path) -> None:
    data = clicks_of_which_nothing_is_counted(tmp_path)
    keys = {"data__path": data, "model__body__dropout": 0, "model__expert_dropout": 0, "train__precision": "fp64"}
    plain, two = trial(**keys), trial(**keys)
    plain.run(launcher="plain")
    told = two.run(2)
    for expert in ("trend", "graph"):
        assert told.count(f"expert {expert} is off, its weight is 0") == 1
    assert "no validation: the validation part is empty" in told
    assert_close(two, plain, 1e-10)
    output = tmp_path / "test.json"
    two.start_command(["evaluate", str(two.run_dir), "--output", str(output)], 2).wait()
    assert b"ndcg@10" in output.read_bytes()
