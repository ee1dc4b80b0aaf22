"""The ranking task on the promises: killed and resumed, moved between processes, measured, as next_item is."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from launching import Trial
from test_resume import assert_same_run, kill
from test_strategies import losses
from test_strategies import trained as strategies_trained
from test_worlds import ONE_MICRO_BATCH, assert_close, samples
from tiny_examples import add_examples

pytestmark = pytest.mark.distributed
STEPS = 12  # of an epoch


@pytest.fixture(scope="session")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of one epoch on two tasks, each step of several micro-batches."""
    examples = tmp_path_factory.mktemp("examples") / "set"
    shutil.copytree(data, examples)
    add_examples(examples, ("label", "cart"), per_user=2)
    path = tmp_path_factory.mktemp("config") / "ranking.yaml"
    tree = {
        "data": {"path": str(examples), "max_length": 16, "block_size": 16},
        "model": {"name": "feature_attention", "width": 8, "heads": 2, "dropout": 0.2, "unseen": 0.1},
        "optimizer": {"lr": 0.01, "clip_norm": 1.0},
        "train": {"max_epochs": 1, "global_batch_size": 50, "micro_batch_tokens": 200, "average": 0.9, "timeout": 300},
        "checkpoint": {"every_steps": 4, "keep": 2, "asynchronous": False},
        "evaluation": {"every_steps": 6},
        "tracking": {"log_every": 3},
    }
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def uncut(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Two processes that nobody interrupted."""
    trial = Trial(tmp_path_factory.mktemp("trial"), config, {})
    trial.run(2)
    yield trial
    trial.close()


def test_a_killed_run_is_the_same_run(uncut: Trial, trial: Callable[..., Trial]) -> None:
    cut = trial()
    kill(cut, 2, "after_step:6:last", "last")
    cut.run(2)
    assert [len(entries) for entries in cut.trained().values()] == [2] * STEPS
    assert_same_run(cut, uncut)
    assert uncut.progress()["extra"]["thresholds"].keys() == {"label", "cart"}


def test_every_example_once_and_stand_ins_weigh_nothing(uncut: Trial) -> None:
    seen = [each for entries in samples(uncut).values() for each in entries]
    real = sorted(each for each in seen if each >= 0)
    assert real == list(range(len(real)))
    assert len(seen) == 50 * STEPS > len(real)
    entries = list(itertools.chain.from_iterable(uncut.trained().values()))
    assert all(entry["standin_weight"] == 0 for entry in entries)
    assert sum(entry["weight"] for entry in entries) == len(real)


def test_processes_and_accumulation_change_nothing_but_rounding(trial: Callable[..., Trial]) -> None:
    keys = {"model__dropout": 0, "model__unseen": 0, "train__precision": "fp64"}
    plain, three = trial(**keys), trial(**keys)
    plain.run(launcher="plain", train__micro_batch_tokens=ONE_MICRO_BATCH)
    three.run(3, train__micro_batch_tokens=45)
    assert samples(three) == samples(plain)
    assert {len(entries[0]["samples"]) for entries in plain.trained().values()} == {1}
    assert min(len(entries[0]["samples"]) for entries in three.trained().values()) >= 2
    assert_close(three, plain, 1e-10)
    losses = plain.losses()
    assert losses[STEPS] < losses[1], "it learns"


def test_evaluate_gives_the_same_bytes_on_one_two_and_three_processes(uncut: Trial, tmp_path: Path) -> None:
    texts, tables = [], []
    for world, launcher in ((1, "plain"), (2, "forked"), (3, "forked")):
        output, table = tmp_path / f"{world}.json", tmp_path / f"{world}.parquet"
        words = ["evaluate", str(uncut.run_dir), "--output", str(output), "--per_view", str(table)]
        uncut.start_command(words, world, launcher).wait()
        texts.append(output.read_bytes())
        tables.append(pq.read_table(table))
    assert texts[0] == texts[1] == texts[2]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert b"log_loss" in texts[0]
    assert tables[0].num_rows > 2 * 32, "several micro-batches for every rank"


@pytest.mark.parametrize("model", ["feature_attention", "target_attention"])
def test_strategies_are_one_computation(model: str, config: Path, trial: Callable[..., Trial], tmp_path: Path) -> None:
    """Weights that modules read of one another are where FSDP2 and ZeRO 3 have to be told of them."""
    keys = {"model__dropout": 0, "model__unseen": 0, "train__max_steps": 4, "train__average": 0}
    tree = yaml.safe_load(config.read_text())
    tree["model"] = {"name": model, "width": 8}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    alone = Trial(tmp_path / "alone", path, keys)
    alone.directory.mkdir()
    alone.run(launcher="plain")
    folder = strategies_trained(2, tmp_path, path, [f"{name}:{name}:4" for name in ("ddp", "fsdp2", "zero2", "zero3")], keys)
    for name in ("ddp", "fsdp2", "zero2", "zero3"):
        assert losses(folder / name) == pytest.approx(losses(alone.run_dir), rel=2e-5, abs=0), name
