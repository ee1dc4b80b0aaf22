"""How fast each part is on this machine, beside its floor, on the bundled log. Prints a table, keeps it in benchmarks/results.

    python benchmarks/spine.py [--data data/quickstart] [--threads 1]

Training is told as targets/s against the floor: the chunked softmax loss alone on the same queries and targets, which
nothing that trains over the whole catalogue can undercut. Medians over steps.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from shared import write_result

from attnrec_dist.batch import DataSpec
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import find_views
from attnrec_dist.data.loader import Share, Steps
from attnrec_dist.data.order import Order
from attnrec_dist.data.samples import WindowSamples
from attnrec_dist.data.windows import build_index, open_index
from attnrec_dist.distributed import World
from attnrec_dist.engine.objective import Objective
from attnrec_dist.evaluation.evaluate import EvaluationConfig, evaluate
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.strategies.precision import Precision

STEPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = DataConfig(path=str(arguments.data))
    data = DataSet.open(arguments.data)
    scratch = Path("runs/bench")
    build_index(data, config, scratch)
    index = open_index(data, config, scratch)
    steps = Steps(
        WindowSamples(data, index, config), config, Order(data.manifest.fingerprint, 0, len(index), 64), Share(0, 1, 16384)
    )
    spec = DataSpec(data.manifest.num_items, config.max_length, statistics=data)
    model = build_model(model_config_class("sasrec")(), spec)
    objective = Objective(model, build_loss(loss_config_class("softmax")(), spec), Precision("fp32", torch.device("cpu")))
    optimizer = torch.optim.AdamW(objective.parameters(), fused=True)
    micro = [batch for step in range(STEPS) for batch in steps[step].micro_batches]
    targets = statistics.mean(len(batch.targets) for batch in micro)
    queries = statistics.mean(len(batch.queries) for batch in micro)
    tokens = statistics.mean(batch.num_tokens for batch in micro)

    def train(batch) -> None:
        loss = objective(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def floor(batch) -> None:
        hidden = torch.randn(len(batch.queries), 64, requires_grad=True)
        model.table.cross_entropy(hidden, batch.targets, batch.target_query, batch.target_weight).backward()
        optimizer.zero_grad()

    seconds = {
        "loss alone (the floor)": median(floor, micro),
        "training step": median(train, micro),
        "loader": median(lambda step: steps[step], list(range(STEPS))),
    }
    views, _ = find_views(data, config, "validation")
    started = time.perf_counter()
    evaluate(model, views, EvaluationConfig(), World())
    users = len(views) / (time.perf_counter() - started)

    shape = f"{tokens:.0f} tokens, {queries:.0f} queries, {targets:.0f} targets a step"
    print(f"{data.path}: V {data.manifest.num_items}, {shape}, {arguments.threads} thread(s)")
    rows = {name: {"ms": 1000 * value, "targets/s": targets / value} for name, value in seconds.items()}
    for name, row in rows.items():
        share = row["ms"] / rows["training step"]["ms"]
        print(f"  {name:24} {row['ms']:8.1f} ms  {row['targets/s']:12,.0f} targets/s  {share:6.1%} of a step")
    print(f"  {'evaluation':24} {users:8,.0f} users/s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {'peak memory':24} {peak:8,.0f} MiB")
    result = {
        "date": datetime.date.today().isoformat(),
        "command": f"python benchmarks/spine.py --data {arguments.data} --threads {arguments.threads}",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "rows": rows,
        "evaluation users/s": users,
        "peak MiB": peak,
    }
    write_result(result, "spine")


def median(function: Callable[[object], object], inputs: list) -> float:
    function(inputs[0])
    times = []
    for each in inputs:
        started = time.perf_counter()
        function(each)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
