"""The keys `label`, `features` and `users` of a prepare YAML, and checks of them that need no data; see docs/data-format.md."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from attnrec_dist.prepare.durations import Duration, check_keys, check_name
from attnrec_dist.settings import Section


class TaskSection(Section):
    """What an example is asked."""

    kind: Literal["follow_up", "column"] = Field(
        description="follow_up: 1 if one of `events` of the same user and item comes within the window; column: 1 if a number of "
        "the example's own event is at least a threshold"
    )
    events: list[str] | None = Field(
        default=None, min_length=1, description="follow_up: kinds of events, one of which must follow"
    )
    within: Duration | None = Field(default=None, description="follow_up: length of the window, as in 7d or 12h")
    column: str | None = Field(default=None, description="column: one of columns.numeric")
    at_least: float | None = Field(default=None, description="column: the smallest value that is labelled 1")

    @model_validator(mode="after")
    def _keys_of_kind(self) -> TaskSection:
        needed, allowed = LABEL_KEYS[self.kind]
        allowed = allowed if isinstance(self, LabelSection) else ()
        needed = needed if isinstance(self, LabelSection) else tuple(key for key in needed if key != "on")
        check_keys(self.kind, self, needed, allowed)
        return self


LABEL_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "follow_up": (("on", "events", "within"), ()),
    "column": (("column", "at_least"), ("on",)),
    "sampled": ((), ("events", "negatives", "exponent", "seed")),
}


class LabelSection(TaskSection):
    """Which (user, item, moment) are examples, and their labels."""

    kind: Literal["follow_up", "column", "sampled"] = Field(  # type: ignore[assignment]
        description="follow_up: an example is an event of kind `on`, 1 if one of `events` of the same user and item follows "
        "in the window; column: an example is an event, 1 if its number is at least a threshold; sampled: an event is a "
        "positive, beside drawn items that the user did not take at that moment"
    )
    name: str = Field(default="label", description="name of the task")
    on: list[str] | None = Field(default=None, min_length=1, description="kinds of events that are examples; column: null: all")
    events: list[str] | None = Field(
        default=None,
        min_length=1,
        description="follow_up: kinds of events, one of which must follow; sampled: kinds of the positives, null: all",
    )
    negatives: int = Field(default=4, ge=1, le=1000, description="sampled: drawn items for each positive")
    exponent: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="sampled: an item is drawn in proportion to its earlier training events to this power; 0: all seen alike",
    )
    seed: int = Field(default=0, ge=0, description="sampled: another seed draws other items")
    tasks: dict[str, TaskSection] = Field(
        default={}, description="further labels of the same examples: name -> kind follow_up or column and its keys"
    )

    @model_validator(mode="after")
    def _names(self) -> LabelSection:
        for name in [self.name, *self.tasks]:
            check_name(name)
        if self.name in self.tasks:
            raise ValueError(f"tasks: {self.name!r} is the name of the label itself; choose another")
        return self

    def all_tasks(self) -> dict[str, TaskSection]:
        """The label itself first."""
        return {self.name: self, **self.tasks}
