"""Losses that draw, and each form of sample: the run is the same on 1, 2 and 3 processes, after a kill and a resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from launching import Trial
from test_worlds import ONE_MICRO_BATCH, assert_close, samples
from tiny_shop import Shop, attnrec_in_process

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.windows import open_index
from attnrec_dist.engine.config import load_run_config

pytestmark = pytest.mark.distributed
LOSSES = {
    "infonce": {"name": "sampled_softmax", "negatives": 20, "normalize": True, "temperature": 0.1},
    "shared": {"name": "sampled_softmax", "negatives": 20, "shared": True, "distribution": "popularity"},
    "gbce": {"name": "bce", "negatives": 8, "calibration": 0.75},
}
SAMPLES = {
    "last of a window": {"targets": "last"},
    "last of a history": {"targets": "last", "windows": "last"},
    "prefixes": {"targets": "prefixes"},
    "prefixes and nothing": {"targets": "prefixes", "empty_history": True},
}
every_loss = pytest.mark.parametrize("keys", LOSSES.values(), ids=list(LOSSES))


@pytest.fixture
def trials(data: Path, tmp_path: Path) -> Iterator[Callable[[dict, dict], Trial]]:
    """Trials of a loss and a form of sample: one epoch of a tiny run without dropout, in float64."""
    made: list[Trial] = []

    def make(loss: dict, form: dict) -> Trial:
        times = 10 if form.get("targets") == "prefixes" else 1  # as many samples there are then
        tree = {
            "data": {"path": str(data), "max_length": 32, "block_size": 16, **form},
            "model": {"name": "sasrec", "width": 16, "blocks": 1, "heads": 2, "dropout": 0},
            "loss": loss,
            "optimizer": {"lr": 0.01, "clip_norm": 1.0},
            "train": {
                "max_epochs": 1,
                "global_batch_size": 24 * times,
                "micro_batch_tokens": 200 * times,
                "precision": "fp64",
                "timeout": 300,
            },
            "checkpoint": {"every_steps": 4, "asynchronous": False},
            "evaluation": {"every_steps": 4},
        }
        path = tmp_path / f"{len(made)}.yaml"
        path.write_text(yaml.safe_dump(tree))
        made.append(Trial(tmp_path / f"trial-{len(made)}", path))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("loss", "form"),
    [*((loss, {}) for loss in LOSSES.values()), *(({"name": "softmax"}, form) for form in SAMPLES.values())],
    ids=[*LOSSES, *SAMPLES],
)
def test_killed_and_moved_from_two_processes_to_three_it_is_the_run_of_one(
    loss: dict, form: dict, data: Path, trials: Callable[..., Trial]
) -> None:
    plain, moved = trials(loss, form), trials(loss, form)
    assert attnrec_in_process(*plain.arguments(train__micro_batch_tokens=ONE_MICRO_BATCH)) == 0
    job = moved.start(2, pause_at="before_step:6:1")
    job.wait_paused()
    job.kill()
    moved.run(3)
    assert_close(moved, plain, 1e-10)
    losses = plain.losses()
    assert losses[max(losses)] < losses[1], "it learns"
    steps = moved.trained()
    assert [len(entries) for _, entries in sorted(steps.items())] == [2] * 4 + [3] * (len(steps) - 4)
    seen = [sample for entries in samples(moved).values() for sample in entries if sample >= 0]
    index = open_index(DataSet.open(data), load_run_config(moved.config, {}).data, moved.run_dir / "index")
    assert index is not None
    assert sorted(seen) == list(range(len(index))), "every sample once"
    if form:
        assert sum(entry["weight"] for entries in steps.values() for entry in entries) == pytest.approx(len(index))


@pytest.fixture
def any_precision() -> Iterator[None]:
    """Accelerate keeps the first precision of a process; other tests train in this one too."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@every_loss
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.usefixtures("any_precision")
def test_in_16_bits_a_run_that_goes_on_is_bitwise_the_run_that_went_through(
    precision: str, keys: dict, shop: Shop, tmp_path: Path
) -> None:
    """fp16 begins as every run in it does, at a loss scale of 2**16: some of these losses overflow there, and skip steps."""
    tree = yaml.safe_load(shop.run_yaml.read_text()) | {"loss": keys}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))

    def train(run: str, steps: int) -> tuple[dict, list[bytes]]:
        options = ["--run_dir", tmp_path / run, "--data", shop.data, "--train.precision", precision, "--train.max_steps", steps]
        assert attnrec_in_process("train", tmp_path / "run.yaml", *options) == 0
        last = tmp_path / run / "last"
        scaler = json.loads((last / "progress.json").read_text())["scaler"]
        return scaler, [(last / f"{name}.safetensors").read_bytes() for name in ("objective", "optimizer")]

    train("cut", 5)
    scaler, files = train("whole", 6)
    assert train("cut", 6) == (scaler, files)
    assert precision == "bf16" or scaler["good_steps"] > 0, "the last steps were trained"
