"""The k best items of each row, by a stated rule: higher score first, of equal scores the lower item index, NaN last."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Scores [B, k] and item indices [B, k] of the k best items of scores [B, V].

    Args:
        exclude: (items [X], rows [X]): these never appear. Packed, in any order; repeats do no harm.

    -0.0 equals 0.0. A row with fewer than k items left is filled with item -1, score -inf. The same on every device.
    """
    rows, width = scores.shape
    order = _sortable(scores)
    if exclude is not None:
        items, excluded_rows = exclude
        order[excluded_rows, items] = torch.iinfo(order.dtype).min
    held = min(k, width)
    # torch.topk says which k values are best, but of the items equal to the last one it takes any; take the lowest.
    last = order.topk(held, dim=1).values[:, -1:] if held else order[:, :0]
    above, equal = order > last, order == last
    room = held - above.sum(1, keepdim=True)
    taken = above | (equal & (equal.cumsum(1) <= room))
    ids = taken.nonzero()[:, 1].view(rows, held)  # rising in each row, so that a stable sort keeps the rule among equals
    ids = ids.gather(1, order.gather(1, ids).sort(dim=1, descending=True, stable=True).indices)
    gone = order.gather(1, ids) == torch.iinfo(order.dtype).min
    best = scores.gather(1, ids).masked_fill(gone, float("-inf"))
    fill = (0, k - held)
    return torch.nn.functional.pad(best, fill, value=float("-inf")), torch.nn.functional.pad(
        ids.masked_fill(gone, -1), fill, value=-1
    )


def _sortable(scores: Tensor) -> Tensor:
    """Integers in the order of the scores: NaN below -inf, and the lowest integer left free for excluded items."""
    wide = scores if scores.dtype == torch.float64 else scores.float()
    integer = torch.int64 if wide.dtype == torch.float64 else torch.int32
    limits = torch.iinfo(integer)
    bits = (wide + 0.0).view(integer)  # + 0.0 turns -0.0 into 0.0
    order = torch.where(bits < 0, bits ^ limits.max, bits)  # negative numbers: the larger the magnitude, the lower
    return order.masked_fill(wide.isnan(), limits.min + 1)
