"""What ranking models are made of: every field of an example as a vector. B examples, K fields, D width: see batch.py.

A field is declared (`features` of the prepare YAML: categorical or numeric), or built in: the candidate item, the moment (hour
and weekday) and the history. Values that training never showed have reserved vectors; so that these are learned too, a small
share of all values is shown as unseen in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnrec_dist.batch import MISSING, UNSEEN, DataSpec, RankingBatch
from attnrec_dist.errors import ConfigError
from attnrec_dist.models.layers.embedding import DAY, weekday
from attnrec_dist.models.layers.field_vectors import FieldVectors
from attnrec_dist.ops.item_table import ItemTable

HOUR = 3_600  # seconds
MOST = 1e30  # what an infinite number counts as: differences of such numbers stay finite
FURTHEST = 6.0  # standard deviations from the mean
INITIAL_STD = 0.1  # of all vectors: a sum or an attention over a handful of them is neither drowned nor saturated
SLOPE_STD = 0.2  # of a number's vector: a deviation of 1 moves it by twice a vector's initial size


class CategoricalFields(nn.Module):
    """Codes -> vectors: one table for all fields, so that one gather serves them all."""

    starts: Tensor

    def __init__(self, fields: Sequence[Any], width: int, unseen: float):
        super().__init__()
        self.names = tuple(each.name for each in fields)
        self.unseen = unseen
        sizes = torch.tensor([0, *(each.size for each in fields)], dtype=torch.int64)
        self.register_buffer("starts", sizes.cumsum(0)[:-1], persistent=False)  # [K]
        self.table = nn.Embedding(int(sizes.sum()), width)

    def forward(self, batch: RankingBatch) -> Tensor:
        """[B, K, D]"""
        codes = torch.stack([batch.fields[name] for name in self.names], dim=1)
        if self.training and self.unseen:
            codes = codes.masked_fill((torch.rand(codes.shape, device=codes.device) < self.unseen) & (codes > MISSING), UNSEEN)
        vectors: Tensor = self.table(codes + self.starts)
        return vectors


class NumericFields(nn.Module):
    """Numbers -> vectors that no outlier can blow up; a missing number has a vector of its own.

        x_k = a_k u + b_k z + c_k        u = place of v among the quantiles, from -1 to 1
        x_k = m_k where v is NaN         z = (log v - mean) / std, cut at -6 and 6, with log v = sign(v) log(1 + |v|)

    A linear layer over such vectors forms differences of logarithms, so ratios of numbers, as of this week's sales to all; u
    stands for shapes that a logarithm does not fit. Both are linear here, bending them is the model's work. They are given as
    factors: coefficients (u, z, 1, 0), or (0, 0, 0, 1) where v is NaN, of the basis (a_k, b_k, c_k, m_k).
    """

    boundaries: Tensor
    counts: Tensor
    shift_scale: Tensor
    is_log: Tensor

    def __init__(self, fields: Sequence[Any], width: int):
        super().__init__()
        self.names = tuple(each.name for each in fields)
        inner = [sorted(each.quantiles or []) for each in fields]
        most = max((len(each) for each in inner), default=0)
        boundaries = [each + [float("inf")] * (most - len(each)) for each in inner]
        self.register_buffer("boundaries", torch.tensor(boundaries).reshape(len(inner), most), persistent=False)  # [K, Q]
        self.register_buffer("counts", torch.tensor([len(each) for each in inner])[:, None], persistent=False)  # [K, 1]
        shift_scale = [
            (each.mean or 0.0, 1 / each.std if each.std else 0.0) for each in fields
        ]  # a constant tells nothing: z = 0
        self.register_buffer("shift_scale", torch.tensor(shift_scale).reshape(len(inner), 2), persistent=False)
        self.register_buffer("is_log", torch.tensor([[each.log1p] for each in fields]), persistent=False)  # [K, 1]
        self.basis = nn.Parameter(torch.empty(len(inner), 4, width))

    def reset_own_parameters(self) -> None:
        nn.init.normal_(self.basis, std=INITIAL_STD)
        with torch.no_grad():
            self.basis[:, :2] *= SLOPE_STD / INITIAL_STD

    def forward(self, batch: RankingBatch) -> tuple[Tensor, Tensor]:
        """(coefficients [K, B, 4], basis [K, 4, D])"""
        values = torch.stack([batch.fields[name] for name in self.names]).to(self.boundaries.dtype)  # [K, B]
        known = ~values.isnan()
        values = values.nan_to_num(nan=0.0).clamp(-MOST, MOST)
        place = self._place(values)
        values = torch.where(self.is_log, values.sign() * values.abs().log1p(), values)
        z = ((values - self.shift_scale[:, :1]) * self.shift_scale[:, 1:]).clamp(-FURTHEST, FURTHEST)
        coefficients = torch.stack([place * known, z * known, known.to(z.dtype), (~known).to(z.dtype)], dim=-1)
        return coefficients, self.basis.clone()  # ZeRO 3 takes a module's own weights away when its forward ends

    def _place(self, values: Tensor) -> Tensor:
        """The place of each value among the quantiles from -1 (smallest) to 1, linear between the boundaries, [K, B]."""
        if not self.boundaries.shape[1]:
            return torch.zeros_like(values)
        bins = torch.minimum(torch.searchsorted(self.boundaries, values.contiguous(), right=True), self.counts)
        below = self.boundaries.gather(1, (bins - 1).clamp(min=0))
        above = self.boundaries.gather(1, bins.clamp(max=self.boundaries.shape[1] - 1))
        inner = (bins > 0) & (bins < self.counts)
        share = torch.where(inner, (values - below) / torch.where(inner & (above > below), above - below, 1), 0.5)
        return 2 * (bins + share) / (self.counts + 1) - 1


class Moment(nn.Module):
    """When it is: hour and weekday (UTC), each learned."""

    def __init__(self, width: int):
        super().__init__()
        self.hours = nn.Embedding(24, width)
        self.weekdays = nn.Embedding(7, width)

    def forward(self, times: Tensor) -> Tensor:
        """[B] -> [B, D]"""
        vectors: Tensor = self.hours(times % DAY // HOUR) + self.weekdays(weekday(times))
        return vectors


class KnownItems(nn.Module):
    """Vectors of items, of candidates and histories alike; all items that training never showed share a reserved one."""

    def __init__(self, num_items: int, width: int, unseen: float):
        super().__init__()
        self.table = ItemTable(num_items + 1, width)  # the last: cold
        self.unseen = unseen

    def forward(self, ids: Tensor) -> Tensor:
        """[n] -> [n, D]"""
        cold = self.table.num_items - 1
        ids = ids.clamp(max=cold)
        if self.training and self.unseen:
            ids = ids.masked_fill(torch.rand(ids.shape, device=ids.device) < self.unseen, cold)
        vectors: Tensor = self.table(ids)
        return vectors


def field_vectors(
    parts: Sequence[Tensor], numeric: NumericFields | None, batch: RankingBatch, dropout: nn.Dropout
) -> FieldVectors:
    """Parts [B, k, D] and the numbers' fields after them; entries are dropped in training, which needs the vectors whole."""
    if numeric is None:
        x = FieldVectors(torch.cat(list(parts), dim=1))
    else:
        none = numeric.basis.new_zeros(batch.num_rows, 0, numeric.basis.shape[2])
        x = FieldVectors(torch.cat(list(parts), dim=1) if parts else none, numeric(batch))
    return FieldVectors(dropout(x.whole())) if dropout.training and dropout.p else x


def examples_of(spec: DataSpec, model: str) -> Any:
    """What the manifest says of the labelled examples: tasks and fields. Raises ConfigError where there are none."""
    if spec.examples is None:
        raise ConfigError(
            f"model.name: {model} predicts labels, but the data set has no labelled examples; add `label` and `features` to its "
            "prepare YAML (configs/prepare/quickstart-ranking.yaml shows how) and type attnrec prepare again"
        )
    return spec.examples


def prior_logits(examples: Any) -> list[float]:
    """Log odds of each task's share of positives in the training part: where a model begins."""
    counts = [(examples.positives[task]["train"], examples.known[task]["train"]) for task in examples.tasks]
    return [math.log((positives + 1) / (known - positives + 1)) for positives, known in counts]


def reset_ranking_parameters(model: nn.Module) -> None:
    """Initial values of every part, drawn from torch's default generator in the order of the parts. What makes logits of
    hidden states (Output) begins at a twentieth of the size of others: the first predictions are near the share of positives.

    part                        weight                              bias
    nn.Embedding, ItemTable     normal, std 0.1                     -
    nn.Linear                   normal, std 1 / sqrt(inputs)        0
    NumericFields               a, b: normal, std 0.2; c, m: 0.1     -
    anything else               its own reset_parameters            its own
    """
    for part in model.modules():
        if isinstance(part, nn.Embedding | ItemTable):
            nn.init.normal_(part.weight, std=INITIAL_STD)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, NumericFields):
            part.reset_own_parameters()
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()
        if isinstance(part, Output):
            nn.init.normal_(part.weight, std=0.05 * part.in_features**-0.5)


class Output(nn.Linear):
    """Hidden states -> logits, [..., D] -> [..., 1], without a bias: the task's is added to it."""

    def __init__(self, width: int):
        super().__init__(width, 1, bias=False)
