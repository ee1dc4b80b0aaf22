"""A short run on the bundled log whose loss at every step is kept in golden/: a change of numerics shows up as a diff.

`make golden` (or: python tests/convergence/golden_run.py) writes the file anew; say in the commit why the numbers moved.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
METRIC = "next_basket/all/ndcg@10"
SHARED = {
    "data.max_length": 50,
    "optimizer.clip_norm": 1.0,
    "optimizer.warmup_steps": 10,
    "train.global_batch_size": 32,
    "train.max_epochs": "null",
    "train.max_steps": 60,
    "train.threads": 1,
    "evaluation.every_steps": 60,
}
CURVES = {  # configuration -> what is overridden in it
    "quickstart-sasrec": {"model.width": 32, **SHARED},
    "quickstart-mixture": {"model.body.width": 32, "model.expert_dropout": 0.1, **SHARED},
}


def head(name: str) -> str:
    options = " ".join(f"{key}={value}" for key, value in CURVES[name].items())
    return f"""\
# configs/{name}.yaml on the bundled log, {options}
# One CPU thread, dropout on. Each line: step loss; the last one: validation {METRIC} after step 60.
# Compared by tests/convergence/test_golden.py; written anew by `make golden`.
"""


def attnrec(*arguments: str) -> None:
    """Runs a command; where it fails, what it printed is in the error."""
    command = [sys.executable, "-m", "attnrec_dist", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def measure(name: str, directory: Path) -> tuple[list[float], float]:
    """Prepares and trains in `directory`: (losses of the steps 1, 2, ..., validation figure)."""
    data, run = directory / "data", directory / "run"
    attnrec("prepare", "configs/prepare/quickstart.yaml", "--output", str(data))
    options = [word for key, value in CURVES[name].items() for word in (f"--{key}", str(value))]
    attnrec("train", f"configs/{name}.yaml", "--data", str(data), "--run_dir", str(run), *options)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (figure,) = [line[f"eval/{METRIC}"] for line in lines if f"eval/{METRIC}" in line]
    return [line["loss"] for line in lines if "loss" in line], figure


def read(name: str) -> tuple[list[float], float]:
    """What the file holds, as `measure` returns it."""
    file = GOLDEN / f"{name}.txt"
    rows = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    *steps, (name, figure) = rows
    if [int(step) for step, _ in steps] != list(range(1, len(steps) + 1)) or name != METRIC:
        raise ValueError(f"{file}: steps are missing; write it anew with `make golden`")
    return [float(loss) for _, loss in steps], float(figure)


def main() -> None:
    for name in CURVES:
        with tempfile.TemporaryDirectory() as directory:
            losses, figure = measure(name, Path(directory))
        lines = [f"{step} {loss:.6f}\n" for step, loss in enumerate(losses, 1)]
        file = GOLDEN / f"{name}.txt"
        file.write_text(head(name) + "".join(lines) + f"{METRIC} {figure:.4f}\n")
        print(file)


if __name__ == "__main__":
    main()
