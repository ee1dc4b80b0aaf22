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
from collections.abc import Callable
from pathlib import Path

WARM_UP = 3  # steps that are not counted


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("histories", type=Path, help="a line a user: items 0 to V - 1 in the order of time")
    parser.add_argument("--loss", choices=["softmax", "sampled"], required=True)
    parser.add_argument("--max_length", type=int, required=True)
    parser.add_argument("--steps", type=int, default=2**30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=256)
    parser.add_argument("--evaluate", action="store_true", help="time the lists as well")
    parser.add_argument("--variant", default="", help="what else a runner knows")
    parser.add_argument("--data", help="of attnrec: the prepared data set that the histories come from")
    parser.add_argument("--config", type=Path, help="of attnrec: a run's YAML to train instead")
    parser.add_argument("--until", type=float, help="train whole epochs until NDCG@10 on validation, of new items, is that high")
    return parser.parse_args()


def read(path: Path) -> list[list[int]]:
    return [[int(item) for item in line.split()] for line in path.read_text().splitlines()]


class Clock:
    """Wall time and CPU time of steps, and the targets trained in them; starts when the first WARM_UP steps are over."""

    def __init__(self) -> None:
        importlib.import_module("torch._dynamo")  # torch.optim does it at its first use: 70 MiB that are nobody's work
        self.before = self.rss = memory()
        self.steps = self.targets = 0
        self.wall = self.cpu = self.warm_up = 0.0
        self.began = time.perf_counter()

    def step(self, targets: int) -> None:
        """Called at the end of each step, with the real targets in it."""
        self.steps += 1
        if self.steps == WARM_UP:
            self._wall, self._cpu = time.perf_counter(), time.process_time()
            self.warm_up = self._wall - self.began
        if self.steps > WARM_UP:
            self.targets += targets
            self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def trained(self) -> None:
        """Called when the training is over: its peak of memory."""
        self.rss = memory()

    def rates(self, of: str = "targets") -> dict[str, float]:
        return {
            f"{of}/s": self.targets / self.wall,
            f"{of}/CPU s": self.targets / self.cpu,
            "steps": self.steps - WARM_UP,
            "warm-up s": self.warm_up,  # from the clock's making to the end of the steps that are not counted
            "ms a step": 1000 * self.wall / (self.steps - WARM_UP),
        }

    def report(self, **more: object) -> None:
        result = {
            **self.rates(),
            "imports MiB": self.before,
            "peak MiB": self.rss,
            "above imports MiB": self.rss - self.before,
            "with lists above imports MiB": memory() - self.before,
        }
        print(json.dumps(result | more))


class Curve:
    """NDCG@10 after each epoch until a value is reached, beside the seconds of training and of validating: by the clock and, for
    machines that are not quiet, of the processor."""

    def __init__(self, goal: float, most: int = 200):
        self.goal, self.most = goal, most
        self.points: list[dict[str, float]] = []
        self.validating = self.validating_cpu = 0.0
        self.started, self.started_cpu = time.perf_counter(), time.process_time()

    def point(self, validate: Callable[[], float]) -> bool:
        """Called after each epoch with what gives NDCG@10; True when it is high enough, or time to give up."""
        began, began_cpu = time.perf_counter(), time.process_time()
        value = validate()
        now, now_cpu = time.perf_counter(), time.process_time()
        self.validating += now - began
        self.validating_cpu += now_cpu - began_cpu
        self.points.append(
            {
                "training s": now - self.started - self.validating,
                "training CPU s": now_cpu - self.started_cpu - self.validating_cpu,
                "with validation s": now - self.started,
                "NDCG@10": value,
            }
        )
        print(f"epoch {len(self.points)}: {self.points[-1]}", file=sys.stderr, flush=True)
        return value >= self.goal or len(self.points) >= self.most

    def report(self) -> None:
        last = self.points[-1]
        print(json.dumps({**last, "epochs": len(self.points), "reached": last["NDCG@10"] >= self.goal, "curve": self.points}))


def memory() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
