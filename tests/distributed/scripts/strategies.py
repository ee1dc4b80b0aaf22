"""Several trainings, one after another, in the same processes, each under the strategy that the environment then names.

strategies.py FOLDER STRATEGY:RUN:STEPS[:PRECISION] ... -- arguments of `attnrec train`: trains FOLDER/RUN up to STEPS, so that a
run named twice goes on under another strategy. The processes meet once; starting them costs more than all the trainings. In fp16
the loss scale begins so high that the first steps overflow. Each training is to end with the exit code EXPECT, 0 if not given.
"""

from __future__ import annotations

import os
import sys

import attnrec_dist.cli
from attnrec_dist.strategies.launch import Job
from attnrec_dist.strategies.precision import LossScaler, Precision

VARIABLES = {
    "ddp": {},
    "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "hybrid": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
        "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2",
        "PARALLELISM_CONFIG_DP_SHARD_SIZE": os.environ.get("SHARDS", "1"),
    },
    **{f"zero{n}": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(n)} for n in (1, 2, 3)},
}
VARIABLES["offload"] = {**VARIABLES["zero2"], "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}

if __name__ == "__main__":
    Job.close = lambda self: None  # the processes stay together
    Precision.scaler = lambda self: LossScaler(2.0**23) if self.name == "fp16" else None
    folder, *rest = sys.argv[1:]
    plans, arguments = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    for plan in plans:
        strategy, run, steps, precision = (*plan.split(":"), "fp32")[:4]
        os.environ |= VARIABLES[strategy]
        keys = ["--run_dir", f"{folder}/{run}", "--train.max_steps", steps, "--train.precision", precision]
        code = attnrec_dist.cli.main(["train", *arguments, *keys])
        if code != int(os.environ.get("EXPECT", "0")):
            sys.exit(f"{plan} ended with {code}")
        for variable in VARIABLES[strategy]:
            del os.environ[variable]
    attnrec_dist.cli.leave(0)
