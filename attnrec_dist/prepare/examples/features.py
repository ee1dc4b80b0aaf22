"""What is known of an example at its moment: one small function a kind of feature. FEATURES is the registry.

A feature is an expression over columns that as_of.py fills from strictly earlier seconds, the example's own numbers (`n0`,
...), and texts of the item's and the user's file. A NULL is missing. A new kind: one function, one line in FEATURES, a row in
docs/data-format.md; the tests' plain Python counterpart must know it too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator, model_validator

from attnrec_dist.prepare.durations import Duration, check_keys
from attnrec_dist.prepare.examples.as_of import AsOf
from attnrec_dist.prepare.sql import NUMBER, clamped, identifier, text, with_point
from attnrec_dist.settings import Section

DAY = 86_400
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")  # 1970-01-01 was a Thursday


@dataclass(frozen=True)
class Log:
    """What a feature has to know of the log to write its SQL."""

    event_types: list[str]
    numeric: list[str]
    missing_numeric: float | None  # stands in the log for a missing number
    time_zone: str
    decimal_comma: tuple[str, ...]  # whose file writes numbers so: item, user
    own_numbers: bool  # whether an example is an event; false: its item may have been drawn

    def is_one_of(self, events: list[str] | None) -> str:
        """SQL: whether an event is of these kinds; null: of any."""
        if events is None:
            return "true"
        return f"e IN ({', '.join(str(self.event_types.index(name)) for name in events)})"

    def number(self, column: str | None) -> str:
        """SQL: a numeric column of an event, NULL where it is missing."""
        name = f"n{self.numeric.index(str(column))}"
        return name if self.missing_numeric is None else f"nullif({name}, CAST({self.missing_numeric!r} AS FLOAT))"


@dataclass(frozen=True)
class Recipe:
    """`expression` may name its as-of columns in braces."""

    expression: str
    kind: Literal["categorical", "numeric"] = "numeric"
    as_of: dict[str, AsOf] = field(default_factory=dict)
    text: str = ""  # SQL of the text that a number is read from


@dataclass(frozen=True)
class Kind:
    build: Callable[[FeatureSection, Log], Recipe]
    needs: tuple[str, ...] = ()  # keys that must be given
    takes: tuple[str, ...] = ()  # keys that may be


def count(asked: FeatureSection, log: Log) -> Recipe:
    """How many events; 0 is 0."""
    known = AsOf.count(str(asked.of), log.is_one_of(asked.events), asked.within)
    return Recipe("{count}", as_of={"count": known})


def recency(asked: FeatureSection, log: Log) -> Recipe:
    """Days since the last event; missing where there is none."""
    known = AsOf(str(asked.of), {"last": "max(s)"}, "max({last}) OVER {earlier}", log.is_one_of(asked.events), asked.within)
    return Recipe(f"(s - {{last}}) / {DAY}.0", as_of={"last": known})


def mean(asked: FeatureSection, log: Log) -> Recipe:
    """Mean of a number over the events; missing where there is none."""
    return Recipe("{mean}", as_of={"mean": _mean(str(asked.of), asked, log)})


def ratio(asked: FeatureSection, log: Log) -> Recipe:
    """A number of the candidate by its mean over the user's events; missing where the user has none, or their mean is 0.

    The candidate's number is the example's own; where items are drawn it is, for all examples, positive or drawn, the item's last
    known one: a positive's own number next to a drawn item's last one would tell them apart.
    """
    known = {"mean": _mean("user", asked, log)}
    number = log.number(asked.column)
    if log.own_numbers:
        return Recipe(f"{number} / nullif({{mean}}, 0)", as_of=known)
    newest = "last_value({number} IGNORE NULLS) OVER {earlier}"
    known["last"] = AsOf("item", {"number": f"max({number})"}, newest, log.is_one_of(asked.events))
    return Recipe("{last} / nullif({mean}, 0)", as_of=known)


def _mean(of: str, asked: FeatureSection, log: Log) -> AsOf:
    """Sums are of whole 65,536ths, so that no order of addition leaves a trace."""
    number = log.number(asked.column)
    whole = f"sum(CAST(round(({clamped(number, 1e13)}) * 65536) AS BIGINT))"
    value = "sum({sum}) OVER {earlier} / CAST(65536 AS DOUBLE) / nullif(sum({n}) OVER {earlier}, 0)"
    return AsOf(of, {"sum": whole, "n": f"count({number})"}, value, log.is_one_of(asked.events), asked.within)


def hour(asked: FeatureSection, log: Log) -> Recipe:
    """Hour of the day, 0 to 23, in columns.timestamp.time_zone."""
    return Recipe(f"CAST(({_local(log)} % {DAY} + {DAY}) % {DAY} // 3600 AS VARCHAR)", "categorical")


def weekday(asked: FeatureSection, log: Log) -> Recipe:
    """Name of the day, in columns.timestamp.time_zone."""
    number = f"(({_local(log)} - (({_local(log)} % {DAY} + {DAY}) % {DAY})) // {DAY} % 7 + 11) % 7"
    return Recipe(
        "CASE " + number + "".join(f" WHEN {i} THEN {text(day)}" for i, day in enumerate(WEEKDAYS)) + " END", "categorical"
    )


def _local(log: Log) -> str:
    """SQL: seconds since 1970 on the clock of the time zone."""
    if log.time_zone == "UTC":
        return "s"
    return f"epoch_us(timezone({text(log.time_zone)}, make_timestamptz(s * 1000000))) // 1000000"


def attribute(asked: FeatureSection, log: Log) -> Recipe:
    """A text of the item's or the user's file, or what a pattern finds in it; or a number of it."""
    value = identifier(f"{asked.kind}.{asked.column}")
    if asked.pattern is not None:
        value = f"nullif(regexp_extract({value}, {text(asked.pattern)}, {re.compile(asked.pattern).groups}), '')"
    if asked.type != "numeric":
        return Recipe(value, "categorical")
    written = with_point(value) if asked.kind in log.decimal_comma else value
    number = f"CASE WHEN regexp_full_match({written}, '{NUMBER}') THEN TRY_CAST({written} AS DOUBLE) END"
    return Recipe(number, text=value)


def column(asked: FeatureSection, log: Log) -> Recipe:
    """A number of the example's own event, for what is known before the answer, as the price at which an item is viewed."""
    return Recipe(log.number(asked.column))


FEATURES = {
    "count": Kind(count, ("of",), ("events", "within")),
    "recency": Kind(recency, ("of",), ("events", "within")),
    "mean": Kind(mean, ("of", "column"), ("events", "within")),
    "ratio": Kind(ratio, ("column",), ("events", "within")),
    "hour": Kind(hour),
    "weekday": Kind(weekday),
    "item": Kind(attribute, ("column",), ("type", "pattern", "min_count")),
    "user": Kind(attribute, ("column",), ("type", "pattern", "min_count")),
    "column": Kind(column, ("column",)),
}


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
        check_keys(self.kind, self, entry.needs, entry.takes)
        return self
