"""The shape of a packed batch, worked out once and shared by all blocks of a model; and the mean over a basket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from attnrec_dist.batch import SequenceBatch

Derived = TypeVar("Derived")


class derived(Generic[Derived]):
    """A property of a layout, worked out once. torch.compile traces it; of functools.cached_property it cannot trace the lock."""

    def __init__(self, derive: Callable[[Layout], Derived]):
        self.derive = derive
        self.__doc__ = derive.__doc__

    def __get__(self, layout: Layout, owner: type) -> Derived:
        return layout.once(self.derive)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which token belongs to which row and basket. Nothing in here asks the device for a value."""

    offsets: Tensor  # [B + 1] int32: row b owns tokens offsets[b] to offsets[b + 1]
    baskets: Tensor | None  # [T] basket of a token inside its row, not decreasing along it; None: every token is its own
    max_length: int  # longest row, known on the host
    num_tokens: int  # T, known on the host
    _derived: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, batch: SequenceBatch) -> Layout:
        return cls(batch.offsets, None if batch.singletons else batch.baskets, batch.max_length, batch.num_tokens)

    @property
    def num_rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def device(self) -> torch.device:
        return self.offsets.device

    @derived
    def lengths(self) -> Tensor:
        """Tokens of each row, [B] int64."""
        return self.offsets.diff().long()

    @derived
    def rows(self) -> Tensor:
        """Row of each token, [T] int64."""
        numbers = torch.arange(self.num_rows, device=self.device)
        return numbers.repeat_interleave(self.lengths, output_size=self.num_tokens)

    @derived
    def places(self) -> Tensor:
        """Place of each token in its row, from 0, [T] int64. A padded copy is `grid[rows, places] = x`."""
        return torch.arange(self.num_tokens, device=self.device) - self.offsets.long()[self.rows]

    @derived
    def ends(self) -> Tensor:
        """Last token of each row, [B] int64; no row is empty."""
        return self.offsets[1:].long() - 1

    @derived
    def segments(self) -> Tensor:
        """Number of each token's basket in the whole batch, [T] int64, from 0 upwards without gaps."""
        if self.baskets is None:
            return torch.arange(self.num_tokens, device=self.device)
        starts = torch.ones(self.num_tokens, dtype=torch.int64, device=self.device)
        starts[1:] = (self.baskets.diff() != 0) | (self.rows.diff() != 0)
        return starts.cumsum(0) - 1

    @derived
    def segment_sizes(self) -> Tensor:
        """Tokens in each basket of the batch, [T] int64; zeros from the last basket on, so that T is the only size asked for."""
        return torch.zeros(self.num_tokens, dtype=torch.int64, device=self.device).index_add_(
            0, self.segments, torch.ones_like(self.segments)
        )

    def once(self, derive: Callable[[Layout], Derived]) -> Derived:
        """`derive(self)`, computed at the first call and kept: what a kernel needs of this batch, shared by all blocks."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        return cast(Derived, self._derived[derive])


def pool_baskets(hidden: Tensor, layout: Layout) -> Tensor:
    """Gives every token the mean over its basket: [T, D] -> [T, D]; singletons pass unchanged.

    A basket is a set: after this its tokens say the same, whichever of them stands last. Sums are formed in fp32 for
    bf16 and fp16 input (float64 stays), and the result has the input's type.
    """
    if layout.baskets is None:
        return hidden
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    sums = torch.zeros_like(wide).index_add(0, layout.segments, wide)
    means = sums / layout.segment_sizes.clamp(min=1)[:, None]
    return means.index_select(0, layout.segments).to(hidden.dtype)
