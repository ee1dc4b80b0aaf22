"""Batches from a prepared data set: the same with any number of workers, from any step on; what happens when a worker dies."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.loader import Share, Steps, batches, worker_errors
from attnrec_dist.data.order import Order, samples
from attnrec_dist.data.samples import WindowSamples
from attnrec_dist.data.windows import build_index, open_index
from attnrec_dist.errors import WorkerError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def make_steps(shop, tmp_path_factory):
    directory = tmp_path_factory.mktemp("index")
    data = DataSet.open(shop.data)

    def make(share: Share | None = None, **keys) -> Steps:
        config = DataConfig(path=str(shop.data), max_length=12, block_size=8, **keys)
        build_index(data, config, directory)
        index = open_index(data, config, directory)
        order = Order(data.manifest.fingerprint, 0, len(index), 16, config.block_size, config.shuffle_blocks)
        return Steps(WindowSamples(data, index, config), config, order, share or Share(0, 1, 60))

    return make


def assert_equal(one, other) -> None:
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "micro_batches":
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                assert_equal(a, b)
        elif field.name == "events":
            assert mine.keys() == theirs.keys() == {"event", "quantity"}
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        elif isinstance(mine, torch.Tensor):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name


def test_workers_change_nothing(make_steps):
    plain = list(batches(make_steps(), 0, 7, CPU))
    assert [batch.step for batch in plain] == list(range(7))
    assert len({micro.sample_ids.numpy().tobytes() for batch in plain for micro in batch.micro_batches}) > 7
    for workers in (1, 2):
        for one, other in zip(batches(make_steps(workers=workers), 0, 7, CPU), plain, strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_beginning_at_a_step_is_skipping_those_before_it(make_steps, workers):
    whole = list(batches(make_steps(), 0, 9, CPU))
    for one, other in zip(batches(make_steps(workers=workers), 6, 9, CPU), whole[6:], strict=True):
        assert_equal(one, other)


def test_ranks_share_the_global_batch_of_the_order(make_steps):
    for step in (0, 1, make_steps().order.steps_per_epoch - 1):
        for world in (1, 2, 3):
            parts = [make_steps(Share(rank, world, 60))[step] for rank in range(world)]
            ids = np.concatenate([micro.sample_ids.numpy() for part in parts for micro in part.micro_batches])
            assert sorted(ids) == sorted(samples(make_steps().order, step))
            assert len({len(part.micro_batches) for part in parts}) == 1


def test_samples_say_whose_they_are(make_steps):
    steps = make_steps(shuffle_blocks=2)
    for batch in batches(steps, 0, steps.order.steps_per_epoch, CPU):
        for micro in batch.micro_batches:
            for row, (sample, user) in enumerate(zip(micro.sample_ids.tolist(), micro.users.tolist(), strict=True)):
                if sample < 0:
                    assert user < 0
                    continue
                begin, end = int(micro.offsets[row]), int(micro.offsets[row + 1])
                own = steps.samples.data.rows(np.array([user]))
                first = int(steps.samples.index.windows[sample, 0])
                assert micro.items[begin:end].tolist() == own.items[first : first + end - begin].tolist()


@pytest.fixture
def fresh_handler(monkeypatch):
    """torch installs its handler for dead workers once a process; a WorkerError takes it away, the next test wants it back."""
    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    yield
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, before)


def _kill_a_worker() -> None:
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("where", ["while waiting", "while training"])
def test_a_worker_that_dies_is_a_worker_error(make_steps, where, fresh_handler):
    """torch raises from a signal handler: inside the loader when the loop waits for a batch, outside when it computes."""
    steps = make_steps(workers=1, loader_timeout=600)

    def train() -> None:
        for batch in batches(steps, 0, 10_000, CPU):
            if batch.step == 2:
                _kill_a_worker()
                if where == "while training":
                    time.sleep(300)  # cut short by the signal

    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"a loader worker failed .*--data.workers 0"), worker_errors():
        train()
    assert time.monotonic() - started < 240, "neither waited out"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_silent_worker_is_a_worker_error(make_steps, monkeypatch, fresh_handler):
    steps = make_steps(workers=1, loader_timeout=0.5)
    monkeypatch.setattr(Steps, "__getitem__", lambda self, step: time.sleep(2))
    with pytest.raises(WorkerError, match=r"timed out after 0\.5 seconds"):
        next(batches(steps, 0, 10, CPU))


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="the model's worker bees"), worker_errors():
        raise RuntimeError("the model's worker bees")


def test_a_query_has_its_key_on_any_layout(make_steps):
    """Keys tell queries apart, steps too, and depend neither on ranks, micro-batches nor on the step's other samples."""
    order = make_steps().order

    def keys(world: int, budget: int, step: int) -> tuple[dict[tuple[int, int], int], set[int]]:
        of_query, of_step = {}, set()
        for rank in range(world):
            for micro in make_steps(Share(rank, world, budget))[step].micro_batches:
                row = torch.searchsorted(micro.offsets[1:].long(), micro.queries, right=True)
                pairs = zip(micro.sample_ids[row].tolist(), micro.query_keys.tolist(), strict=True)
                for place, (sample, key) in enumerate(pairs):
                    of_query[sample, place - row.tolist().index(row[place])] = key
                of_step |= set(micro.step_key.tolist())
        return of_query, of_step

    last = order.steps_per_epoch - 1
    for step in (0, last):
        one, step_key = keys(1, 10_000, step)
        assert len(step_key) == 1
        assert len(set(one.values())) == len(one) > 16
        for world, budget in ((1, 20), (2, 60), (3, 20)):
            assert keys(world, budget, step) == (one, step_key)
    assert not set(keys(1, 60, 0)[0].values()) & set(keys(1, 60, last + 1)[0].values())
    assert keys(1, 60, 0)[1] != keys(1, 60, last + 1)[1]
