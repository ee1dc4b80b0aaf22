"""Losses that draw: the negatives, and so the run, are the same on 1, 2 and 3 processes, after a kill and a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from launching import Trial
from test_worlds import ONE_MICRO_BATCH, assert_close
from tiny_shop import Shop, attnrec_in_process

pytestmark = pytest.mark.distributed
LOSSES = {
    "infonce": {"name": "sampled_softmax", "negatives": 20, "normalize": True, "temperature": 0.1},
    "shared": {"name": "sampled_softmax", "negatives": 20, "shared": True, "distribution": "popularity"},
    "gbce": {"name": "bce", "negatives": 8, "calibration": 0.75},
}
every_loss = pytest.mark.parametrize("keys", LOSSES.values(), ids=list(LOSSES))


@pytest.fixture
def trials(data: Path, tmp_path: Path) -> Iterator[Callable[[dict], Trial]]:
    """Trials of one loss: ten steps of a tiny run without dropout, in float64."""
    made: list[Trial] = []

    def make(loss: dict) -> Trial:
        tree = {
            "data": {"path": str(data), "max_length": 32, "block_size": 16},
            "model": {"name": "sasrec", "width": 16, "blocks": 1, "heads": 2, "dropout": 0},
            "loss": loss,
            "optimizer": {"lr": 0.01, "clip_norm": 1.0},
            "train": {"max_steps": 10, "global_batch_size": 24, "micro_batch_tokens": 200, "precision": "fp64", "timeout": 60},
            "checkpoint": {"every_steps": 4},
            "evaluation": {"every_steps": 4},
        }
        path = tmp_path / f"{len(made)}.yaml"
        path.write_text(yaml.safe_dump(tree))
        made.append(Trial(tmp_path / f"trial-{len(made)}", path))
        return made[-1]

    yield make
    for each in made:
        each.close()


@every_loss
def test_killed_and_moved_from_two_processes_to_three_it_is_the_run_of_one(keys: dict, trials: Callable[..., Trial]) -> None:
    plain, moved = trials(keys), trials(keys)
    assert attnrec_in_process(*plain.arguments(train__micro_batch_tokens=ONE_MICRO_BATCH)) == 0
    job = moved.start(2, pause_at="before_step:6:1")
    job.wait_paused()
    job.kill()
    moved.run(3)
    assert [len(entries) for _, entries in sorted(moved.trained().items())] == [2] * 4 + [3] * 6
    assert_close(moved, plain, 1e-10)
    losses = plain.losses()
    assert losses[10] < losses[1], "it learns"


@pytest.fixture
def any_precision() -> Iterator[None]:
    """Accelerate keeps the first precision of a process; other tests train in this one too."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@every_loss
@pytest.mark.usefixtures("any_precision")
def test_in_bf16_a_run_that_goes_on_is_bitwise_the_run_that_went_through(keys: dict, shop: Shop, tmp_path: Path) -> None:
    tree = yaml.safe_load(shop.run_yaml.read_text()) | {"loss": keys}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))

    def train(run: str, steps: int) -> list[bytes]:
        options = ["--run_dir", tmp_path / run, "--data", shop.data, "--train.precision", "bf16", "--train.max_steps", steps]
        assert attnrec_in_process("train", tmp_path / "run.yaml", *options) == 0
        return [(tmp_path / run / "last" / f"{name}.safetensors").read_bytes() for name in ("objective", "optimizer")]

    train("cut", 3)
    assert train("cut", 6) == train("whole", 6)
