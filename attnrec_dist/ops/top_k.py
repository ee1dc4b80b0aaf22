"""The k best items of each row, by a stated rule: higher score first, of equal scores the lower item index, NaN last."""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST = float("-inf")
BLOCK = 64  # items whose highest score is looked at first


def top_k(scores: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Scores [B, k] and item indices [B, k] of the k best items of scores [B, V].

    Args:
        exclude: (items [X], rows [X]): these never appear. Packed, in any order; repeats do no harm.

    -0.0 equals 0.0. A row with fewer than k items left is filled with item -1, score -inf. The same on every device.
    """
    held = min(k, scores.shape[1])
    if exclude is not None:
        scores = scores.index_put((exclude[1], exclude[0]), scores.new_tensor(LOWEST))
    # torch.topk says which values are best, but of equal items it takes any. Where the next value is a lower one there is no
    # choice, and all is said. NaN comes first there; and -inf may be an excluded item.
    best, ids = _highest(scores, min(held + 1, scores.shape[1]))
    last = best[:, held - 1 : held]
    doubtful = best[:, :1].isnan().any(1) | (last == LOWEST).any(1) | (last == best[:, held:]).any(1)
    ids = _in_order(scores, ids[:, :held])
    best = scores.gather(1, ids)
    if doubtful.any():
        rows = doubtful.nonzero()[:, 0]
        best[rows], ids[rows] = _by_counting(scores[rows], held, exclude and _of_rows(exclude, rows, len(scores)))
    fill = (0, k - held)
    return torch.nn.functional.pad(best, fill, value=LOWEST), torch.nn.functional.pad(ids, fill, value=-1)


def _highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk; in wide rows only in the k blocks with the highest scores, since nothing elsewhere is above these."""
    blocks = scores.shape[1] // BLOCK
    if blocks < BLOCK or blocks < 4 * k:
        best, ids = scores.topk(k, dim=1)
        return best, ids
    inside = blocks * BLOCK
    block = scores[:, :inside].unflatten(1, (blocks, BLOCK)).amax(2).topk(k, dim=1).indices  # [B, k]
    places = torch.arange(BLOCK, device=scores.device)
    rest = torch.arange(inside, scores.shape[1], device=scores.device).expand(len(scores), -1)
    ids = torch.cat([(block[:, :, None] * BLOCK + places).flatten(1), rest], dim=1)
    best, place = scores.gather(1, ids).topk(k, dim=1)
    return best, ids.gather(1, place)


def _in_order(scores: Tensor, ids: Tensor) -> Tensor:
    ids = ids.sort(dim=1).values  # rising, so that a stable sort keeps the rule among equals
    return ids.gather(1, scores.gather(1, ids).sort(dim=1, descending=True, stable=True).indices)


def _of_rows(exclude: tuple[Tensor, Tensor], rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What is excluded in some of the `count` rows, these numbered from 0."""
    place = rows.new_full((count,), -1)
    place[rows] = torch.arange(len(rows), device=rows.device)
    place = place[exclude[1]]
    return exclude[0][place >= 0], place[place >= 0]


def _by_counting(scores: Tensor, held: int, exclude: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """The rule in full, for any row of at least `held` items."""
    order = _sortable(scores)
    if exclude is not None:
        order[exclude[1], exclude[0]] = torch.iinfo(order.dtype).min
    last = order.topk(held, dim=1).values[:, -1:]
    above, equal = order > last, order == last
    room = held - above.sum(1, keepdim=True)
    taken = above | (equal & (equal.cumsum(1) <= room))  # of the items equal to the last one the lowest
    ids = _in_order(order, taken.nonzero()[:, 1].view(len(scores), held))
    gone = order.gather(1, ids) == torch.iinfo(order.dtype).min
    return scores.gather(1, ids).masked_fill(gone, LOWEST), ids.masked_fill(gone, -1)


def _sortable(scores: Tensor) -> Tensor:
    """Integers in the order of the scores: NaN below -inf, and the lowest integer left free for excluded items."""
    wide = scores if scores.dtype == torch.float64 else scores.float()
    integer = torch.int64 if wide.dtype == torch.float64 else torch.int32
    limits = torch.iinfo(integer)
    bits = (wide + 0.0).view(integer)  # + 0.0 turns -0.0 into 0.0
    order = torch.where(bits < 0, bits ^ limits.max, bits)  # negative numbers: the larger the magnitude, the lower
    return order.masked_fill(wide.isnan(), limits.min + 1)
