"""The keys `label`, `features` and `users` of a prepare YAML, and checks of them that need no data; see docs/data-format.md."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from attnrec_dist.prepare.features import FEATURES, Kind
from attnrec_dist.settings import Section
from attnrec_dist.timestamps import seconds

if TYPE_CHECKING:
    from attnrec_dist.prepare.config import PrepareConfig

NAME = re.compile(r"[a-z][a-z0-9_]*")


def _duration(value: Any) -> Any:
    if isinstance(value, bool) or not re.fullmatch(r"[-+]?\d+[smhdw]", str(value)):
        raise ValueError("write a whole number and a unit, as in 45s, 30m, 12h, 7d or 4w")
    if seconds(value) <= 0:
        raise ValueError("a window must have a length above 0, as in 7d or 12h")
    return value


Duration = Annotated[str, BeforeValidator(_duration)]


def _check_keys(kind: str, section: Section, needed: Iterable[str], allowed: Iterable[str]) -> None:
    """Raises ValueError for a key that is missing, or given though it means nothing for this kind."""
    defaults = {key: field.default for key, field in type(section).model_fields.items()}
    given = {key for key in defaults if getattr(section, key) != defaults[key]}
    missing = [key for key in needed if key not in given]
    if missing:
        raise ValueError(f"kind {kind} needs {' and '.join(missing)}")
    foreign = sorted(given - {"kind", "name", "tasks", *needed, *allowed})
    if foreign:
        known = ", ".join([*needed, *allowed]) or "none"
        raise ValueError(f"{foreign[0]} means nothing for kind {kind}; leave it out (its keys: {known})")


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
        _check_keys(self.kind, self, needed, allowed)
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
            _check_name(name)
        if self.name in self.tasks:
            raise ValueError(f"tasks: {self.name!r} is the name of the label itself; choose another")
        return self

    def all_tasks(self) -> dict[str, TaskSection]:
        """The label itself first."""
        return {self.name: self, **self.tasks}


class FeatureSection(Section):
    """One thing that is known of an example at its moment: what happened in earlier seconds, no other."""

    kind: str = Field(description=f"one of {', '.join(FEATURES)}")
    of: Literal["user", "item", "user_item"] | None = Field(
        default=None, description="whose events: the user's, the item's, or both's"
    )
    events: list[str] | None = Field(default=None, min_length=1, description="kinds of events; null: all")
    within: Duration | None = Field(default=None, description="no events longer ago than this, as in 7d; null: all earlier ones")
    column: str | None = Field(
        default=None, description="one of columns.numeric; kinds item and user: a name in items / users.columns"
    )
    type: Literal["categorical", "numeric"] | None = Field(default=None, description="item and user: null: categorical")
    pattern: str | None = Field(
        default=None,
        description="item and user: a regular expression; the value is its group, or what it matches; where it does not, missing",
    )
    min_count: int | None = Field(
        default=None, ge=1, description="item and user: rarer values in the training examples count as unseen; null: 1"
    )

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in FEATURES:
            close = difflib.get_close_matches(kind, FEATURES, 1, 0.5)
            raise ValueError(
                f"no such kind of feature; {f'did you mean {close[0]}?' if close else 'known: ' + ', '.join(FEATURES)}"
            )
        return kind

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern or "").groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups > 1:
            raise ValueError("one group at most; write others as (?:...)")
        return pattern

    @model_validator(mode="after")
    def _keys_of_kind(self) -> FeatureSection:
        entry: Kind = FEATURES[self.kind]
        _check_keys(self.kind, self, entry.needs, entry.takes)
        return self


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a name: lower-case letters, digits and _, a letter in front")


def check_examples(config: PrepareConfig) -> None:
    """Cross-checks of label and features with the other sections. Raises ValueError."""
    label, is_by_user = config.label, config.split.is_by_user
    if label is None:
        if config.features:
            raise ValueError(
                "features: there is no label, so there are no examples to have them; add label, or leave features out"
            )
        return
    for name, task in label.all_tasks().items():
        where = "label" if task is label else f"label.tasks.{name}"
        _check_column(config, where, task.column)
        if task.kind == "follow_up" and is_by_user:
            raise ValueError(
                f"{where}: kind follow_up needs one cut in time for all users; set split.kind: time, or another kind"
            )
    for name, feature in config.features.items():
        where = f"features.{name}"
        try:
            _check_name(name)
        except ValueError as error:
            raise ValueError(f"features: {error}") from None
        if feature.kind in ("item", "user"):
            _check_attribute(config, where, feature)
        else:
            _check_column(config, where, feature.column)
        if feature.kind == "column" and label.kind == "sampled":
            raise ValueError(
                f"{where}: a drawn item has no event of its own, so the column would tell the label; use ratio or mean"
            )
        if feature.kind in ("hour", "weekday") and config.has_places:
            raise ValueError(f"{where}: the log has places instead of times; leave it out")


def named_events(config: PrepareConfig) -> dict[str, list[str]]:
    """{config path: kinds of events that it names}, of all sections."""
    asked = {"statistics.events": config.statistics.events}
    if config.label is not None:
        asked["label.on"] = config.label.on
        for name, task in config.label.all_tasks().items():
            asked["label.events" if task is config.label else f"label.tasks.{name}.events"] = task.events
    asked |= {f"features.{name}.events": feature.events for name, feature in config.features.items()}
    return {where: kinds for where, kinds in asked.items() if kinds}


def _check_column(config: PrepareConfig, where: str, column: str | None) -> None:
    known = config.columns.numeric
    if column is not None and column not in known:
        raise ValueError(f"{where}.column: {column!r} is not in columns.numeric{_close(column, known)}; add it there")


def _check_attribute(config: PrepareConfig, where: str, feature: FeatureSection) -> None:
    section, name = (config.items, "items") if feature.kind == "item" else (config.users, "users")
    if section is None:
        raise ValueError(f"{where}: kind {feature.kind} needs the section {name} with file, id and columns; add it")
    if feature.column not in section.columns:
        close = _close(str(feature.column), list(section.columns))
        raise ValueError(f"{where}.column: {feature.column!r} is not a name in {name}.columns{close}; add it there")


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else f" ({', '.join(known) or 'empty'})"
