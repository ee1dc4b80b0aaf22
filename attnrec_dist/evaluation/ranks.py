"""Exact ranks of relevant items in a matrix of scores: the integers on which every ranking metric rests.

A view is one user's history up to a moment; its relevant items are what the user took afterwards. Ranks are counted
under two policies: `all` ranks the whole catalogue, `new` leaves the history's items out of the ranking and out of the
relevant set. B views, V catalogue, M relevant items of all views, S history items of all views.

Counting compares every score of a view with each of its targets. Sorting the row once and searching it costs as much as
about 80 such comparisons (V = 3,000 to 1,000,000, one CPU thread), more than a view has relevant items on average.
"""

from __future__ import annotations

import torch
from torch import Tensor

MISS = 0  # the item is not in the catalogue (index >= V): never ranked, counted among the relevant
NOT_RELEVANT = -1  # already in the history, so not asked for under the policy `new`

CPU_CHUNK = 2**18  # scores compared at a time: what stays in a core's cache is four times as fast
DEVICE_CHUNK = 2**25  # an accelerator wants few large kernels
EXACT_IN_FLOAT = 2**24  # whole numbers


def ranks(scores: Tensor, relevant: Tensor, relevant_row: Tensor, seen: Tensor, seen_row: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the relevant items under the policies `all` and `new`, two int64 [M]; 1 is the best.

    rank = number of ranked items, the target included, whose score is not below the target's: ties and NaN count against
    the model, and a target scored NaN comes last. The target's score is read from the same matrix. `MISS` and
    `NOT_RELEVANT` stand for what has no rank. Each rank depends on its own view alone, so any batching gives the same.

    Args:
        scores: [B, V] of any floating type
        relevant, relevant_row: [M] item (any id; V and above are cold), distinct within a view, and its row of `scores`
        seen, seen_row: [S] item of the history (repeats and cold ones are welcome) and its row

    >>> scores = torch.tensor([[0.1, 0.4, 0.4, 0.9]])
    >>> row = torch.zeros(3, dtype=torch.int64)
    >>> ranks(scores, torch.tensor([1, 3, 7]), row, torch.tensor([3, 3]), row[:2])   # 2 ties with 1; 7 is cold
    (tensor([3, 1, 0]), tensor([ 2, -1,  0]))
    """
    num_items = scores.shape[1]
    relevant, relevant_row = relevant.long(), relevant_row.long()
    cold = relevant >= num_items
    target = scores[relevant_row, relevant.masked_fill(cold, 0)]  # [M]; a cold one's is a stand-in

    not_below = num_items - _count_below(scores, target, relevant_row)
    rank_all = not_below.masked_fill(cold, MISS)

    span = 1 + max(int(ids.max()) if len(ids) else 0 for ids in (relevant, seen))
    pairs = torch.unique(seen_row.long() * span + seen.long())  # the distinct (row, item) of all histories, sorted
    in_history = torch.isin(relevant_row * span + relevant, pairs)
    warm = pairs[pairs % span < num_items]
    seen_scores, num_seen = _scores_of(scores, warm // span, warm % span)
    seen_not_below = num_seen[relevant_row] - _count_below(seen_scores, target, relevant_row)
    rank_new = (not_below - seen_not_below).masked_fill(cold, MISS).masked_fill(in_history, NOT_RELEVANT)
    return rank_all, rank_new


def _count_below(scores: Tensor, target: Tensor, row: Tensor) -> Tensor:
    """How many scores of its row are below each target, int64 [M]; a comparison with NaN is false."""
    width = scores.shape[1]
    step = max(1, (CPU_CHUNK if scores.device.type == "cpu" else DEVICE_CHUNK) // max(width, 1))
    # Ones and zeros as floats are added up six times as fast as bools, exactly while they are few enough.
    is_below = scores.new_empty(min(step, len(row)), width, dtype=torch.float32 if width <= EXACT_IN_FLOAT else torch.float64)
    one_each = scores.device.type == "cpu" and torch.equal(row, torch.arange(len(scores)))  # a target a view: no copies
    parts = scores.split(step) if one_each else (scores[rows] for rows in row.split(step))
    counts = [
        torch.lt(part, targets[:, None], out=is_below[: len(part)]).sum(1)
        for part, targets in zip(parts, target.split(step), strict=True)
    ]
    return torch.cat(counts).long() if counts else row.new_zeros(0)


def _scores_of(scores: Tensor, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of some distinct items of each row, [B, most of a row] filled up with NaN, and how many a row has, [B]."""
    count = torch.bincount(row, minlength=len(scores))
    width = int(count.max()) if len(row) else 0
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    chosen = scores.new_full((len(scores), width), torch.nan)
    chosen[row, place] = scores[row, item]
    return chosen, count
