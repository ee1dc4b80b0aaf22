"""What every runner does alike: arguments, histories, clock, memory, one JSON line at the end. Needs torch only.

A runner trains SASRec (width 64, 2 blocks, 2 heads, feed-forward 64, dropout .2, Adam 1e-3) for so many steps, and then lists
ten items for every user. Split: a history's last item is the test, the one before it the validation.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
import time
from pathlib import Path

WARM_UP = 3  # steps that are not counted


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("histories", type=Path, help="a line a user: items 0 to V - 1 in the order of time")
    parser.add_argument("--loss", choices=["softmax", "sampled"], required=True)
    parser.add_argument("--max_length", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=256)
    parser.add_argument("--evaluate", action="store_true", help="time the lists as well")
    parser.add_argument("--variant", default="", help="what else a runner knows")
    parser.add_argument("--data", help="of attnrec: the prepared data set that the histories come from")
    return parser.parse_args()


def read(path: Path) -> list[list[int]]:
    return [[int(item) for item in line.split()] for line in path.read_text().splitlines()]


class Clock:
    """Wall time and CPU time of steps, and the targets trained in them; starts when the first WARM_UP steps are over."""

    def __init__(self) -> None:
        importlib.import_module("torch._dynamo")  # torch.optim does it at its first use: 70 MiB that are nobody's work
        self.before = self.rss = memory()
        self.steps = self.targets = 0
        self.wall = self.cpu = 0.0

    def step(self, targets: int) -> None:
        """Called at the end of each step, with the real targets in it."""
        self.steps += 1
        if self.steps == WARM_UP:
            self._wall, self._cpu = time.perf_counter(), time.process_time()
        if self.steps > WARM_UP:
            self.targets += targets
            self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def trained(self) -> None:
        """Called when the training is over: its peak of memory."""
        self.rss = memory()

    def report(self, **more: object) -> None:
        result = {
            "targets/s": self.targets / self.wall,
            "targets/CPU s": self.targets / self.cpu,
            "steps": self.steps - WARM_UP,
            "ms a step": 1000 * self.wall / (self.steps - WARM_UP),
            "imports MiB": self.before,
            "peak MiB": self.rss,
            "above imports MiB": self.rss - self.before,
            "with lists above imports MiB": memory() - self.before,
        }
        print(json.dumps(result | more))


def memory() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
