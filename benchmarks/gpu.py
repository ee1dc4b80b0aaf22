"""What one GPU makes of the package: every strategy and precision, a larger model's speed, the kernels of attention.

    python benchmarks/gpu.py --beauty data/beauty --long data/ml-1m [--steps 200] [--parts strategies size attention]
    python benchmarks/gpu.py ... --device cpu --steps 8     # a rehearsal of the same commands

strategies  SASRec on Amazon Beauty as in benchmarks/strategies.py, one process under each launch/*.yaml: its losses beside the
            golden curve, which a CPU made in fp32, with targets/s, tokens/s, MFU and peak memory of the device
size        SASRec with D = 256, 4 blocks, L = 512 on MovieLens-1M, bf16: tokens/s and MFU, as it is and compiled
attention   forward and backward pass of each kernel on packed rows of MovieLens-1M's lengths (median of the rounds), beside the
            padded one, and how far its results are from the reference's in fp32

A row that fails is told and the others go on. Writes benchmarks/results/DATE-gpu.json.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import stamp, write_result
from strategies import ROOT, SHARED, TASKS, golden_curve

from attnrec_dist.errors import ExitCode

ROWS = [  # strategy (None: no launcher), precision, compiled
    *(
        (strategy, precision, False)
        for strategy in (None, "ddp", "fsdp2", "zero1", "zero2", "zero3")
        for precision in ("fp32", "bf16", "fp16")
    ),
    *((strategy, "bf16", True) for strategy in (None, "ddp", "fsdp2")),
    (None, "tf32", False),
]
SIZE = (
    *("--model.width", "256", "--model.blocks", "4", "--model.heads", "4", "--data.max_length", "512"),
    *("--train.global_batch_size", "128", "--train.micro_batch_tokens", "65536", "--train.max_epochs", "null"),
)
KEPT = ("targets/s", "tokens/s", "TFLOP/s a process", "MFU", "peak MiB")
HEADS, WIDTH = 4, 64
REFERENCE_TOKENS = 4096  # it forms all T x T scores


class Failed(Exception):
    """A job ended badly; its last words. `refused`: as a user's mistake, as tf32 is on a CPU."""

    def __init__(self, words: str, refused: bool):
        super().__init__(words)
        self.refused = refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beauty", type=Path, required=True, help="attnrec prepare configs/prepare/beauty.yaml")
    parser.add_argument("--long", type=Path, required=True, help="attnrec prepare configs/prepare/ml-1m.yaml")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20, help="of each kernel")
    parser.add_argument("--tokens", type=int, default=65536, help="of the batch that kernels are given")
    parser.add_argument(
        "--parts", nargs="+", choices=("strategies", "size", "attention"), default=["strategies", "size", "attention"]
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    result: dict[str, Any] = {"device": device_name(asked.device), "steps": asked.steps}
    print(result["device"])
    parts: dict[str, Callable[..., dict]] = {"strategies": strategies, "size": size, "attention": attention}
    with tempfile.TemporaryDirectory() as scratch:
        for part in asked.parts:
            print(f"\n{part}")
            result[part] = parts[part](asked, Path(scratch))
    write_result(result | stamp(), "gpu" if asked.device == "cuda" else "gpu-rehearsal")
    if failed := [f"{part}, {row}" for part in asked.parts for row, found in result[part].items() if "failed" in found]:
        sys.exit(f"failed: {'; '.join(failed)}")


def device_name(device: str) -> str:
    import torch

    if device == "cpu":
        return "CPU (rehearsal)"
    if not torch.cuda.is_available():
        sys.exit("no GPU is there; --device cpu rehearses the same commands")
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def strategies(asked: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Any]]:
    """{row: figures, largest relative difference of a loss to the golden curve, steps that fp16 skipped}"""
    config, keys = TASKS["beauty"]
    golden = golden_curve("beauty")[: asked.steps]
    table = {}
    for strategy, precision, compiled in ROWS:
        name = f"{strategy or 'single'}, {precision}{', compiled' if compiled else ''}"
        options = [*SHARED, *keys, "--train.precision", precision, "--train.compile", str(compiled).lower()]

        def row(name: str = name, strategy: str | None = strategy, options: list[str] = options) -> dict[str, Any]:
            lines, figures = trained(
                strategy, [config, "--data", str(asked.beauty.resolve()), *options], asked.steps, scratch / name
            )
            losses = [line["loss"] for line in lines]
            apart = max(abs(mine / theirs - 1) for mine, theirs in zip(losses, golden, strict=True))
            return {"largest relative difference": apart, "skipped steps": lines[-1].get("skipped_steps", 0), **figures}

        table[name] = told(name, row)
    return table


def size(asked: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Any]]:
    table = {}
    for name, compiled in (("as it is", "false"), ("compiled", "true")):
        options = ["configs/ml-1m-sasrec.yaml", "--data", str(asked.long.resolve()), *SIZE]
        options += ["--train.precision", "bf16", "--train.compile", compiled]

        def row(name: str = name, options: list[str] = options) -> dict[str, Any]:
            return trained(None, options, asked.steps, scratch / name)[1]

        table[name] = told(name, row)
    return table


def trained(strategy: str | None, options: list[str], steps: int, run_dir: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(what metrics.jsonl says of each step, the job's figures). Raises Failed."""
    command = [sys.executable]
    if strategy:
        command += ["-m", "accelerate.commands.launch", "--config_file", f"launch/{strategy}.yaml"]
        command += ["--num_processes", "1", "--main_process_port", "0"]
    command += ["-m", "attnrec_dist", "train", *options, "--run_dir", str(run_dir), "--train.max_steps", str(steps)]
    command += ["--evaluation.every_steps", str(2**30)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(" | ".join(done.stderr.strip().splitlines()[-3:]), done.returncode == ExitCode.USER_ERROR)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    figures = json.loads((run_dir / "figures.json").read_text())
    return [line for line in lines if "loss" in line], {name: figures[name] for name in KEPT}


def told(name: str, row: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        found = row()
    except Failed as error:
        found = {"refused" if error.refused else "failed": str(error)}
    cells = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items())
    print(f"{name:24} {cells}", flush=True)
    return found


def attention(asked: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Any]]:
    """{kernel, baskets or not: ms a forward and backward pass, tokens/s, largest difference to the reference}"""
    import numpy as np
    import torch

    from attnrec_dist.data.dataset import DataSet

    rows = next(iter(DataSet.open(asked.long, verify=False).scan()))
    lengths = np.minimum(np.diff(rows.offsets), 512)
    precision = torch.bfloat16 if asked.device == "cuda" else torch.float32
    table = {}
    for baskets in (False, True):
        for kernel in ("varlen", "flex", "bucketed"):
            name = f"{kernel}{', baskets of 3' if baskets else ''}"

            def row(kernel: str = kernel, baskets: bool = baskets) -> dict[str, Any]:
                return measured(kernel, fitting(lengths, asked.tokens), baskets, precision, asked)

            table[name] = told(name, row)
    return table


def fitting(lengths: Any, tokens: int) -> list[int]:
    """As many rows from the first on as have no more than so many tokens; one at least."""
    rows = int((lengths.cumsum() <= tokens).sum())
    return [int(each) for each in lengths[: max(rows, 1)]]


def measured(kernel: str, lengths: list[int], baskets: bool, precision: Any, asked: argparse.Namespace) -> dict[str, Any]:
    import torch

    from attnrec_dist.errors import ConfigError

    few = [min(each, REFERENCE_TOKENS // 8) for each in lengths[:8]]
    try:
        pairs = zip(
            Attention(few, baskets, asked.device, precision).passes(kernel),
            Attention(few, baskets, asked.device, torch.float32).passes("reference"),
            strict=True,
        )
        apart = max(((mine.float() - theirs).abs().max() / theirs.abs().max()).item() for mine, theirs in pairs)
        whole, seconds = Attention(lengths, baskets, asked.device, precision), []
        for _ in range(asked.rounds):
            synchronise(asked.device)
            began = time.perf_counter()
            whole.passes(kernel)
            synchronise(asked.device)
            seconds.append(time.perf_counter() - began)
    except ConfigError as error:
        return {"not on this device": str(error)}
    middle = statistics.median(seconds)
    return {"ms": 1e3 * middle, "tokens/s": sum(lengths) / middle, "largest difference, relative": apart}


class Attention:
    """q, k, v on packed rows of these lengths, each token a basket, or three; equal draws whatever device and type."""

    def __init__(self, lengths: list[int], baskets: bool, device: str, dtype: Any):
        import torch

        from attnrec_dist.ops.packed import Layout

        sizes = torch.tensor(lengths)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        tokens = int(offsets[-1])
        place = torch.arange(tokens) - offsets[:-1].repeat_interleave(sizes)
        basket = (place // 3).to(device) if baskets else None
        self.layout = Layout(offsets.int().to(device), basket, max(lengths), tokens)
        draw = torch.Generator().manual_seed(0)
        drawn = [torch.randn(tokens, HEADS, WIDTH, generator=draw) for _ in range(3)]
        self.inputs = [each.to(device, dtype).requires_grad_() for each in drawn]

    def passes(self, kernel: str) -> list[Any]:
        """The result, and the gradients of q, k, v."""
        from attnrec_dist.ops.attention import attention as attend

        for each in self.inputs:
            each.grad = None
        result = attend(*self.inputs, self.layout, kernel=kernel)
        result.float().square().sum().backward()
        return [result.detach(), *(each.grad for each in self.inputs)]


def synchronise(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
