"""Attention on rows grouped by length, each group padded to its longest row and given to PyTorch's SDPA.

The kernel of the CPU, where variable-length attention has no implementation, and of fp32 and float64 on a GPU. There
the lengths are not known to the host and asking would stop the queue, so all rows form one group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnrec_dist.ops.attention.dropped import dropped_attention
from attnrec_dist.ops.packed import Layout

# What one more call costs, in entries of padded L x L score matrices: ~60 us against ~10 ns an entry, forward and
# backward, D = 64, H = 2, one core. Since SDPA's time grows with L^2, long rows are nearly alone, short ones together.
CALL_COST = 6000


@dataclass(frozen=True)
class Group:
    """Rows computed by one call: `rows` of them, padded to `length`."""

    rows: int
    length: int
    chosen: Tensor  # [rows] which of the batch
    mask: Tensor | None  # [rows, 1, length, length] bool: True where a token sees; None: causal


@dataclass(frozen=True)
class Padding:
    """Where each token stands in the padded groups, S places in all, group after group."""

    token_of_place: Tensor  # [S]; places beyond the end of a row repeat its last token, and nobody reads their result
    place_of_token: Tensor  # [T]
    groups: list[Group]


def obstacle(q: Tensor, layout: Layout, dropout: float) -> str | None:
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float) -> Tensor:
    padding = layout.once(pad)
    results = []
    for group, rows_q, rows_k, rows_v in grouped(padding, q, k, v):
        if dropout > 0 and q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64):
            result = dropped_attention(rows_q, rows_k, rows_v, group.mask, dropout)
        else:
            result = F.scaled_dot_product_attention(  # [rows, H, length, D/H]
                rows_q, rows_k, rows_v, attn_mask=group.mask, dropout_p=dropout, is_causal=group.mask is None
            )
        results.append(result.transpose(1, 2).flatten(0, 1))
    return torch.cat(results).index_select(0, padding.place_of_token)


def attend_at_ends(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """[B, H, D/H] of q [B, H, D/H], k and v [T, H, D/H]: `attention_at_ends`."""
    result = torch.empty_like(q)
    for group, rows_k, rows_v in grouped(layout.once(pad), k, v):
        seen = F.scaled_dot_product_attention(  # [rows, H, 1, D/H]
            q[group.chosen, :, None], rows_k, rows_v, attn_mask=_real(layout, group.chosen, group.length)[:, None, None]
        )
        result[group.chosen] = seen[:, :, 0]
    return result


def grouped(padding: Padding, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """(group, each tensor's part of it [rows, H, length, D/H]) of tensors [T, H, D/H]."""
    sizes = [group.rows * group.length for group in padding.groups]
    padded = [each.index_select(0, padding.token_of_place).split(sizes) for each in tensors]
    for group, *parts in zip(padding.groups, *padded, strict=True):
        yield group, *(part.unflatten(0, (group.rows, group.length)).transpose(1, 2) for part in parts)


def pad(layout: Layout) -> Padding:
    """Groups the rows and numbers their padded places; on the CPU a pure function of the lengths."""
    if layout.device.type == "cpu":
        order = layout.lengths.argsort(descending=True, stable=True)
        cuts = group_by_length(layout.lengths[order].tolist())
    else:
        order, cuts = torch.arange(layout.num_rows, device=layout.device), [(layout.num_rows, layout.max_length)]
    sizes = [rows * length for rows, length in cuts]
    width = torch.cat([order.new_full((rows,), length) for rows, length in cuts])  # [B] of each row as ordered
    start = width.cumsum(0) - width  # its first place
    numbers = torch.arange(len(order), device=layout.device).repeat_interleave(width, output_size=sum(sizes))  # [S]
    step = torch.arange(sum(sizes), device=layout.device) - start[numbers]
    first, last = layout.offsets[:-1].long()[order], (layout.lengths[order] - 1).clamp(min=0)
    tokens = first[numbers] + torch.minimum(step, last[numbers])
    tokens = tokens.clamp(max=layout.num_tokens - 1)  # an empty row at the end
    start_of_row = torch.empty_like(start).index_copy_(0, order, start)
    parts = zip(cuts, order.split([rows for rows, _ in cuts]), tokens.split(sizes), strict=True)
    groups = [Group(*cut, chosen, _mask(layout, chosen, of_group.view(cut))) for cut, chosen, of_group in parts]
    return Padding(tokens, start_of_row[layout.rows] + layout.places, groups)


def _mask(layout: Layout, chosen: Tensor, tokens: Tensor) -> Tensor | None:
    if layout.baskets is None:
        return None  # real tokens come first: causal attention never reaches the padding
    real = _real(layout, chosen, tokens.shape[1])
    # Padding counts as a basket after all others: no real token sees it, and it sees something, so no row is empty.
    baskets = layout.segments[tokens].masked_fill(~real, layout.num_tokens)
    return (baskets[:, None, :] <= baskets[:, :, None])[:, None]


def _real(layout: Layout, chosen: Tensor, length: int) -> Tensor:
    """Which places of these rows, padded to `length`, hold tokens of theirs: [rows, length] bool."""
    return torch.arange(length, device=layout.device) < layout.lengths[chosen, None]


def group_by_length(lengths: list[int]) -> list[tuple[int, int]]:
    """Cuts falling lengths into groups [(rows, padded length)]: a new one where padding has cost as much as a call.

    >>> group_by_length([300, 299, 100, 99, 98, 4])
    [(2, 300), (3, 100), (1, 4)]
    """
    groups: list[tuple[int, int]] = []
    rows, longest, waste = 0, 0, 0
    for length in lengths:
        waste += longest**2 - length**2
        if rows and waste > CALL_COST:
            groups.append((rows, longest))
            rows = 0
        if rows == 0:
            longest, waste = length, 0
        rows += 1
    return [*groups, (rows, longest)] if rows else groups
