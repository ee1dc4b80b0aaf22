"""What a model is: the base classes of both tasks and of their settings, with all that a model may declare and its defaults.

A model is made as `Model(config, spec)`. It knows of no ranks, no optimizer and no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, Needs, Output, RankingBatch, RankingOutput, SequenceBatch, TaskName
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.registry import Declared, DeclaredSection


class ModelConfig(DeclaredSection):
    """The keys of a model, and what they mean for the loader and the loss. A subclass overrides what differs."""

    name: str = ""

    @property
    def is_causal(self) -> bool:
        """Whether no token knows of later ones, so that every token of a row may be asked; else only its last one may."""
        return True

    @property
    def reads_history(self) -> bool:
        """Of a ranking model, whether it reads histories; where not, the loader leaves them out."""
        return True

    @property
    def expert_names(self) -> tuple[str, ...]:
        """Of a model that mixes experts, which; their probabilities need a loss over the whole catalogue."""
        return ()

    @property
    def needs(self) -> Needs:
        """What the loader looks up for the experts (data/expert_features.py)."""
        return Needs()

    def lacking(self, spec: DataSpec) -> dict[str, str]:
        """The experts that this data set leaves without weight: {name: what it lacks}."""
        return {}


@dataclass
class Scored:
    """What a model says of the whole catalogue for P queries."""

    scores: Tensor  # [P, V], in the model's type; the higher the better
    experts: tuple[str, ...] = ()
    shares: Callable[[Tensor], Tensor] | None = None  # items [P, k] -> what part of each every expert gave, [P, k, K]


class Model(nn.Module, Declared, contract=True):
    """A model of either task."""

    Config: ClassVar[type[ModelConfig]]
    task: ClassVar[TaskName]
    table: ItemTable | None  # by which a next-item model reads and scores items


class NextItemModel(Model, contract=True):
    """Given a history, what comes next. Sets `table`, the one [V, D] weight by which items are read and scored."""

    task = "next_item"
    table: ItemTable

    def forward(self, batch: SequenceBatch, explain: bool = False) -> Output:
        """Hidden state after each token, [T, D]: of its row up to its own basket, and of nothing else."""
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def at_ends(self, batch: SequenceBatch) -> Tensor:
        """`forward(batch).hidden` at the rows' last tokens, [B, D], where each is its row's one query and a basket of its own.

        Override it where the other places need not be computed: evaluation is faster then.
        """
        hidden: Tensor = self(batch).hidden.index_select(0, batch.queries)
        return hidden

    def scored(self, batch: SequenceBatch, only_ends: bool) -> Scored:
        """The catalogue after each query. `only_ends`: the queries are the rows' last tokens (SequenceBatch.asks_at_ends)."""
        hidden = self.at_ends(batch) if only_ends else self(batch).hidden.index_select(0, batch.queries)
        return Scored(self.table.logits(hidden))


class RankingModel(Model, contract=True):
    """Given a user, an item and features, how probable each task's label is."""

    task = "ranking"
    table = None  # its loss needs none
    tasks: tuple[str, ...]  # of the data set's examples; the first is the one that is explained
    field_names: tuple[str, ...] = ()  # of the columns of explanation["fields"], where the model weighs fields

    def forward(self, batch: RankingBatch, explain: bool = False) -> RankingOutput:
        """A logit for each example and task."""
        raise NotImplementedError(f"{type(self).__name__}.forward")
