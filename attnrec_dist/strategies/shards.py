"""Which part of each parameter this rank updates: the common language of strategies and checkpoints.

Every strategy cuts a parameter, flattened, into contiguous ranges: FSDP2 by rows, ZeRO by elements, DDP not at all.
A Piece is such a range, with the place where its optimizer keeps it; from pieces a checkpoint written by one strategy on so many
processes is laid out anew for another, and whole weights are put together for evaluation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from attnrec_dist.distributed import World, needing_peers


@dataclass(frozen=True)
class Piece:
    """Elements start to start + size of a flattened parameter."""

    name: str  # of the parameter
    shape: tuple[int, ...]  # of the whole parameter
    start: int
    size: int
    owner: Tensor  # what the optimizer updates and keeps its state by; it may hold several pieces
    offset: int  # of this piece in the owner's local elements

    @property
    def is_whole(self) -> bool:
        return self.size == int(np.prod(self.shape))

    def of(self, tensor: Tensor) -> Tensor:
        """This piece's elements, [size], of the owner or of a state that is shaped like it: a view that may be written to."""
        return local(tensor).view(-1)[self.offset : self.offset + self.size]


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that FSDP2 spread over ranks; any other as it is."""
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found.detach()


def whole_pieces(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[Piece]:
    """Nothing is cut: one piece a parameter."""
    return [Piece(name, tuple(p.shape), 0, p.numel(), p, 0) for name, p in parameters]


class Assembly:
    """Puts whole parameters together from all ranks' pieces. Made and used by all ranks together, for the same names in turn."""

    def __init__(self, world: World, names: Sequence[str], pieces: list[Piece]):
        self.world = world
        self.mine = {piece.name: piece for piece in pieces}
        table = [[each.start, each.size] if (each := self.mine.get(name)) else [0, 0] for name in names]
        gathered = world.gather(np.array(table, np.int64).reshape(-1))
        self.ranges = dict(zip(names, np.stack(gathered).reshape(world.size, -1, 2).swapaxes(0, 1).tolist(), strict=True))

    def whole(self, name: str, shape: torch.Size, values: Callable[[Piece], Tensor], dtype: torch.dtype) -> Tensor:
        """The whole tensor of this shape, on every rank; `values` gives the elements of a piece."""
        device = self.world.device
        mine, ranges = self.mine.get(name), self.ranges[name]
        padded = torch.zeros(max(size for _, size in ranges), dtype=dtype, device=device)
        if mine is not None and mine.size:
            padded[: mine.size] = values(mine)
        parts = [torch.empty_like(padded) for _ in ranges]
        if self.world.size == 1:
            parts = [padded]
        else:
            with needing_peers("gathering weights"):
                dist.all_gather(parts, padded)
        flat = torch.empty(int(np.prod(shape)), dtype=dtype, device=device)
        for (start, size), part in zip(ranges, parts, strict=True):
            flat[start : start + size] = part[:size]
        return flat.view(shape)


def twin(module: nn.Module, known: dict[int, nn.Module | nn.Parameter] | None = None) -> nn.Module:
    """The same modules with parameters of no elements: filled when whole weights are wanted. Whatever else there is is shared."""
    known = {} if known is None else known
    if id(module) not in known:
        known[id(module)] = made = copy.copy(module)
        hooks = {key: copy.copy(value) for key, value in vars(module).items() if "_hooks" in key}  # FSDP2 adds its own to them
        vars(made).update(hooks)
        made._modules = {name: child and twin(child, known) for name, child in module._modules.items()}
        made._parameters = {}
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in known:
                empty = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
                known[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            made._parameters[name] = parameter if parameter is None else known[id(parameter)]  # type: ignore[assignment]
    return known[id(module)]  # type: ignore[return-value]
