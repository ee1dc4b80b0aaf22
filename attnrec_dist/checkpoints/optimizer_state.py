"""The optimizer's state on disk: a file a rank that holds pieces, read by pieces, so that any strategy on any number of processes
reads what any other wrote.

optimizer.safetensors                 whole tensors, "name/exp_avg" and so on, by their own shapes
optimizer-00001-of-00002.safetensors  flattened pieces under the same names; the header has {name: [start, size]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from attnrec_dist.errors import CheckpointError
from attnrec_dist.run_dir import AVERAGE_FILE
from attnrec_dist.strategies.ema import AVERAGE
from attnrec_dist.strategies.shards import Piece

PLACES = "places"  # key of a file's header


def part_name(rank: int, size: int, sharded: bool) -> str:
    return f"optimizer-{rank:05d}-of-{size:05d}.safetensors" if sharded else "optimizer.safetensors"


def part_tensors(
    pieces: list[Piece], optimizer: torch.optim.Optimizer, sharded: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, header) of this rank's file; averaged weights are left out, they have a file of whole tensors."""
    tensors = {}
    for piece in pieces:
        for key, value in optimizer.state.get(piece.owner, {}).items():
            if isinstance(value, Tensor) and key != AVERAGE:
                kept = value if value.dim() == 0 else piece.of(value)
                tensors[f"{piece.name}/{key}"] = kept.clone() if sharded or value.dim() == 0 else kept.view(piece.shape)
    return tensors, {PLACES: json.dumps({each.name: [each.start, each.size] for each in pieces})} if sharded else {}


def load_parts(checkpoint: Path, pieces: list[Piece], optimizer: torch.optim.Optimizer) -> None:
    """Fills the optimizer's state of these pieces. The tensors are copied into memory of torch's own: those of a file lie at any
    address, and a product with averaged weights that are not aligned may have another last digit (seen with a [1, 64] weight)."""
    stored = _Stored(checkpoint)
    for piece in pieces:
        for key in stored.keys_of(piece.name):  # none, where no step was done yet, or each was skipped
            state = optimizer.state[piece.owner]
            if stored.is_scalar(piece.name, key):
                state[key] = stored.scalar(piece.name, key).to(piece.owner.device, copy=True)
                continue
            if key not in state:
                state[key] = torch.zeros_like(piece.owner, requires_grad=False)
            stored.read(piece, key, piece.of(state[key]))


class _Stored:
    """The optimizer's files of a checkpoint, and the averaged weights."""

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint
        self.found: dict[str, dict[str, list[tuple[Any, str, int | None]]]] = {}  # name -> key -> [(file, path in it, start)]
        for path in sorted(checkpoint.glob("optimizer*.safetensors")):
            file = safe_open(path, "pt")
            places = json.loads((file.metadata() or {}).get(PLACES, "null"))
            for entry in file.keys():  # noqa: SIM118  (not a dictionary)
                name, _, key = entry.rpartition("/")
                self._add(name, key, file, entry, None if places is None else places[name][0])
        if (checkpoint / AVERAGE_FILE).is_file():
            file = safe_open(checkpoint / AVERAGE_FILE, "pt")
            for name in file.keys():  # noqa: SIM118
                self._add(name, AVERAGE, file, name, None)

    def _add(self, name: str, key: str, file: Any, entry: str, start: int | None) -> None:
        self.found.setdefault(name, {}).setdefault(key, []).append((file, entry, start))

    def keys_of(self, name: str) -> list[str]:
        return list(self.found.get(name, {}))

    def is_scalar(self, name: str, key: str) -> bool:
        file, entry, _ = self.found[name][key][0]
        return not file.get_slice(entry).get_shape()

    def scalar(self, name: str, key: str) -> Tensor:
        file, entry, _ = self.found[name][key][0]
        value: Tensor = file.get_tensor(entry)
        return value

    def read(self, piece: Piece, key: str, into: Tensor) -> None:
        """Elements piece.start to piece.start + piece.size of a state, from whichever files hold them."""
        low, high, missing = piece.start, piece.start + piece.size, piece.size
        covered = low
        for file, entry, start in sorted(self.found[piece.name][key], key=lambda each: each[2] or 0):
            held = file.get_tensor(entry).reshape(-1) if start is None else file.get_slice(entry)
            begin = start or 0
            end = begin + (len(held) if start is None else held.get_shape()[0])
            first, last = max(covered, begin), min(high, end)  # replicas of a hybrid shard hold the same: once is enough
            if first < last:
                into[first - low : last - low] = held[first - begin : last - begin].to(into.device)
                covered, missing = last, missing - (last - first)
        if missing:
            raise CheckpointError(
                f"{self.checkpoint}: {missing} of {piece.size} elements of {piece.name}/{key} are in none of its files; "
                f"remove {self.checkpoint} to go on from the one before it"
            )
