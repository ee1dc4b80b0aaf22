"""What each expert of a mixture costs in training: CPU time a step and peak memory, with every one left out in turn.

    python benchmarks/expert_cost.py configs/quickstart-mixture.yaml [--epochs 2] [--repeats 3] [--any.key VALUE ...]

A training of some epochs and one of a single step, each in a process of its own; the difference is what the steps took, loading
and evidence included, evaluation not. Medians of the repeats, the choices of experts interleaved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from beat_the_shop import steps_per_epoch
from shared import Cost, attnrec, stamp, write_result

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.settings import parse_overrides, take_overrides


def main() -> None:
    overrides, rest = take_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of a run of the mixture; --any.key VALUE overrides a key of it")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(rest)
    config = load_run_config(arguments.config, parse_overrides(overrides))
    data = DataSet.open(Path(config.data.path), verify=False)
    steps = arguments.epochs * steps_per_epoch(data, config)
    experts = list(config.model.experts)
    kinds = {"all": experts} | {f"without {name}": [other for other in experts if other != name] for name in experts}
    kinds["sequence alone"] = ["sequence"]
    costs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(arguments.repeats):
        for kind, chosen in kinds.items():
            keys = [*overrides, "--model.experts", json.dumps(chosen)]
            long, short = (train(arguments.config, keys, count) for count in (steps, 1))
            costs[kind].append((1000 * (long.cpu_seconds - short.cpu_seconds) / (steps - 1), long.peak_mb))
    print(f"{'':20}{'CPU ms a step':>15}{'peak MB':>10}")
    rows = {}
    for kind, measured in costs.items():
        ms, mb = (statistics.median(each) for each in zip(*measured, strict=True))
        rows[kind] = {"cpu_ms_a_step": ms, "peak_mb": mb}
        print(f"{kind:20}{ms:>15.1f}{mb:>10.0f}")
    write_result(stamp() | {"steps": steps, "rows": rows}, f"{arguments.config.stem}-expert-cost")


def train(yaml: Path, keys: list[str], steps: int) -> Cost:
    """So many steps without evaluation, in a directory that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        limits = ["--train.max_steps", steps, "--train.max_epochs", "null", "--train.threads", 1]
        return attnrec("train", yaml, "--run_dir", Path(folder) / "run", *keys, *limits, "--evaluation.every_steps", 10**6)


if __name__ == "__main__":
    main()
