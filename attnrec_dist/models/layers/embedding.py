"""Items, places, kinds and times of tokens as vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnrec_dist.batch import BEGIN, DataSpec, SequenceBatch
from attnrec_dist.errors import DataError
from attnrec_dist.ops.item_table import ItemTable

DAY, YEAR = 86_400, 365.2425  # seconds; days
GAPS = 24  # buckets of days between baskets


class TokenEmbedding(nn.Module):
    """Item + position + event type (+ time), each learned. The tokens of a basket share a position, its place in the row.

    BEGIN has a vector of its own, which is not in the table: it is never recommended.
    """

    def __init__(self, spec: DataSpec, width: int, dropout: float, time: bool = False):
        super().__init__()
        self.positions = nn.Embedding(spec.max_length, width)
        self.events = nn.Embedding(len(spec.event_types), width) if len(spec.event_types) > 1 else None
        self.begin = nn.Embedding(1, width) if spec.empty_history else None
        self.time = TimeEmbedding(width) if time else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: SequenceBatch, table: ItemTable) -> Tensor:
        """[T, D]. Places beyond the table share its last position. Raises DataError when event types are missing."""
        x = self._items(batch.items, table) + self.positions(batch.baskets.clamp(max=self.positions.num_embeddings - 1))
        if self.events is not None:
            if "event" not in batch.events:
                raise DataError("the model embeds event types but the batch has none; prepare the data with columns.event")
            x = x + self.events(batch.events["event"])
        if self.time is not None:
            x = x + self.time(batch)
        return self.dropout(x)

    def _items(self, items: Tensor, table: ItemTable) -> Tensor:
        if self.begin is None:
            return table(items)
        return torch.where((items == BEGIN)[:, None], self.begin.weight, table(items.clamp(min=0)))


class TimeEmbedding(nn.Module):
    """When a token was: days since the basket before it (half-octaves), weekday, month (UTC), each learned."""

    def __init__(self, width: int):
        super().__init__()
        self.gaps = nn.Embedding(GAPS, width)
        self.weekdays = nn.Embedding(7, width)
        self.months = nn.Embedding(12, width)

    def forward(self, batch: SequenceBatch) -> Tensor:
        """[T, D]"""
        days = (batch.times - basket_before(batch)).clamp(min=0) / DAY
        gap = (2 * (days + 1).log2()).long().clamp(max=GAPS - 1)
        return self.gaps(gap) + self.weekdays(weekday(batch.times)) + self.months(month(batch.times))


def basket_before(batch: SequenceBatch) -> Tensor:
    """The time of the basket before each token's own, int64 [T]; of a row's first basket its own time."""
    token = torch.arange(len(batch.times), device=batch.times.device)
    begins = torch.ones_like(token, dtype=torch.bool)  # a basket
    begins[1:] = batch.baskets[1:] != batch.baskets[:-1]
    begins[batch.offsets[:-1].long()] = True
    first = torch.where(begins, token, 0).cummax(0).values  # token of the basket
    row_start = torch.zeros_like(begins)
    row_start[batch.offsets[:-1].long()] = True
    return batch.times[torch.where(row_start[first], first, first - 1)]


def weekday(times: Tensor) -> Tensor:
    """0 for Monday, UTC; of unix seconds."""
    return (times.div(DAY, rounding_mode="floor") + 3) % 7  # 1970 began on a Thursday


def month(times: Tensor) -> Tensor:
    """Twelfths of a year, 0 to 11, UTC; of unix seconds."""
    return ((times.double() / DAY % YEAR) / (YEAR / 12)).long().clamp(0, 11)
