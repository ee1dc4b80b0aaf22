"""What a job has to tell at its end (announce.py), of all its processes: speed on real tokens, FLOP/s and MFU, where its
time went, memory, the slowest rank. RUN_DIR/figures.json keeps those of the last job."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from attnrec_dist.batch import Batch, SequenceBatch
from attnrec_dist.data.loader import GlobalBatch
from attnrec_dist.distributed import World
from attnrec_dist.errors import StorageError
from attnrec_dist.models.base import Model
from attnrec_dist.models.layers.transformer import Block
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.run_dir import write_whole

# dense products, TFLOP/s, by a part of the device's name (the first that fits) and the precision, from the makers' data sheets
PEAK: dict[str, dict[str, float]] = {
    "H100 PCIe": {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51},
    "H100 NVL": {"bf16": 835, "fp16": 835, "tf32": 417, "fp32": 60},
    "H200 NVL": {"bf16": 835, "fp16": 835, "tf32": 417, "fp32": 60},
    "H100": {"bf16": 989, "fp16": 989, "tf32": 495, "fp32": 67},
    "H200": {"bf16": 989, "fp16": 989, "tf32": 495, "fp32": 67},
    "A100": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5},
    "L40S": {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6},
    "V100-PCIE": {"fp16": 112, "fp32": 14},
    "V100": {"fp16": 125, "fp32": 15.7},
}
MIG = "MIG"  # a part of a card, of whose arithmetic no data sheet tells
LOGGED = {
    "targets_per_second": "targets/s",
    "tokens_per_second": "tokens/s",
    "tflops": "TFLOP/s a process",
    "mfu": "MFU",
    "peak_mib": "peak MiB",
    "lag_ms": "its lag, ms a step",
}
PARTS = ("data", "forward", "saving", "evaluation")  # what is timed of a job, each rank for itself


@dataclass(frozen=True)
class Flops:
    """FLOPs of training one batch: PaLM's count (Chowdhery et al. 2022, appendix B), but of what is computed: of a causal row's
    pairs the half, of the logits those of places that predict. Forward and backward pass together are thrice the forward."""

    weights: int  # of layers that every token passes
    attention: int  # widths of the blocks, added up
    width: int  # of the item table
    scored: int  # items a place that predicts is scored against

    @classmethod
    def of(cls, model: Model, negatives: int) -> Flops | None:
        """None for a model that does not score items from tokens. `negatives` 0: a loss over the whole catalogue."""
        table = model.table
        if table is None:
            return None
        dense = [each for each in model.modules() if not isinstance(each, nn.Embedding | ItemTable)]
        weights = sum(own.numel() for each in dense for own in each.parameters(recurse=False) if own.dim() > 1)
        blocks = sum(each.shape.width for each in model.modules() if isinstance(each, Block))
        return cls(weights, blocks, table.width, (negatives + 1) if negatives else table.num_items)

    def __call__(self, batch: Batch) -> int:
        """Of one micro-batch."""
        if not isinstance(batch, SequenceBatch):
            return 0
        pairs = int(batch.offsets.diff().long().square().sum()) // 2
        return 6 * (self.weights * batch.num_tokens + 2 * self.attention * pairs + self.width * self.scored * len(batch.queries))

    def __str__(self) -> str:
        each = (
            f"{self.weights:,} weights x tokens",
            f"{2 * self.attention} x pairs",
            f"{self.width} x {self.scored:,} items x queries",
        )
        return f"6 x ({' + '.join(each)}), pairs: half the square of each row's length"


class Figures:
    """Counts while a job trains; nothing here waits for the device or for another process but `keep` and `so_far`."""

    def __init__(self, world: World, precision: str, peak: float | None, alone_forward: bool = True):
        """`alone_forward`: ranks do not wait for one another in a forward pass, so its time tells who is slow."""
        self.world, self.precision, self.given_peak, self.alone_forward = world, precision, peak, alone_forward
        self.flops: Flops | None = None
        self.parameters = 0
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = self.tokens = self.targets = self.operations = 0
        self._began = time.monotonic()

    def begin(self) -> None:
        """Everything is set up: the clock of the training starts."""
        self._began = time.monotonic()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] += time.monotonic() - began

    def step(self, batch: GlobalBatch) -> None:
        """A step of this rank is done."""
        self.steps += 1
        self.tokens += batch.tokens
        self.targets += batch.targets
        if self.flops is not None:
            self.operations += sum(map(self.flops, batch.micro_batches))

    def gathered(self) -> dict[str, Any]:
        """The job's figures; the same on every rank. A collective."""
        passed = max(time.monotonic() - self._began, 1e-9)
        millions = self.operations // 10**6  # of FLOPs: the number itself outgrows 64 bits within hours
        counts = [self.tokens, self.targets, millions, memory(), *(int(1e6 * part) for part in self.seconds.values())]
        ranks = np.stack(self.world.gather(np.array(counts, np.int64)))  # [ranks, counts]
        totals = ranks.sum(0, dtype=np.float64)
        parts = dict(zip(PARTS, (ranks[:, 4:] / 1e6 / passed).T.tolist()))
        training = passed * (1 - parts["saving"][0] - parts["evaluation"][0])
        busy = (ranks[:, 4] + ranks[:, 5]) / 1e3 / max(self.steps, 1)  # ms a step until the first gradient can be there
        tflops = float(totals[2]) / training / 1e6 / self.world.size
        peak = self.given_peak or peak_of(self.world.device, self.precision)
        return {
            "parameters": self.parameters,
            "steps": self.steps,
            "processes": self.world.size,
            "seconds": passed,
            "targets/s": float(totals[1]) / training,
            "tokens/s": float(totals[0]) / training,
            "TFLOP/s a process": tflops,
            "MFU": tflops / peak if peak and self.flops else None,
            "FLOPs of a batch": str(self.flops) if self.flops else None,
            **{part: max(shares) for part, shares in parts.items() if part != "forward"},
            "peak MiB": float(ranks[:, 3].max()) / 2**20,
            "slowest rank": int(busy.argmax()) if self.alone_forward else None,
            "its lag, ms a step": float(busy.max() - np.median(busy)) if self.alone_forward else None,
        }

    def so_far(self) -> dict[str, float]:
        """Those that metrics.jsonl and the trackers get beside an evaluation, before it. A collective."""
        if not self.steps:
            return {}
        found = self.gathered()
        return {f"job/{name}": found[figure] for name, figure in LOGGED.items() if found[figure] is not None}

    def keep(self, path: Path) -> dict[str, Any]:
        """Writes the figures, rank 0, and gives them. A collective."""
        found = self.gathered()
        if self.world.is_main:
            with suppress(StorageError):  # they are printed as well
                write_whole(path, json.dumps(found, indent=1) + "\n")
        return found


def peak_of(device: torch.device, precision: str) -> float | None:
    """TFLOP/s of the device's data sheet; None where it is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if not name or MIG in name:
        return None
    return next((peaks.get(precision) for part, peaks in PEAK.items() if part in name), None)


def memory() -> int:
    """Peak bytes of this process: on its GPU, or in RAM."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
