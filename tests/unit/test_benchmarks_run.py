"""Each script of benchmarks/ that looks into the package still runs, small: they are run rarely, and the package moves on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = "DATA"  # stands for a data set of the bundled log
SCRIPTS = {
    "spine": ["--data", DATA],
    "loader_speed": ["--data", DATA, "--rounds", "2"],
    "losses": ["--config", "configs/quickstart-sasrec.yaml", "--data", DATA],
    "million_items": ["--items", "5000", "--users", "300", "--steps", "1", "--customers", "4"],
    "expert_cost": ["configs/quickstart-mixture.yaml", "--data.path", DATA, "--epochs", "1", "--repeats", "1"],
    "strategy_memory": ["--items", "3000"],
    "train_throughput": [DATA, "--max_length", "50", "--rounds", "1", "--rows", "attnrec sampled, own"],
    "weak_scaling": ["configs/quickstart-sasrec.yaml", "--data", DATA, "--epochs", "2", "--rounds", "1"],
    "gpu": [
        *("--beauty", DATA, "--long", DATA, "--parts", "size", "attention", "--device", "cpu"),
        *("--steps", "2", "--tokens", "2000", "--rounds", "2"),
    ],
    "prepare_scale": ["--events", "20000", "--pandas", "20000"],
    "json_lines": ["--events", "20000"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "quickstart"
    words = ["prepare", "configs/prepare/quickstart.yaml", "--output", str(place)]
    subprocess.run([sys.executable, "-m", "attnrec_dist", *words], cwd=ROOT, check=True, capture_output=True)
    return place


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_runs(script, data, tmp_path):
    words = [str(data) if word == DATA else word for word in SCRIPTS[script]]
    environment = {**os.environ, "ATTNREC_RESULTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, f"benchmarks/{script}.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.strip(), "a table at least"
    for result in tmp_path.glob("*.json"):
        assert json.loads(result.read_text())
