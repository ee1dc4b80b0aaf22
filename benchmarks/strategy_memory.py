"""Memory of a process under each strategy, for a model that is one item table, beside the arithmetic.

    python benchmarks/strategy_memory.py [--items 400000] [--width 64] [--processes 2]

Each row is a job started with launch/<strategy>.yaml: the table is looked up and scored in full for a few queries, updated by
Adam. `held` is the resident memory between two steps, `peak` the most of it during one, both without what the process held
before the table was made; of rank 0, in bytes a weight. Writes benchmarks/results/DATE-strategy-memory.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
QUERIES = 16
# bytes a weight, of W processes: (held, peak, of what). fp32: weights 4, gradient 4, Adam's two moments 8. DeepSpeed updates a
# copy of its weights, 4, and sends gradients in a bucket that stays, 4 where it holds them all (zero.py: BUCKET).
ARITHMETIC = {
    "ddp": (
        lambda w: 16,
        lambda w: 20,
        "weights, moments, gradients' buckets; in a step the gradient before it is put into them",
    ),
    "fsdp2": (lambda w: 12 / w, lambda w: 12 / w + 12 + 4 / w, "cut; in a step whole weights, gradient, its copy to send"),
    "zero1": (lambda w: 8 + 12 / w, lambda w: 12 + 16 / w, "whole weights, bucket, the rest cut; in a step the whole gradient"),
    "zero2": (lambda w: 8 + 12 / w, lambda w: 12 + 16 / w, "likewise; the gradient is cut once it is added up"),
    "zero3": (lambda w: 4 + 16 / w, lambda w: 12 + 20 / w, "bucket, the rest cut; in a step whole weights and gradient"),
}


def resident(key: str) -> int:
    """Bytes: VmRSS now, VmHWM the most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(items: int, width: int, output: Path) -> None:
    """One process of a job."""
    import torch
    from torch import nn

    from attnrec_dist.cli import leave
    from attnrec_dist.engine import strategy_fsdp2  # noqa: F401  (imported before the first look at the memory)
    from attnrec_dist.engine.optimizer import OptimizerConfig, make_optimizer
    from attnrec_dist.ops.item_table import ItemTable
    from attnrec_dist.strategies.launch import join
    from attnrec_dist.strategies.make import make_strategy

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = ItemTable(items, width)

        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            place, weight = torch.arange(len(ids)), torch.ones(len(ids))
            return self.table.cross_entropy(self.table(ids), ids, place, weight), weight.sum()

    torch.set_num_threads(1)
    job = join("fp32", 600.0)
    if job.asked.kind == "zero":
        from attnrec_dist.strategies.zero import imported

        imported()
    before = resident("VmRSS")
    strategy = make_strategy(job, Lookup(), lambda module: make_optimizer(module, OptimizerConfig()))
    for step in range(4):
        gc.collect()
        held = resident("VmRSS") - before
        forget_peak()
        torch.manual_seed(step)
        with strategy.accumulating(last=True):
            loss = strategy(torch.randint(items, (QUERIES,)))
            strategy.backward(loss, QUERIES * job.world.size)
        del loss
        strategy.update(strategy.gradient_norm(), None)
        peak = resident("VmHWM") - before
    if job.world.is_main:
        output.write_text(json.dumps({"held": held, "peak": peak}))
    job.world.barrier()
    leave(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        measure(arguments.items, arguments.width, arguments.worker)
        return
    from shared import stamp, write_result

    weights, rows = arguments.items * arguments.width, {}
    print(f"bytes a weight; {weights / 1e6:.0f} million weights, {arguments.processes} processes")
    print(f"{'':8}{'held':>8}{'arithmetic':>12}{'peak':>8}{'arithmetic':>12}")
    for name, (held, peak, why) in ARITHMETIC.items():
        with tempfile.TemporaryDirectory() as scratch:
            answer = Path(scratch) / "answer.json"
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "launch" / f"{name}.yaml")]
            command += ["--num_processes", str(arguments.processes), "--main_process_port", "0", str(Path(__file__).resolve())]
            command += ["--items", str(arguments.items), "--width", str(arguments.width), "--worker", str(answer)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{done.stderr[-3000:]}\n{name} ended with {done.returncode}")
            found = {key: value / weights for key, value in json.loads(answer.read_text()).items()}
        rows[name] = found | {
            "held_arithmetic": held(arguments.processes),
            "peak_arithmetic": peak(arguments.processes),
            "why": why,
        }
        print(
            f"{name:8}{found['held']:8.1f}{rows[name]['held_arithmetic']:12.1f}{found['peak']:8.1f}"
            f"{rows[name]['peak_arithmetic']:12.1f}  {why}",
            flush=True,
        )
    write_result({"weights": weights, "processes": arguments.processes, "rows": rows} | stamp(), "strategy-memory")


if __name__ == "__main__":
    main()
