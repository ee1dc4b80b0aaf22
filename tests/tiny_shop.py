"""A tiny shop that tests are made of: its log, its YAML files, and commands run on it in this process."""

from __future__ import annotations

import csv
import random
import signal
from dataclasses import dataclass
from pathlib import Path

from attnrec_dist.cli import main
from attnrec_dist.engine.preemption import SIGNALS

DAY = 86_400
START = 1_300_000_000

PREPARE = """\
input: {files: log.csv}
columns:
  user: user
  item: item
  timestamp: {name: time, unit: s}
  event: {name: kind, types: [view, buy]}
  numeric: [quantity]
items: {file: items.csv, id: item, columns: {title: title}}
split: {kind: time, train: 0.7, validation: 0.15, test: 0.15}
output: {dir: data}
engine: {memory_limit: 200MB, threads: 1}
"""
RUN = """\
data: {path: data, max_length: 12, block_size: 8}
model: {name: sasrec, width: 8, heads: 1, blocks: 1, dropout: 0.1}
optimizer: {lr: 1e-2}
train: {max_epochs: 2, global_batch_size: 16, micro_batch_tokens: 100, threads: 1}
checkpoint: {every_steps: 3}
evaluation: {baselines: {graph_events: 0}}
"""


@dataclass(frozen=True)
class Shop:
    """A directory with the log, both YAML files, the data set and, where asked for, the run."""

    path: Path

    @property
    def prepare_yaml(self) -> Path:
        return self.path / "prepare.yaml"

    @property
    def run_yaml(self) -> Path:
        return self.path / "run.yaml"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def run(self) -> Path:
        return self.path / "run"


def write_shop(path: Path, seed: int = 0, users: int = 60) -> Shop:
    """Baskets of views and purchases over 100 days; late items that the training part never shows; newcomers."""
    draw = random.Random(seed)
    rows = []
    for user in range(users):
        first = draw.choice([0, 0, 0, 40, 95])
        for day in sorted(draw.sample(range(first, 100), min(draw.randint(1, 7), 100 - first))):
            time = START + day * DAY + draw.randrange(DAY)
            most = 34 if day > 80 else 30
            for item in {draw.randrange(min(most, 3 + draw.randrange(1, most))) for _ in range(draw.randint(1, 5))}:
                kind = draw.choice(["view", "buy", "buy"])
                rows.append([f"u{user}", f"item-{item}", time, kind, draw.randint(1, 9)])
    draw.shuffle(rows)
    _write(path / "log.csv", ["user", "item", "time", "kind", "quantity"], rows)
    _write(path / "items.csv", ["item", "title"], [[f"item-{item}", f"Thing, no. {item}"] for item in range(34)])
    (path / "prepare.yaml").write_text(PREPARE)
    (path / "run.yaml").write_text(RUN)
    return Shop(path)


def _write(path: Path, columns: list[str], rows: list[list]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def attnrec_in_process(*arguments: object) -> int:
    """`attnrec ARGUMENTS` without a process of its own; leaves signal handlers as they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return int(main([str(argument) for argument in arguments]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
