"""The optimizer's state on disk: written by one cut of the parameters, read by any other."""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path

import pytest
import torch
from alone import alone
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from attnrec_dist.checkpoints.optimizer_state import load_parts, part_name, part_tensors
from attnrec_dist.engine.optimizer import OptimizerConfig, make_optimizer
from attnrec_dist.errors import CheckpointError
from attnrec_dist.strategies.shards import Piece, twin

SHAPES = {"table": (7, 3), "bias": (5,), "one": (1, 1), "deep": (2, 3, 4)}


class Held:
    """One rank's optimizer: every owner keeps two moments and a step count."""

    def __init__(self, pieces: list[Piece]):
        self.pieces, self.state = pieces, {}

    def fill(self, whole: dict[str, torch.Tensor]) -> None:
        for piece in self.pieces:
            state = self.state.setdefault(piece.owner, {"step": torch.tensor(3.0)})
            for key in ("exp_avg", "exp_avg_sq"):
                state.setdefault(key, torch.zeros_like(piece.owner))
                flat = whole[f"{piece.name}/{key}"].reshape(-1)
                piece.of(state[key]).copy_(flat[piece.start : piece.start + piece.size])


def whole_values() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"{name}/{key}": torch.randn(shape) for name, shape in SHAPES.items() for key in ("exp_avg", "exp_avg_sq")}


def cut(kind: str, world: int, seed: int) -> list[list[Piece]]:
    """Pieces of every rank: none cut, by rows as FSDP2, by elements of one flat buffer as ZeRO 1/2, or at random."""
    chance, ranks = random.Random(seed), [[] for _ in range(world)]
    if kind == "flat":
        total = -(-sum(map(math.prod, SHAPES.values())) // world)
        owners, at = [torch.zeros(total) for _ in range(world)], 0
        for name, shape in SHAPES.items():
            for rank in range(world):
                first, last = max(at, rank * total), min(at + math.prod(shape), (rank + 1) * total)
                if first < last:
                    ranks[rank].append(Piece(name, shape, first - at, last - first, owners[rank], first - rank * total))
            at += math.prod(shape)
        return ranks
    for name, shape in SHAPES.items():
        size = math.prod(shape)
        rows, width = -(-shape[0] // world), size // shape[0]
        ends = {
            "whole": [size] * world,
            "rows": [min((rank + 1) * rows, shape[0]) * width for rank in range(world)],
            "random": [*sorted(chance.choices(range(size + 1), k=world - 1)), size],
        }[kind]
        for rank, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            ranks[rank].append(Piece(name, shape, start, end - start, torch.zeros(end - start + 2), 1))
    return ranks


@given(
    st.sampled_from(["whole", "rows", "flat", "random"]),
    st.integers(1, 5),
    st.sampled_from(["whole", "rows", "flat", "random"]),
    st.integers(1, 5),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_any_cut_reads_what_any_other_wrote(wrote, writers, reads, readers, seed):
    values = whole_values()
    with tempfile.TemporaryDirectory() as folder:
        for rank, pieces in enumerate(cut(wrote, writers, seed)):
            held = Held(pieces)
            held.fill(values)
            tensors, header = part_tensors(pieces, held, sharded=True)
            save_file(tensors, Path(folder) / part_name(rank, writers, True), header)
        for pieces in cut(reads, readers, seed + 1):
            mine, expected = Held(pieces), Held(pieces)
            mine.state = {piece.owner: {} for piece in pieces}
            load_parts(Path(folder), pieces, mine)
            expected.fill(values)
            for piece in pieces:
                assert mine.state[piece.owner]["step"] == 3
                for key in ("exp_avg", "exp_avg_sq"):
                    assert torch.equal(piece.of(mine.state[piece.owner][key]), piece.of(expected.state[piece.owner][key]))


def test_a_missing_part_is_refused_with_what_is_missing(tmp_path):
    for rank, pieces in enumerate(cut("rows", 2, 0)):
        held = Held(pieces)
        held.fill(whole_values())
        tensors, header = part_tensors(pieces, held, sharded=True)
        save_file(tensors, tmp_path / part_name(rank, 2, True), header)
    (tmp_path / part_name(1, 2, True)).unlink()
    [pieces] = cut("whole", 1, 0)
    held = Held(pieces)
    held.state = {piece.owner: {} for piece in pieces}
    with pytest.raises(CheckpointError, match=r"9 of 21 elements of table/exp_avg are in none of its files; remove .* to go on"):
        load_parts(tmp_path, pieces, held)


def test_a_twin_has_the_modules_and_none_of_the_weights():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.again = self.first
            self.register_buffer("constant", torch.ones(2))

    module = Tied()
    made = twin(module)
    module.first.register_forward_pre_hook(lambda *_: pytest.fail("the twin has a hook of the original"))
    assert [name for name, _ in made.named_parameters()] == [name for name, _ in module.named_parameters()]
    assert made.second.weight is made.first.weight
    assert made.again is made.first
    assert made.constant is module.constant
    assert not sum(parameter.numel() for parameter in made.parameters())
    for mine, theirs in zip(made.parameters(), module.parameters(), strict=True):
        mine.data = theirs.data.clone()
    x = torch.randn(2, 3)
    assert torch.equal(made.first(x), torch.nn.functional.linear(x, module.first.weight, module.first.bias))


def test_what_is_not_cut_is_one_piece_a_parameter():
    module = nn.Linear(2, 3)
    held = alone(module, make_optimizer(module, OptimizerConfig()))
    assert [(piece.name, piece.start, piece.size) for piece in held.pieces] == [("weight", 0, 6), ("bias", 0, 3)]
