"""Weak scaling, and what checkpoints cost: as much work for each process, one thread each.

    python benchmarks/weak_scaling.py configs/beauty-sasrec.yaml [--data DIR] [--processes 1 2] [--epochs 1] [--rounds 2]
        [--name NAME] [--any.key VALUE ...]

A round trains once on each number of processes (launch/ddp.yaml), its batch as many times the configuration's, and once as many
processes that know nothing of each other, which tells what the machine itself gives them (cores share memory and caches).
Timed are the steps from the fourth on, by metrics.jsonl, without evaluations and saves; targets/s of all processes together.
Efficiency is targets/s over those of one process, times the number. Checkpoints are at the default interval, after each
evaluation: their share is the time inside the engine's `save` over the whole time of training. Medians of the rounds. Writes
benchmarks/results/DATE-weak-scaling-NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shared import stamp, write_result

ROOT = Path(__file__).parent.parent
WARM_UP = 3


def main() -> None:
    if sys.argv[1] == "train":
        sys.exit(timed(sys.argv[1:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, help="default: the configuration's")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--name", help="of the result (default: the configuration's)")
    asked, asked.keys = parser.parse_known_args()
    os.environ |= dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
    batch = batch_of(asked.config)
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.rounds):
            for world in asked.processes:
                rows.setdefault(f"{world} together", []).append(together(asked, world, batch, Path(folder) / f"{turn}-{world}"))
                if world > 1:
                    rows.setdefault(f"{world} apart", []).append(apart(asked, world, Path(folder) / f"{turn}-{world}-apart"))
    medians = {name: {key: statistics.median(each[key] for each in of) for key in of[0]} for name, of in rows.items()}
    alone = medians[f"{asked.processes[0]} together"]["targets/s"] / asked.processes[0]
    print(f"{'processes':14}{'targets/s':>12}{'efficiency':>12}{'saves, share of the time':>28}{'ms a save':>12}")
    for name, row in medians.items():
        row["efficiency"] = row["targets/s"] / alone / int(name.split()[0])
        print(f"{name:14}{row['targets/s']:12,.0f}{row['efficiency']:12.3f}{row['saving']:28.2%}{1000 * row['s a save']:12.0f}")
    write_result({"rows": medians, "each round": rows, **stamp()}, f"weak-scaling-{asked.name or asked.config.stem}")


def batch_of(config: Path) -> int:
    from attnrec_dist.settings import read_yaml

    return int(read_yaml(config)["train"]["global_batch_size"])


def command(asked: argparse.Namespace, run_dir: Path, batch: int) -> list[str]:
    keys = ["--run_dir", run_dir, "--train.global_batch_size", batch, "--train.max_epochs", asked.epochs, "--train.threads", 1]
    keys += ["--data", asked.data] if asked.data else []
    return [str(each) for each in [Path(__file__).absolute(), "train", asked.config, *keys, *asked.keys]]


def together(asked: argparse.Namespace, world: int, batch: int, run_dir: Path) -> dict[str, float]:
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "launch" / "ddp.yaml")]
    launcher += ["--num_processes", str(world)]
    process = started([*(launcher if world > 1 else []), *command(asked, run_dir, world * batch)], run_dir)
    return told([process], [run_dir])


def apart(asked: argparse.Namespace, world: int, run_dir: Path) -> dict[str, float]:
    folders = [run_dir.with_name(f"{run_dir.name}-{place}") for place in range(world)]
    batch = batch_of(asked.config)
    return told([started(command(asked, folder, batch), folder) for folder in folders], folders)


def started(arguments: list[str], run_dir: Path) -> subprocess.Popen[bytes]:
    log = run_dir.with_suffix(".log").open("w")
    return subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log)


def told(processes: list[subprocess.Popen[bytes]], folders: list[Path]) -> dict[str, float]:
    """What their metrics and their clocks of saving say."""
    for process, folder in zip(processes, folders):
        if process.wait():
            sys.exit(folder.with_suffix(".log").read_text()[-3000:])
    rates, shares, each = [], [], []
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "loss" in line]
        clock = json.loads((folder / "saves.json").read_text())
        between = [(b["seconds"] - a["seconds"]) for a, b in zip(steps[WARM_UP:], steps[WARM_UP + 1 :])]
        pauses = sorted(between)[-len(clock["saves"]) :]  # the steps after an evaluation and its save
        rates.append(clock["targets a step"] * (len(between) - len(pauses)) / (sum(between) - sum(pauses)))
        shares.append(sum(clock["saves"]) / steps[-1]["seconds"])
        each.append(statistics.mean(clock["saves"]))
    return {"targets/s": sum(rates), "saving": max(shares), "s a save": max(each)}


def timed(arguments: list[str]) -> int:
    """`attnrec ARGUMENTS`, with a clock on each save; rank 0 leaves RUN_DIR/saves.json behind."""
    from attnrec_dist.cli import leave
    from attnrec_dist.cli import main as attnrec
    from attnrec_dist.engine.run import Run
    from attnrec_dist.engine.saver import Saver

    saves: list[float] = []
    weights: list[float] = []
    save, log = Saver.save, Run.log

    def clocked(saver: Saver, progress) -> None:
        began, run = time.perf_counter(), saver.run
        save(saver, progress)
        saves.append(time.perf_counter() - began)
        if run.world.is_main:
            clock = {"saves": saves, "targets a step": statistics.mean(weights)}
            (run.run_dir.path / "saves.json").write_text(json.dumps(clock))

    def counted(self: Run, progress, loss, rate, batch, *more) -> None:
        weights.append(batch.target_weight)  # of all ranks
        log(self, progress, loss, rate, batch, *more)

    Saver.save, Run.log = clocked, counted  # type: ignore[method-assign]
    leave(attnrec(arguments))
    return 0


if __name__ == "__main__":
    main()
