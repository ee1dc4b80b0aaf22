"""torch.compile of what gains by it: a ranking model as a whole, of blocks of self-attention their second halves.

Sizes are symbols from the first step on, because batches differ in their tokens: one kernel for all of them, so that a resumed
run uses the kernels of the uninterrupted one. Packed self-attention stays as it is: on CPUs it runs over groups of rows of one
length, so that the compiler makes a kernel for each number of groups and comes to no end (on Beauty a first step of 50 s and
no faster ones after it); on GPUs it is one kernel already.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from attnrec_dist.errors import ConfigError
from attnrec_dist.models.layers.transformer import Block
from attnrec_dist.strategies.launch import Job

COMPILERS = ("g++", "clang++")


def compile_model(model: nn.Module, job: Job) -> None:
    """Has the model compiled when it is first called. Raises ConfigError where that cannot be."""
    if job.asked.kind == "zero":
        raise ConfigError(
            "train.compile: DeepSpeed hooks itself into the modules; leave it out, or launch with launch/fsdp2.yaml"
        )
    if job.world.device.type == "cpu" and not _has_compiler():
        raise ConfigError(
            f"train.compile: on a CPU it needs a C++ compiler, and none of {', '.join(COMPILERS)} is there; install one "
            "(apt install g++), name it in the variable CXX, or leave train.compile out"
        )
    blocks = [part for part in model.modules() if isinstance(part, Block)]
    for block in blocks:
        block.compiled = True
    if not blocks:
        model.compile(dynamic=True)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)


@contextmanager
def eagerly() -> Iterator[None]:
    """Inside, nothing is compiled and nothing compiled is used: an evaluation's shapes are not worth it."""
    with torch.compiler.set_stance("force_eager"):
        yield
