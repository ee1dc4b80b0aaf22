"""The same steps under every strategy, beside a golden loss curve that is kept in git.

    python benchmarks/strategies.py --beauty data/beauty --ranking data/quickstart-ranking [--steps 200]
    python benchmarks/strategies.py ... --write_golden ranking     # after a change that moves the numbers on purpose
    python benchmarks/strategies.py ... --runs DIR         # goes on in an earlier attempt's runs

SASRec on Amazon Beauty and feature attention on the bundled log's labelled examples; fp32, no dropout, constant learning
rate, one thread a process. Each row is a job of its own, started with launch/<strategy>.yaml as it is: over all steps the
largest relative difference of a loss to the golden curve. Writes benchmarks/results/DATE-strategies.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from shared import stamp, write_result

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "convergence" / "golden"
ROWS = {  # name -> (launch YAML or None for no launcher, processes, further options)
    "single": (None, 1, ()),
    "single, fp64": (None, 1, ("--train.precision", "fp64")),  # the yardstick: what rounding alone makes of the same steps
    "DDP x2": ("ddp", 2, ()),
    "DDP x3": ("ddp", 3, ()),
    "DDP x2, accumulation": ("ddp", 2, ("--train.micro_batch_tokens", "128")),
    "FSDP2 x2": ("fsdp2", 2, ()),
    "ZeRO 1 x2": ("zero1", 2, ()),
    "ZeRO 2 x2": ("zero2", 2, ()),
    "ZeRO 3 x2": ("zero3", 2, ()),
}
SHARED = (
    *("--model.dropout", "0", "--optimizer.schedule", "constant", "--train.max_epochs", "null", "--train.threads", "1"),
    *("--optimizer.eps", "1e-6"),  # at 1e-8 Adam makes a full step of a gradient that is nothing but rounding
)
TASKS = {
    "beauty": ("configs/beauty-sasrec.yaml", ("--train.global_batch_size", "64")),
    "ranking": (
        "configs/quickstart-ranking.yaml",
        ("--train.global_batch_size", "64", "--model.unseen", "0", "--optimizer.lr", "5e-4"),
    ),
}


def trained(task: str, row: str, data: Path, steps: int, run_dir: Path) -> list[float]:
    """The loss of each step."""
    config, keys = TASKS[task]
    launch, processes, options = ROWS[row]
    command = [sys.executable]
    if launch:
        command += ["-m", "accelerate.commands.launch", "--config_file", f"launch/{launch}.yaml"]
        command += ["--num_processes", str(processes), "--main_process_port", "0"]
    command += ["-m", "attnrec_dist", "train", config, "--data", str(data), "--run_dir", str(run_dir)]
    command += [*SHARED, *keys, *options, "--train.max_steps", str(steps)]
    if not (run_dir / "status.json").exists() or json.loads((run_dir / "status.json").read_text())["state"] != "done":
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr[-3000:]}\n{row} on {task} ended with {done.returncode}")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def golden_curve(task: str) -> list[float]:
    lines = (GOLDEN / f"strategies-{task}.txt").read_text().splitlines()
    return [float(line.split()[1]) for line in lines if not line.startswith("#")]


def write_golden(task: str, losses: list[float]) -> None:
    config, keys = TASKS[task]
    head = f"# {config}, {' '.join((*SHARED, *keys))}: one process, fp32.\n# Each line: step loss; by benchmarks/strategies.py.\n"
    curve = "".join(f"{step} {loss!r}\n" for step, loss in enumerate(losses, 1))
    (GOLDEN / f"strategies-{task}.txt").write_text(head + curve)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beauty", type=Path, required=True, help="attnrec prepare configs/prepare/beauty.yaml")
    parser.add_argument("--ranking", type=Path, required=True, help="attnrec prepare configs/prepare/quickstart-ranking.yaml")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--write_golden", nargs="+", choices=list(TASKS), default=[], help="tasks whose curve is written anew")
    parser.add_argument("--runs", type=Path, help="where the runs are kept (default: nowhere)")
    arguments = parser.parse_args()
    half = arguments.steps // 2
    table: dict[str, dict[str, dict[str, float]]] = {}
    print("largest relative difference of a loss to the golden curve")
    print(f"{'':24}" + "".join(f"{f'{task}, {half} steps':>22}{f'{arguments.steps} steps':>12}" for task in TASKS))
    with tempfile.TemporaryDirectory() as scratch:
        for row in ROWS:
            table[row] = {}
            for task in TASKS:
                run_dir = (arguments.runs or Path(scratch)).resolve() / f"{row}-{task}"
                losses = trained(task, row, getattr(arguments, task).resolve(), arguments.steps, run_dir)
                if row == "single" and task in arguments.write_golden:
                    write_golden(task, losses)
                pairs = zip(losses, golden_curve(task)[: arguments.steps], strict=True)
                apart = [abs(mine / theirs - 1) for mine, theirs in pairs]
                table[row][task] = {f"{half} steps": max(apart[:half]), f"{arguments.steps} steps": max(apart)}
            cells = [f"{first:22.1e}{whole:12.1e}" for first, whole in (each.values() for each in table[row].values())]
            print(f"{row:24}" + "".join(cells), flush=True)
    write_result({"steps": arguments.steps, "largest_relative_difference": table} | stamp(), "strategies")


if __name__ == "__main__":
    main()
