"""What a loss is: the base class, and that of its settings, with all that a loss may declare and its defaults."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from attnrec_dist.batch import TaskName
from attnrec_dist.registry import Declared, DeclaredSection


class LossConfig(DeclaredSection):
    """The keys of a loss, and what they mean for the loader and for ranking. A subclass overrides what differs."""

    name: str = ""

    @property
    def draws(self) -> int:
        """How many negatives a query is scored against; 0: the loss draws none and knows the whole catalogue."""
        return 0

    @property
    def scores_cosines(self) -> bool:
        """Whether it trains cosines of states and items, so that ranking goes by cosines too."""
        return False

    @property
    def scale(self) -> float:
        """By which logits are divided; a model that ranks by the probabilities that it trains needs 1."""
        return 1.0


class Loss(nn.Module, Declared, contract=True):
    """Made as `Loss(config, spec)`."""

    Config: ClassVar[type[LossConfig]]
    task: ClassVar[TaskName] = "next_item"  # whose outputs it takes

    def forward(self, output: Any, batch: Any, table: Any) -> Tensor:
        """The sum over a micro-batch of weighted losses, a scalar in fp32 (float64 in a float64 run).

        It never divides by what the micro-batch holds: the engine divides, by the weight of all ranks.

        Args:
            output: Output or RankingOutput of the model
            batch: SequenceBatch or RankingBatch
            table: the model's ItemTable; None in the ranking task
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")
