"""What the experts cost beside the sequence expert alone, on a generated shop with a catalogue of a million items.

    python benchmarks/million_items.py [--items 1000000] [--users 25000] [--batch 64] [--steps 5] [--customers 64]

Each cell runs in a process of its own, so that its peak memory is its own: it pays for the interpreter, the model and the
optimizer's state too. Times are milliseconds of one CPU core, which other jobs of the machine hardly touch. A step is loading,
evidence included, forward, backward and update. The shop is kept under data/ and prepared by this script where it is missing;
every item is bought at least once, beside its neighbours in the catalogue.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from shared import stamp, write_result

from attnrec_dist.batch import DataSpec
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.expert_features import EvidenceFinder
from attnrec_dist.data.loader import Share, Steps
from attnrec_dist.data.order import Order
from attnrec_dist.data.samples import WindowSamples
from attnrec_dist.data.windows import build_index, open_index
from attnrec_dist.engine.objective import Objective
from attnrec_dist.engine.optimizer import OptimizerConfig, make_optimizer
from attnrec_dist.errors import DataError
from attnrec_dist.inference.histories import stored_histories
from attnrec_dist.inference.load import TrainedModel
from attnrec_dist.losses.softmax import FullSoftmax, FullSoftmaxConfig
from attnrec_dist.models.mixture import Mixture, MixtureConfig
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.recommendation.recommend import Recommender
from attnrec_dist.run_dir import RunDir
from attnrec_dist.settings import build
from attnrec_dist.strategies.precision import Precision

ALONE, ALL = ["sequence"], ["sequence", "copy", "trend", "graph"]
BASKETS, BASKET = 10, 10  # a customer's, and items of one
IN_A_ROW, DRAWN = 6, 2  # of a basket: catalogue places in a row; drawn by popularity, each with the place after it
DAYS = 200
LIMIT = 1.5
WORKPLACE = Path("data/million-items")
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=25_000)
    parser.add_argument("--batch", type=int, default=64, help="samples of a training step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--customers", type=int, default=64)
    parser.add_argument("--cell", choices=["train", "recommend"], help=argparse.SUPPRESS)
    parser.add_argument("--experts", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cell:
        cell = train if arguments.cell == "train" else recommend
        print(json.dumps(cell(arguments) | {"peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    shop = make_shop(arguments.items, arguments.users)
    rows = {kind: {name: measured(kind, experts) for name, experts in CELLS.items()} for kind in ("train", "recommend")}
    for kind, cells in rows.items():
        ratios = {key: cells["all"][key] / cells["alone"][key] for key in ("ms", "peak MiB")}
        cells["ratio"] = ratios
        for name in ("alone", "all"):
            parts = ", ".join(f"{part} {value:,.0f}" for part, value in cells[name].items())
            print(f"{kind:10} {name:6} {parts}")
        print(f"{kind:10} ratio  " + ", ".join(f"{key} {value:.2f} (at most {LIMIT})" for key, value in ratios.items()))
    write_result({**stamp(), "shop": shop, "threads": 1, "rows": rows}, "million-items")


CELLS = {"alone": ALONE, "all": ALL}


def measured(kind: str, experts: list[str]) -> dict[str, float]:
    """A cell in a process of its own."""
    command = [sys.executable, *sys.argv, "--cell", kind, "--experts", *experts]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return result


def train(arguments: argparse.Namespace) -> dict[str, float]:
    """Median CPU milliseconds of a training step and of its parts."""
    data, config, model = opened(arguments)
    needs, scratch = model.config.needs, WORKPLACE / "index"
    build_index(data, config, scratch)
    if (index := open_index(data, config, scratch)) is None:
        raise DataError(f"{scratch}: the index that was just built cannot be opened; remove the directory")
    finder = EvidenceFinder(needs, data) if needs.names else None
    order = Order(data.manifest.fingerprint, 0, len(index), arguments.batch)
    steps = Steps(WindowSamples(data, index, config, finder), config, order, Share(0, 1, 16384))
    objective = Objective(
        model,
        FullSoftmax(FullSoftmaxConfig(), DataSpec(data.manifest.num_items, config.max_length)),
        Precision("fp32", torch.device("cpu")),
    )
    optimizer = make_optimizer(objective, OptimizerConfig())
    clocks: dict[str, list[float]] = {"load": [], "forward": [], "backward": [], "update": []}
    for step in range(arguments.steps + 1):  # the first one warms up
        batch = timed(clocks["load"], functools.partial(steps.__getitem__, step))
        for micro in batch.micro_batches:
            loss = timed(clocks["forward"], functools.partial(objective, micro))
            timed(clocks["backward"], loss.backward)
        timed(clocks["update"], optimizer.step)
        optimizer.zero_grad()
    per_step = {name: np.reshape(values, (arguments.steps + 1, -1)).sum(1)[1:] for name, values in clocks.items()}
    return {"ms": float(np.median(sum(per_step.values())))} | {name: float(np.median(each)) for name, each in per_step.items()}


def recommend(arguments: argparse.Namespace) -> dict[str, float]:
    """Median CPU milliseconds of the lists of some customers, explanations included."""
    data, config, model = opened(arguments)
    trained = TrainedModel(RunDir(WORKPLACE), WORKPLACE, config, {}, data, model.eval(), model.config, torch.device("cpu"))
    recommender = Recommender(trained)
    histories = next(iter(stored_histories(data, None))).part(0, arguments.customers)
    nothing = np.empty(0, np.int64)
    clock: list[float] = []
    drain(recommender.lists(histories.part(0, 1), 10, nothing, False))  # warms up: reads the trend
    for _ in range(3):
        timed(clock, lambda: drain(recommender.lists(histories, 10, nothing, False)))
    return {"ms": statistics.median(clock)}


def opened(arguments: argparse.Namespace) -> tuple[DataSet, DataConfig, Mixture]:
    place = WORKPLACE / "set"
    data, config = DataSet.open(place, verify=False), DataConfig(path=str(place))
    torch.manual_seed(0)
    spec = DataSpec(data.manifest.num_items, config.max_length, tuple(data.manifest.event_types), data)
    rise = 0.5 if arguments.experts == ALL else 0.0
    return data, config, Mixture(MixtureConfig(experts=arguments.experts, rise=rise), spec)


def timed(clock: list[float], function: Callable[[], T]) -> T:
    started = time.process_time()
    result = function()
    clock.append(1000 * (time.process_time() - started))
    return result


def drain(lists: Iterable[object]) -> None:
    for _ in lists:
        pass


def make_shop(items: int, users: int) -> dict[str, object]:
    """The data set's shape; generated and prepared where it is missing or another was asked for."""
    place, told = WORKPLACE / "set", WORKPLACE / "shop.json"
    if not told.exists() or (shop := json.loads(told.read_text()))["asked"] != [items, users]:
        started = time.perf_counter()
        WORKPLACE.mkdir(parents=True, exist_ok=True)
        pq.write_table(generated(items, users), WORKPLACE / "log.parquet")
        tree = {
            "input": {"files": "log.parquet"},
            "columns": {"user": "user", "item": "item", "timestamp": {"name": "time", "unit": "s"}},
            "statistics": {"graph": {"neighbours": 20}},
            "engine": {"threads": 1},
            "output": {"dir": str(place)},
        }
        manifest = prepare(build(PrepareConfig, tree, "million_items"), WORKPLACE, place, print)
        graph = DataSet.open(place, verify=False).graph()
        shop = {"asked": [items, users], "catalogue": manifest.num_items, "edges": len(graph.neighbours) if graph else 0}
        shop |= {"events": users * BASKETS * BASKET, "seconds to generate and prepare": time.perf_counter() - started}
        told.write_text(json.dumps(shop))
    print(", ".join(f"{name} {value:,.0f}" for name, value in shop.items() if name != "asked"))
    return shop


def generated(items: int, users: int) -> pa.Table:
    """A log: baskets in the order of time, dealt to the customers round by round."""
    draw = np.random.default_rng(0)
    baskets = users * BASKETS
    row = (IN_A_ROW * np.arange(baskets)[:, None] + np.arange(IN_A_ROW)) % items
    zipf = np.exp(draw.uniform(0, np.log(items), (baskets, DRAWN))).astype(np.int64) - 1  # the place p with weight 1 / p
    basket = np.concatenate([row, zipf, (zipf + 1) % items], 1)  # [baskets, BASKET]
    catalogue = draw.permutation(items)  # so that neither ids nor neighbourhoods follow the popularity
    user = np.concatenate([draw.permutation(users) for _ in range(BASKETS)])
    when = 1_600_000_000 + np.arange(baskets) * (DAYS * 86_400) // baskets
    return pa.table(
        {
            "user": pa.array(np.repeat(user, BASKET)).cast(pa.string()),
            "item": pa.array(catalogue[basket].ravel()).cast(pa.string()),
            "time": np.repeat(when, BASKET),
        }
    )


if __name__ == "__main__":
    main()
