"""Promise 1: every sample is trained exactly once an epoch, whatever the number of processes and loader workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from launching import Trial

pytestmark = pytest.mark.distributed
STEPS = 14  # of an epoch
Trained = dict[int, list[dict[str, Any]]]


def flat(entries: list[dict[str, Any]], key: str) -> list[int]:
    """Of all ranks and micro-batches of a step."""
    return [value for entry in entries for micro in entry[key] for value in micro]


def epochs(trained: Trained) -> list[list[list[dict[str, Any]]]]:
    """[epoch][step] -> entries of the ranks."""
    assert sorted(trained) == list(range(2 * STEPS))
    return [[trained[step] for step in range(first, first + STEPS)] for first in (0, STEPS)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_sample_once_an_epoch(
    world: int, whole: Callable[[int], Trial], training_baskets: dict[str, int], data: Path
) -> None:
    ids = pyarrow.parquet.read_table(data / "users.parquet").column("id").to_pylist()
    expected_users = {user for user, baskets in training_baskets.items() if baskets > 1}
    expected_weight = sum(baskets - 1 for baskets in training_baskets.values())  # every basket but a user's first one
    orders = []
    for epoch in epochs(whole(world).trained()):
        seen = [[each for each in flat(entries, "samples") if each >= 0] for entries in epoch]
        everything = list(itertools.chain(*seen))
        assert sorted(everything) == list(range(len(everything)))
        assert len(everything) > len(expected_users), "some histories are cut into windows"
        users = {ids[user] for entries in epoch for user in flat(entries, "users") if user >= 0}
        assert users == expected_users
        assert sum(entry["weight"] for entries in epoch for entry in entries) == pytest.approx(expected_weight)
        orders.append(seen)
    assert orders[0] != orders[1], "each epoch has its own order"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_stand_ins_fill_the_last_step_only_and_weigh_nothing(world: int, whole: Callable[[int], Trial]) -> None:
    for epoch in epochs(whole(world).trained()):
        missing = [sum(each < 0 for each in flat(entries, "samples")) for entries in epoch]
        assert not any(missing[:-1])
        assert missing[-1] > 0
        assert all(len(flat(entries, "samples")) == 24 for entries in epoch)
        assert all(entry["standin_weight"] == 0 for entries in epoch for entry in entries)


def test_the_same_global_batches_on_every_number_of_processes(whole: Callable[[int], Trial]) -> None:
    batches = [
        {step: sorted(flat(entries, "samples")) for step, entries in whole(world).trained().items()} for world in (1, 2, 3)
    ]
    assert batches[0] == batches[1] == batches[2]
    for world in (2, 3):
        for entries in whole(world).trained().values():
            assert len(entries) == world
            assert len({len(entry["samples"]) for entry in entries}) == 1, "equally many micro-batches on every rank"


def test_loader_workers_change_nothing(whole: Callable[[int], Trial], trial: Callable[..., Trial]) -> None:
    read_ahead = trial(data__workers=2)
    read_ahead.run(2)
    assert read_ahead.trained() == whole(2).trained()
    assert read_ahead.curve() == whole(2).curve()
