"""train.compile is refused where it cannot be, or would not pay, before any work."""

from __future__ import annotations

import pytest
import torch
from ranking_batches import SPEC
from torch import nn

from attnrec_dist.distributed import World
from attnrec_dist.engine import compiled
from attnrec_dist.engine.compiled import compile_model
from attnrec_dist.engine.join import Asked, Job
from attnrec_dist.engine.precision import Precision
from attnrec_dist.errors import ConfigError
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.settings import build

CPU = torch.device("cpu")


def job(kind="plain"):
    return Job(World.current(CPU), Precision.on("fp32", CPU), Asked(kind))


@pytest.mark.parametrize(("name", "keys"), [("sasrec", {}), ("bsarec", {}), ("target_attention", {"kind": "transformer"})])
def test_self_attention_over_histories(name, keys):
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), SPEC)
    with pytest.raises(ConfigError, match=r"train\.compile: .* gain nothing by it; leave it out"):
        compile_model(model, job())


def test_deepspeed():
    with pytest.raises(ConfigError, match=r"train\.compile: DeepSpeed .* launch/fsdp2\.yaml"):
        compile_model(nn.Linear(1, 1), job("zero"))


def test_a_machine_without_a_compiler(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, .* none of g\+\+, clang\+\+ is there"):
        compile_model(nn.Linear(1, 1), job())
