"""What a job tells at its end: FLOPs against torch's counter, shares of time, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnrec_dist.batch import DataSpec, SequenceBatch
from attnrec_dist.data.loader import GlobalBatch
from attnrec_dist.distributed import World
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.models.base import RankingModel
from attnrec_dist.monitoring.throughput import PARTS, Figures, Flops, peak_of
from attnrec_dist.settings import build

ITEMS, LENGTHS = 500, (70, 3, 41, 128)


def batch_of(lengths=LENGTHS) -> SequenceBatch:
    offsets = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)
    tokens = int(offsets[-1])
    draw = torch.Generator().manual_seed(3)
    return SequenceBatch(
        sample_ids=torch.arange(len(lengths)),
        users=torch.arange(len(lengths)),
        items=torch.randint(ITEMS, (tokens,), generator=draw),
        times=torch.arange(tokens),
        baskets=torch.cat([torch.arange(each) for each in lengths]),
        offsets=offsets,
        queries=torch.arange(tokens),
        query_times=torch.arange(tokens) + 1,
        targets=torch.randint(ITEMS, (tokens,), generator=draw),
        target_query=torch.arange(tokens),
        target_weight=torch.ones(tokens),
        max_length=max(lengths),
        singletons=True,
    )


def built(model: dict, loss: dict) -> tuple[torch.nn.Module, torch.nn.Module, Flops]:
    spec = DataSpec(ITEMS, max(LENGTHS))
    made = build_model(build(model_config_class(model["name"]), model, "model"), spec)
    config = build(loss_config_class(loss["name"]), loss, "loss")
    return made, build_loss(config, spec), Flops.of(made, getattr(config, "negatives", None))


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_dense_layers_and_logits_are_what_torch_counts():
    """Its counter knows no attention kernel of CPUs, so that part is tested below."""
    keys = {"name": "sasrec", "width": 32, "blocks": 3, "heads": 2, "feed_forward": 4}
    model, loss, flops = built(keys, {"name": "softmax"})
    batch = batch_of()

    def train() -> None:
        total = loss(model(batch), batch, model.table)
        total.backward()

    assert Flops(flops.weights, 0, flops.width, flops.scored)(batch) == counted(train)
    assert built(keys, {"name": "sampled_softmax", "negatives": 64})[2].scored == 65, "the target itself, too"


def test_attention_is_half_of_what_a_square_takes():
    n, width, blocks = 64, 32, 3
    q, k, v = (torch.randn(n, width, requires_grad=True) for _ in range(3))
    square = counted(lambda: (torch.softmax(q @ k.T, 1) @ v).sum().backward())
    flops = Flops(0, width * blocks, width, 0)
    assert flops(batch_of((n,))) == blocks * square / 2
    assert flops(batch_of((n, n))) == blocks * square


def test_what_scores_no_items_has_no_formula():
    assert Flops.of(RankingModel(), 0) is None


@pytest.fixture
def clock(monkeypatch):
    """Seconds, by hand: a busy machine changes nothing."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_time_is_dealt_to_its_parts(tmp_path, clock):
    figures = Figures(World(), "fp32", peak=1e-6)
    figures.flops = Flops(100, 0, 1, 1)
    figures.begin()
    with figures.timed("evaluation"):
        clock[0] += 0.2
    batch = batch_of()
    figures.step(GlobalBatch(0, [batch], 1.0, 242, batch.num_tokens))
    clock[0] += 0.2
    assert figures.keep(tmp_path / "figures.json")["FLOPs of a batch"].startswith("6 x (100 weights x tokens")
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["evaluation"] == pytest.approx(0.5)
    assert found["tokens/s"] == pytest.approx(sum(LENGTHS) / 0.2)
    assert found["MFU"] == pytest.approx(found["TFLOP/s a process"] / 1e-6)
    assert (found["saving"], found["data"]) == (0, 0)


def test_a_month_of_a_gpu_is_counted(clock):
    figures = Figures(World(), "bf16", peak=400)
    figures.flops, figures.operations, figures.steps = Flops(100, 0, 1, 1), 10**21, 1
    figures.begin()
    clock[0] += 0.01
    assert figures.gathered()["TFLOP/s a process"] > 1e7


def test_where_forward_passes_wait_for_one_another_nobody_is_slow():
    figures = Figures(World(), "fp32", None, alone_forward=False)
    figures.begin()
    assert figures.gathered()["slowest rank"] is None


def test_a_training_ends_with_them(trained, attnrec, tmp_path):
    done = attnrec("train", trained.run_yaml, "--run_dir", tmp_path / "run", "--data", trained.data)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run" / "figures.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert found["steps"] == sum("loss" in line for line in lines)
    assert 0 < found["saving"] < 1
    assert 0 < found["evaluation"] < 1
    for words in ("targets/s, ", "% training steps", "best "):
        assert words in done.err
    for words in ("FLOP", "MFU", "goodput"):
        assert words not in done.err, "a CPU has no peak to compare with, and nothing was lost"
    assert "slowest" not in done.err, "there is one process"


def test_parts_and_devices():
    assert PARTS[:2] == ("data", "forward"), "the lag is of these"
    assert peak_of(torch.device("cpu"), "bf16") is None
