"""What a model sees: packed batches, and the legend of dimension letters used everywhere.

B rows (a user's history, or a window of it)     T tokens of all rows, one after another     L length of a row
P queries (the places that predict)              M targets of all queries                   D width
H heads      V catalogue (trainable items)       N negatives      K fields      G samples of a global batch

Nothing is padded. Row b owns tokens offsets[b] to offsets[b + 1]. The tokens of one basket share a position: they
are a set, their order means nothing. A query is the last token of a basket; its targets are the items of the next one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

PADDING = -1  # sample id of a stand-in that fills an epoch's last step: one token, weight 0


@dataclass
class SequenceBatch:
    """A packed micro-batch of next-item samples. Integers are int64 unless said."""

    sample_ids: Tensor  # [B] place in the epoch's numbering; PADDING for stand-ins
    users: Tensor  # [B] user index
    items: Tensor  # [T] item index, 0 <= item < V
    times: Tensor  # [T] unix seconds
    baskets: Tensor  # [T] index of the token's basket inside its row, from 0: its position
    offsets: Tensor  # [B + 1] int32
    queries: Tensor  # [P] index into the tokens
    query_times: Tensor  # [P] unix seconds at which the prediction is asked for: later than every token of the query
    targets: Tensor  # [M] item index
    target_query: Tensor  # [M] index into queries, not decreasing
    target_weight: Tensor  # [M] float32: 1 / size of the target basket; 0 in stand-ins
    max_length: int  # longest row, known on the host so that no kernel has to ask the device
    singletons: bool  # every basket holds one token: attention is plainly causal
    events: dict[str, Tensor] = field(default_factory=dict)  # {"event": [T], numeric columns: [T] float32}
    query_keys: Tensor | None = None  # [P] what is drawn for a query, and
    step_key: Tensor | None = None  # [1] for all queries of a step, is drawn under these: data/keys.py
    evidence: dict[str, Tensor] = field(default_factory=dict)  # what a model's experts asked of the data: data/evidence.py

    @property
    def num_tokens(self) -> int:
        return len(self.items)

    def to(self, device: torch.device | str) -> SequenceBatch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> SequenceBatch:
        """Called by the data loader where a GPU is present."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function) -> SequenceBatch:
        changes: dict[str, object] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                changes[each.name] = function(value)
        for name in ("events", "evidence"):
            changes[name] = {key: function(value) for key, value in getattr(self, name).items()}
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass
class Output:
    """What a model returns: the hidden state after each token; room for experts' weights and attention on request."""

    hidden: Tensor  # [T, D]
    beside: tuple[Tensor, Tensor] | None = None  # in a mixture, at each target [M]: log share of the softmax, log p of all others
    explanation: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """The evidence that a model asks the loader to look up: data/evidence.py."""

    names: tuple[str, ...] = ()
    half_lives: tuple[float, ...] = ()  # days, of the trend


@dataclass(frozen=True)
class DataSpec:
    """What a model may know of its data set before the first batch."""

    num_items: int  # V
    max_length: int  # longest row in tokens, so the number of positions
    event_types: tuple[str, ...] = ()
    statistics: Any = None  # the data set's daily() and graph(), for models whose experts need them
