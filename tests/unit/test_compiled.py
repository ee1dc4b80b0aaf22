"""train.compile: what is compile, and what is refused before any work."""

from __future__ import annotations

import copy

import pytest
import torch
from ranking_batches import SPEC
from torch import nn

from attnrec_dist.distributed import World
from attnrec_dist.engine import compile
from attnrec_dist.engine.compile import compile_model
from attnrec_dist.errors import ConfigError
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.models.layers.transformer import Block, BlockShape
from attnrec_dist.settings import build
from attnrec_dist.strategies.launch import Asked, Job
from attnrec_dist.strategies.precision import Precision

CPU = torch.device("cpu")


def job(kind="plain"):
    return Job(World.current(CPU), Precision.on("fp32", CPU), Asked(kind))


@pytest.mark.parametrize(("name", "keys"), [("sasrec", {}), ("bsarec", {}), ("target_attention", {"kind": "transformer"})])
def test_of_self_attention_over_histories_second_halves_alone(name, keys):
    model = build_model(build(model_config_class(name), {"name": name, **keys}, "model"), SPEC)
    compile_model(model, job())
    blocks = [part for part in model.modules() if isinstance(part, Block)]
    assert blocks
    assert all(block.compiled for block in blocks)
    assert model._compiled_call_impl is None


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_compiled_half_is_the_same_function_of_any_number_of_tokens(norm):
    """With its gradients; a copy computes with its own weights; in evaluation nothing compiled is used."""
    torch.manual_seed(0)
    block = Block(BlockShape(16, 2, 4, 0.0, 0.0, norm, "gelu"))
    twin = copy.deepcopy(block)
    block.compiled = True
    other = copy.deepcopy(block)
    with torch.no_grad():
        other.widen.weight.mul_(2)
    for tokens in (5, 9, 130):
        x = torch.randn(tokens, 16)
        results = []
        for each in (block, twin):
            each.zero_grad()
            result = each.transformed(x)
            result.square().sum().backward()
            results.append((result, each.widen.weight.grad.clone()))
        torch.testing.assert_close(*results)
        assert not torch.allclose(other.transformed(x), results[0][0])
    assert torch.equal(block.eval().transformed(x), twin.transformed(x))


def test_deepspeed():
    with pytest.raises(ConfigError, match=r"train\.compile: DeepSpeed .* launch/fsdp2\.yaml"):
        compile_model(nn.Linear(1, 1), job("zero"))


def test_a_machine_without_a_compiler(monkeypatch):
    monkeypatch.setattr(compile.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, .* none of g\+\+, clang\+\+ is there"):
        compile_model(nn.Linear(1, 1), job())
