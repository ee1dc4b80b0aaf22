"""The low frequencies of packed rows: what a Fourier transform of a row, padded with zeros to L baskets, keeps below a cut-off.

Transforming, dropping all but the lowest frequencies and transforming back is a circular convolution with one kernel,

    kernel(d) = (1 + 2 sum over k = 1..cutoff // 2 of cos(2 pi k d / L)) / L

(without the 2 at k = L / 2), and zeros add nothing to it. So a row is filtered at its own length, and on which side of it the
padding would stand makes no difference: only distances count. A basket is one element of the sequence, the mean of its tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attnrec_dist.ops.attention.bucketed import Padding, pad
from attnrec_dist.ops.packed import Layout


def kernel(length: int, cutoff: int) -> Tensor:
    """The filter's answer to a single 1, float64 [L]; the distance is taken modulo L."""
    distance = torch.arange(length, dtype=torch.float64)
    result = torch.ones(length, dtype=torch.float64)
    for frequency in range(1, min(cutoff // 2, length // 2) + 1):
        twice = 1 if 2 * frequency == length else 2  # the highest one has no mirror image
        result += twice * torch.cos(2 * torch.pi * frequency * distance / length)
    return result / length


def low_pass(x: Tensor, layout: Layout, response: Tensor, causal: bool) -> Tensor:
    """The low frequencies of each row, [T, D] -> [T, D], formed in fp32 at least; tokens of a basket get the same.

    Args:
        response: [L] of `kernel`.
        causal: each token gets the filtered value of the row that ends with its own basket, instead of the whole row's.
    """
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        response = response.to(wide.dtype)
        if layout.baskets is not None:
            wide = wide / layout.segment_sizes[layout.segments, None]  # a basket's tokens add up to its mean
        padding = layout.once(pad)
        real = wide.new_zeros(len(padding.token_of_place), 1).index_fill_(0, padding.place_of_token, 1)
        padded = wide.index_select(0, padding.token_of_place) * real
        sizes = [group.rows * group.length for group in padding.groups]
        results = [
            torch.matmul(matrix, part.unflatten(0, (-1, matrix.shape[-1]))).flatten(0, 1)
            for matrix, part in zip(_matrices(layout, padding, response, causal), padded.split(sizes), strict=True)
        ]
        return torch.cat(results).index_select(0, padding.place_of_token).to(x.dtype)


def _matrices(layout: Layout, padding: Padding, response: Tensor, causal: bool) -> list[Tensor]:
    """What each place takes from each other of its row, for every group: [length, length], or with baskets one a row."""
    found, start = [], 0
    for group in padding.groups:
        if layout.baskets is None:
            place = torch.arange(group.length, device=response.device)
        else:
            tokens = padding.token_of_place[start : start + group.rows * group.length]
            place = layout.baskets[tokens].unflatten(0, (group.rows, group.length))
        distance = place[..., :, None] - place[..., None, :]
        matrix = response[distance.remainder(len(response))]
        found.append(matrix.masked_fill(distance < 0, 0) if causal else matrix)
        start += group.rows * group.length
    return found
