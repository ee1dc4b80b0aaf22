"""Promise 5: `attnrec evaluate` gives the same figures to the last digit on any number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import Trial

pytestmark = pytest.mark.distributed


def test_the_same_figures_on_one_two_and_three_processes(whole: Callable[[int], Trial], tmp_path: Path) -> None:
    trial = whole(1)
    texts = []
    for world, launcher in ((1, "plain"), (2, "accelerate"), (3, "torchrun")):
        output = tmp_path / f"{world}.json"
        trial.start_command(["evaluate", str(trial.run_dir), "--output", str(output)], world, launcher).wait()
        texts.append(output.read_text())
    assert texts[0] == texts[1] == texts[2]
    assert "ndcg@10" in texts[0]
    assert json.loads(texts[0])
