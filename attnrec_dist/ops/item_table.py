"""The item table: the one [V, D] weight, which both embeds items and scores them. Nobody else touches it.

Dense today. Row-sharded or vocabulary-parallel tables can take its place later: models, losses and evaluation know
only these methods.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnrec_dist.ops.chosen_logits import chosen_logits
from attnrec_dist.ops.linear_cross_entropy import linear_cross_entropy
from attnrec_dist.ops.products import times_transposed

INITIAL_STD = 0.02


class ItemTable(nn.Module):
    """V item vectors of width D, tied: input embedding and output layer are the same numbers."""

    def __init__(self, num_items: int, width: int):
        super().__init__()
        self.unit = False  # items are scored by unit vectors: the cosine, where the loss trains that
        self.weight = nn.Parameter(torch.empty(num_items, width))
        self.reset_parameters()

    @property
    def num_items(self) -> int:
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        return self.weight.shape[1]

    def reset_parameters(self) -> None:
        """Normal, mean 0, standard deviation 0.02."""
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of items: [n] -> [n, D]."""
        return F.embedding(ids, self.weight)

    def logits(self, hidden: Tensor, lo: int = 0, hi: int | None = None) -> Tensor:
        """Scores of items lo to hi (default: to the end): [P, D] -> [P, hi - lo]; in autocast's type inside autocast."""
        vectors = self.weight[lo:hi]
        if self.unit:
            hidden, vectors = F.normalize(hidden, dim=-1), F.normalize(vectors, dim=-1)
        if torch.is_grad_enabled() or torch.is_autocast_enabled(hidden.device.type):
            return hidden @ vectors.t()
        return times_transposed(hidden, vectors)

    def chosen_logits(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Scores of some items, fp32 or float64: ids [P, N] are each query's own, ids [N] the same for all; [P, D] -> [P, N]."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        if self.unit:
            hidden = F.normalize(hidden.to(wide), dim=-1)
        if ids.dim() > 1:
            return chosen_logits(hidden, self.weight, ids, self.unit)
        vectors = self(ids)
        if self.unit:
            vectors = F.normalize(vectors.to(wide), dim=-1)
        return (hidden @ vectors.t()).to(wide)

    def cross_entropy(
        self,
        hidden: Tensor,
        targets: Tensor,
        target_query: Tensor,
        target_weight: Tensor,
        beside: tuple[Tensor, Tensor] | None = None,
        chunk_elements: int | None = None,
    ) -> Tensor:
        """Sum over the targets of weight times -log softmax over all V items, a scalar; see `linear_cross_entropy`."""
        return linear_cross_entropy(hidden, self.weight, targets, target_query, target_weight, chunk_elements, beside)
