"""How fast SASRec trains with each loss on one data set, and each loss alone. Prints a table, keeps it in benchmarks/results.

    python benchmarks/losses.py [--config configs/beauty-sasrec.yaml] [--data data/beauty] [--threads 1]

Targets/s of whole training steps, and of forward and backward of the loss alone on random states: medians over the same batches.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
from pathlib import Path

import torch
from shared import write_result
from spine import median

from attnrec_dist.batch import DataSpec, Output
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.loader import Share, Steps
from attnrec_dist.data.order import Order
from attnrec_dist.data.samples import WindowSamples
from attnrec_dist.data.windows import build_index, open_index
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.engine.objective import Objective
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.models import build_model
from attnrec_dist.settings import build
from attnrec_dist.strategies.precision import Precision

STEPS = 24
CASES = {
    "softmax": {"name": "softmax"},
    "sampled softmax, 256 a query": {"name": "sampled_softmax"},
    "the same, by popularity": {"name": "sampled_softmax", "distribution": "popularity"},
    "InfoNCE, 512 a query": {"name": "sampled_softmax", "negatives": 512, "normalize": True, "temperature": 0.1},
    "sampled softmax, 256 shared": {"name": "sampled_softmax", "shared": True},
    "gBCE, 256 a query": {"name": "bce", "calibration": 0.75},
    "BCE, 1 a query": {"name": "bce", "negatives": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/beauty-sasrec.yaml"))
    parser.add_argument("--data", default="data/beauty")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_run_config(arguments.config, {"data.path": arguments.data})
    data = DataSet.open(arguments.data)
    build_index(data, config.data, Path("runs/bench"))
    index = open_index(data, config.data, Path("runs/bench"))
    order = Order(data.manifest.fingerprint, 0, len(index), config.train.global_batch_size)
    steps = Steps(WindowSamples(data, index, config.data), config.data, order, Share(0, 1, config.train.micro_batch_tokens))
    micro = [batch for step in range(STEPS) for batch in steps[step].micro_batches]
    targets = statistics.median(len(batch.targets) for batch in micro)
    spec = DataSpec(data.manifest.num_items, config.data.max_length, tuple(data.manifest.event_types), data)
    print(f"{data.path}: V {spec.num_items}, {targets:.0f} targets a micro-batch, {arguments.threads} thread(s)")
    rows = {}
    for name, keys in CASES.items():
        step, alone = seconds(config, keys, spec, micro)
        rows[name] = {"training, targets/s": targets / step, "loss alone, targets/s": targets / alone}
        print(f"  {name:32} {targets / step:10,.0f} targets/s training  {targets / alone:12,.0f} targets/s the loss alone")
    result = {
        "date": datetime.date.today().isoformat(),
        "command": f"python benchmarks/losses.py --config {arguments.config} --threads {arguments.threads}",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "rows": rows,
    }
    write_result(result, "losses")


def seconds(config, keys: dict[str, object], spec: DataSpec, micro: list) -> tuple[float, float]:
    """Median seconds of a training step, and of the loss alone."""
    torch.manual_seed(0)
    loss = build_loss(build(loss_config_class(keys["name"]), keys, "loss"), spec)
    model = build_model(config.model, spec)
    model.table.unit = bool(keys.get("normalize"))
    objective = Objective(model, loss, Precision("fp32", torch.device("cpu")))
    optimizer = torch.optim.Adam(objective.parameters(), fused=True)

    def train(batch) -> None:
        total = objective(batch)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    def alone(batch) -> None:
        hidden = torch.randn(batch.num_tokens, model.table.width, requires_grad=True)
        total = loss(Output(hidden=hidden), batch, model.table)
        total.backward()
        optimizer.zero_grad()

    return median(train, micro), median(alone, micro)


if __name__ == "__main__":
    main()
