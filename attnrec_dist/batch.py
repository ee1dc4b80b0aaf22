"""What a model sees: packed batches, and the legend of dimension letters used everywhere.

B rows (a user's history, or a window of it)     T tokens of all rows, one after another     L length of a row
P queries (the places that predict)              M targets of all queries                   D width
H heads      V catalogue (trainable items)       N negatives      K fields      G samples of a global batch

Nothing is padded. Row b owns tokens offsets[b] to offsets[b + 1]. The tokens of one basket share a position: they
are a set, their order means nothing. A query is the last token of a basket; its targets are the items of the next one.

Two tasks, a batch each: `next_item` (SequenceBatch: what comes next in a history) and `ranking` (RankingBatch: one user, one
candidate item, K fields; how probable is a click, a purchase). A model says which is its own: `task`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

TaskName = Literal["next_item", "ranking"]
PADDING = -1  # sample id of a stand-in that fills an epoch's last step: weight 0
BEGIN = -1  # in the place of an item: the token of a history that has none yet (data.empty_history)
UNSEEN, MISSING = 0, 1  # reserved codes of every categorical field: a value that training never showed, no value at all
BatchT = TypeVar("BatchT", bound="Batch")


@dataclass
class Batch(ABC):
    """What both kinds of batches can do: be moved with all their tensors, those in dictionaries too."""

    sample_ids: Tensor  # [B] place in the epoch's numbering; PADDING for stand-ins
    users: Tensor  # [B] user index

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """What is computed on."""

    @property
    @abstractmethod
    def num_targets(self) -> int:
        """What is trained, stand-ins left out; of a batch on the host, because it asks the device."""

    def to(self: BatchT, device: torch.device | str) -> BatchT:
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: BatchT) -> BatchT:
        """Called by the data loader where a GPU is present."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self: BatchT, function) -> BatchT:
        changes: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                changes[each.name] = function(value)
            elif isinstance(value, dict):
                changes[each.name] = {key: function(inner) for key, inner in value.items()}
        return dataclasses.replace(self, **changes)


@dataclass
class SequenceBatch(Batch):
    """A packed micro-batch of next-item samples. Integers are int64 unless said."""

    items: Tensor  # [T] item index, 0 <= item < V, or BEGIN
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
    step_key: Tensor | None = None  # [1] for all queries of a step, is drawn under these: data/draw_keys.py
    evidence: dict[str, Tensor] = field(default_factory=dict)  # what a model's experts asked of the data: data/expert_features.py

    @property
    def num_tokens(self) -> int:
        return len(self.items)

    @property
    def num_targets(self) -> int:
        """Targets that weigh anything."""
        return int(torch.count_nonzero(self.target_weight))

    def asks_at_ends(self) -> bool:
        """Whether each row has one query, its last token, and no basket has several; of a batch on the host."""
        return self.singletons and torch.equal(self.queries, self.offsets[1:].long() - 1)


@dataclass
class RankingBatch(Batch):
    """A packed micro-batch of labelled examples. Row b's history owns tokens offsets[b] to offsets[b + 1], which may be none."""

    candidates: Tensor  # [B] item index; V and above: an item that training never showed
    times: Tensor  # [B] unix seconds: the moment of the example; everything here was known before it
    fields: dict[str, Tensor]  # {name: [B]}: codes (UNSEEN, MISSING, 2, ...) or float32 numbers (NaN: missing)
    labels: dict[str, Tensor]  # {task: [B] float32, 0 or 1}
    label_weights: dict[str, Tensor]  # {task: [B] float32}: 1; 0 in a stand-in, or where the task says nothing of the example
    items: Tensor  # [T] item index; V and above: cold
    history_times: Tensor  # [T] unix seconds
    offsets: Tensor  # [B + 1] int32
    max_length: int  # longest history, known on the host
    events: dict[str, Tensor] = field(default_factory=dict)  # {"event": [T], numeric columns: [T] float32}

    @property
    def num_rows(self) -> int:
        return len(self.sample_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens of the histories, and one a row for the example itself."""
        return len(self.items) + len(self.sample_ids)

    @property
    def num_targets(self) -> int:
        """Real examples."""
        return int((self.sample_ids >= 0).sum())


@dataclass
class Output:
    """What a model returns: the hidden state after each token; room for experts' weights and attention on request."""

    hidden: Tensor  # [T, D]
    beside: tuple[Tensor, Tensor] | None = None  # in a mixture, at each target [M]: log share of the softmax, log p of all others
    explanation: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class RankingOutput:
    """What a ranking model returns. On request the weights that it gave: {"fields": [B, K], over the model's `field_names`,
    "history": [T], over the tokens}, each row's adding up to 1."""

    logits: dict[str, Tensor]  # {task: [B]}, fp32 or float64
    explanation: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """The evidence that a model asks the loader to look up: data/expert_features.py."""

    names: tuple[str, ...] = ()
    half_lives: tuple[float, ...] = ()  # days, of the trend


@dataclass(frozen=True)
class DataSpec:
    """What a model may know of its data set before the first batch."""

    num_items: int  # V
    max_length: int  # longest row in tokens, so the number of positions
    event_types: tuple[str, ...] = ()
    statistics: Any = None  # the data set's daily() and graph(), for models whose experts need them
    examples: Any = None  # the manifest's section `examples`: fields and tasks of the ranking task; None where there are none
    empty_history: bool = False  # whether batches may hold BEGIN
