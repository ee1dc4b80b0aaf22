"""K fields of an example as vectors, those of numbers as factors: what a model needs of them is cheaper to form from these.

The vector of a number is a sum of C = 4 vectors of its field (fields.NumericFields), so K numbers of width D are K x C
coefficients an example, and a linear layer over them multiplies C columns in the place of D. Equal to computing on the vectors
themselves, `whole`, but for rounding. Letters: see batch.py; K1 fields are vectors, K2 are factors, K = K1 + K2, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class FieldVectors:
    vectors: Tensor  # [B, K1, D]
    factors: tuple[Tensor, Tensor] | None = None  # (coefficients [K2, B, C], basis [K2, C, D])

    def whole(self) -> Tensor:
        """[B, K, D]"""
        if self.factors is None:
            return self.vectors
        return torch.cat([self.vectors, torch.bmm(*self.factors).transpose(0, 1)], dim=1)

    def projected(self, weight: Tensor) -> Tensor:
        """A linear layer over each field's vector, weight [O, D] -> [K, B, O]"""
        of_vectors = F.linear(self.vectors.transpose(0, 1), weight)
        if self.factors is None:
            return of_vectors
        coefficients, basis = self.factors
        return torch.cat([of_vectors, torch.bmm(coefficients, F.linear(basis, weight))])

    def summed(self, shares: Tensor) -> Tensor:
        """sum_k shares_k x_k, shares [B, K] -> [B, D]"""
        of_vectors, rest = shares.split([self.vectors.shape[1], shares.shape[1] - self.vectors.shape[1]], dim=1)
        total = torch.bmm(of_vectors[:, None].to(self.vectors.dtype), self.vectors).squeeze(1)
        if self.factors is None:
            return total
        coefficients, basis = self.factors
        return total + flat(coefficients * rest.t()[..., None]) @ basis.flatten(0, 1)

    def joined(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A linear layer over all vectors laid side by side, weight [O, K D] -> [B, O]"""
        if self.factors is None:
            return F.linear(self.vectors.flatten(1), weight, bias)
        coefficients, basis = self.factors
        of_vectors, rest = weight.split([self.vectors.shape[1:].numel(), basis.shape[0] * basis.shape[2]], dim=1)
        folded = torch.bmm(basis, rest.unflatten(1, (len(basis), -1)).permute(1, 2, 0))  # [K2, C, O]
        return F.linear(self.vectors.flatten(1), of_vectors, bias) + flat(coefficients) @ folded.flatten(0, 1)


def flat(coefficients: Tensor) -> Tensor:
    """[K2, B, C] -> [B, K2 C]"""
    return coefficients.transpose(0, 1).flatten(1)
