"""The data set and the configuration of all jobs here: made once a session."""

from __future__ import annotations

import collections
import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from launching import Trial

SECONDS = 86400
USERS, ITEMS = 300, 60


@pytest.fixture(scope="session")
def log() -> dict[str, list[tuple[int, list[str]]]]:
    """user -> [(time, items of one basket)]: sizes from 1 to 6, some users with one basket, some with very many."""
    draw = random.Random(5)
    users = {}
    for user in range(USERS):
        baskets = 1 if user % 11 == 0 else draw.randint(60, 90) if user % 29 == 0 else draw.randint(2, 12)
        times = sorted(draw.sample(range(1_000_000 // 60), baskets))
        taste = draw.randrange(ITEMS)
        users[f"u{user}"] = [
            (time * 60, [f"i{(taste + draw.randrange(9)) % ITEMS}" for _ in range(draw.choice((1, 1, 1, 2, 3, 6)))])
            for time in times
        ]
    return users


@pytest.fixture(scope="session")
def data(log: dict[str, list[tuple[int, list[str]]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared log."""
    from attnrec_dist.prepare.config import PrepareConfig
    from attnrec_dist.prepare.pipeline import prepare
    from attnrec_dist.settings import build

    directory = tmp_path_factory.mktemp("data")
    with open(directory / "log.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time"])
        writer.writerows([user, item, time] for user, baskets in log.items() for time, items in baskets for item in items)
    tree = {
        "input": {"files": [str(directory / "log.csv")]},
        "columns": {"user": "user", "item": "item", "timestamp": {"name": "time", "unit": "s"}},
        "output": {"dir": "unused"},
    }
    prepare(build(PrepareConfig, tree, "test"), directory, directory / "set")
    return directory / "set"


@pytest.fixture(scope="session")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of two epochs: some 30 steps, each of several micro-batches."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    tree = {
        "data": {"path": str(data), "max_length": 32, "block_size": 16},
        "model": {"name": "sasrec", "width": 16, "blocks": 1, "heads": 2, "dropout": 0.2},
        "optimizer": {"lr": 0.01, "schedule": "cosine", "warmup_steps": 4, "clip_norm": 1.0},
        "train": {"max_epochs": 2, "global_batch_size": 24, "micro_batch_tokens": 200, "timeout": 300},
        "checkpoint": {"every_steps": 4, "keep": 2, "asynchronous": False},  # so that each is whole before the next step
        "evaluation": {"every_steps": 6},
        "tracking": {"log_every": 3},
    }
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def session_trial(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Trial]]:
    """Makes trials that several tests read."""
    made: list[Trial] = []

    def make(**overrides: object) -> Trial:
        made.append(Trial(tmp_path_factory.mktemp("trial"), config, dict(overrides)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def trial(config: Path, tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    """Makes trials; whatever still runs when the test ends is killed."""
    made: list[Trial] = []

    def make(**overrides: object) -> Trial:
        made.append(Trial(tmp_path / f"trial-{len(made)}", config, dict(overrides)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def whole(session_trial: Callable[..., Trial]) -> Callable[[int], Trial]:
    """whole(world): the run that nobody interrupted, on so many processes."""
    done: dict[int, Trial] = {}

    def get(world: int) -> Trial:
        if world not in done:
            done[world] = session_trial()
            done[world].run(world)
        return done[world]

    return get


@pytest.fixture(scope="session")
def training_baskets(log: dict[str, list[tuple[int, list[str]]]], data: Path) -> dict[str, int]:
    """user -> baskets before the training cut, counted on the generated log itself."""
    import json

    cut = json.loads((data / "manifest.json").read_text())["split"]["train_end"]
    counts = collections.Counter({user: sum(time < cut for time, _ in baskets) for user, baskets in log.items()})
    return {user: count for user, count in counts.items() if count}
