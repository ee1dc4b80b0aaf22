"""Our loader beside the usual one: the same histories as a `datasets` Dataset in torch format, a DataLoader, a padding collate.

    python benchmarks/loader_speed.py [--data data/quickstart] [--basket time] [--batch 64] [--rounds 100]

Everything in one process, without workers, on one thread, in turns: a global batch of ours, one of theirs with the same columns,
one of theirs with the items alone, one training step of SASRec as it comes on our batch. Both read memory-mapped Arrow files and
draw whole epochs in a random order; ours also finds baskets, targets and weights, which theirs leaves to the model. Milliseconds
are medians over the rounds: of CPU, which other jobs of the machine hardly touch, and of the clock. Padding is not counted.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from shared import stamp, write_result
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from attnrec_dist.batch import DataSpec
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.gather import ranges
from attnrec_dist.data.loader import Share, Steps, batches
from attnrec_dist.data.order import Order
from attnrec_dist.data.samples import WindowSamples
from attnrec_dist.data.windows import END, START, SampleIndex, build_index, open_index
from attnrec_dist.engine.objective import Objective
from attnrec_dist.errors import DataError
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.strategies.precision import Precision

SCRATCH = Path("runs/bench")
WARM_UP = 5  # rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--basket", choices=["time", "none"], default="time")
    parser.add_argument("--batch", type=int, default=64, help="samples")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = DataConfig(path=str(arguments.data), basket=arguments.basket)
    data = DataSet.open(arguments.data)
    build_index(data, config, SCRATCH)
    if (index := open_index(data, config, SCRATCH)) is None:
        raise DataError(f"{SCRATCH}: the index that was just built cannot be opened; remove the directory")
    order = Order(data.manifest.fingerprint, 0, len(index), arguments.batch)
    steps = Steps(WindowSamples(data, index, config, draws=False), config, order, Share(0, 1, 1 << 30))
    samples = padded_samples(data, index)
    names = samples.column_names
    sources: dict[str, Iterator[Any]] = {
        "attnrec": iter(batches(steps, 0, 1 << 40, torch.device("cpu"))),
        "datasets, same columns": usual(samples, arguments.batch),
        "datasets, items alone": usual(samples.select_columns([names[0]]), arguments.batch),
    }
    rows = in_turns(sources, trainer(data, config), arguments.rounds)
    shape = {"samples": len(index), "columns": names, "V": data.manifest.num_items, "shards": len(data.manifest.shards)}
    print(f"{data.path}: {shape}, {arguments.batch} samples a batch")
    for name, row in rows.items():
        print(
            f"  {name:24} "
            + ", ".join(f"{key} {value:,.2f}" if value < 100 else f"{key} {value:,.0f}" for key, value in row.items())
        )
    share = {clock: rows["attnrec"][clock] / rows["training step"][clock] for clock in ("CPU ms", "ms")}
    print("  share of a step          " + ", ".join(f"{clock} {value:.2%}" for clock, value in share.items()))
    keys = {"data": data.path.name, "basket": arguments.basket, "batch": arguments.batch, "rounds": arguments.rounds}
    result = {**stamp(), **keys, "shape": shape, "rows": rows, "share of a step": share}
    write_result(result, f"loader-speed-{data.path.name}-{arguments.basket}")


def padded_samples(data: DataSet, index: SampleIndex) -> datasets.Dataset:
    """A row a sample: the tokens of its window and of its last target, in lists; written and mapped again."""
    tables = []
    for first in range(0, len(index), 8192):
        ids = np.arange(first, min(first + 8192, len(index)))
        rows = data.rows(index.rows_of(ids))
        window = index.windows[ids].astype(np.int64)
        sizes = window[:, END] - window[:, START]
        token, _ = ranges(rows.offsets[:-1] + window[:, START], sizes)
        offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
        columns = {"items": rows.items, "times": rows.times, "event": rows.events} | rows.numeric
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values[token])) for name, values in columns.items()}
        tables.append(pa.table(lists))
    place = SCRATCH / "padded-samples"
    datasets.disable_progress_bars()
    datasets.Dataset(pa.concat_tables(tables)).save_to_disk(place)
    return datasets.load_from_disk(place)


def usual(samples: datasets.Dataset, batch: int) -> Iterator[dict[str, torch.Tensor]]:
    """Epoch after epoch of shuffled, padded batches [B, L]."""
    loader = DataLoader(samples.with_format("torch"), batch, shuffle=True, drop_last=True, collate_fn=collate)
    while True:
        yield from loader


def collate(examples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    columns = {name: pad_sequence([each[name] for each in examples], batch_first=True) for name in examples[0]}
    lengths = torch.tensor([len(each["items"]) for each in examples])
    inputs = {name: values[:, :-1] for name, values in columns.items()}
    return inputs | {"targets": columns["items"][:, 1:], "lengths": lengths - 1}


def trainer(data: DataSet, config: DataConfig) -> Callable[[Any], None]:
    """One update from the micro-batches of a global batch."""
    spec = DataSpec(data.manifest.num_items, config.max_length, statistics=data)
    model = build_model(model_config_class("sasrec")(), spec)
    objective = Objective(model, build_loss(loss_config_class("softmax")(), spec), Precision("fp32", torch.device("cpu")))
    optimizer = torch.optim.AdamW(objective.parameters(), fused=True)

    def train(batch: Any) -> None:
        for micro in batch.micro_batches:
            loss = objective(micro)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def in_turns(sources: dict[str, Iterator[Any]], train: Callable[[Any], None], rounds: int) -> dict[str, dict[str, float]]:
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in [*sources, "training step"]}
    tokens = dict.fromkeys(sources, 0)
    samples = 0
    for turn in range(rounds + WARM_UP):
        counted = turn >= WARM_UP
        for name, source in sources.items():
            batch, spent = timed(functools.partial(next, source))
            clocks[name] += [spent] * counted
            tokens[name] += counted * (batch.tokens if name == "attnrec" else int(batch["lengths"].sum()))
            if name == "attnrec":
                ours = batch
        samples += counted * sum(int((micro.sample_ids >= 0).sum()) for micro in ours.micro_batches)
        _, spent = timed(functools.partial(train, ours))
        clocks["training step"] += [spent] * counted
    rows = {}
    for name, spent in clocks.items():
        cpu, wall = (statistics.median(each) for each in zip(*spent, strict=True))
        rows[name] = {"CPU ms": 1000 * cpu, "ms": 1000 * wall}
        if name in tokens:
            rows[name] |= {"samples/CPU s": samples / rounds / cpu, "tokens/CPU s": tokens[name] / rounds / cpu}
            rows[name] |= {"samples/s": samples / rounds / wall, "tokens/s": tokens[name] / rounds / wall}
    return rows


def timed(function: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = function()
    return result, (time.process_time() - cpu, time.perf_counter() - wall)


if __name__ == "__main__":
    main()
