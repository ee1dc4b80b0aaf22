"""The sections of a configs/prepare/*.yaml file, each the keys of one matter; config.py puts them together."""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from attnrec_dist.settings import Section
from attnrec_dist.times.read_times import check_format
from attnrec_dist.times.timestamps import TimeRule

MAX_EVENT_TYPES = 127  # an event type is stored as a signed byte


class TimestampColumn(Section):
    """`timestamp: ts` is short for `timestamp: {name: ts}`."""

    name: str = Field(description="column that holds the time of the event")
    unit: Literal["auto", "s", "ms", "us", "ns", "iso", "day", "place", "order"] = Field(
        default="auto",
        description="seconds, milliseconds, microseconds or nanoseconds since 1970, or ISO 8601 text. auto: value by value, text "
        "with dashes or slashes is ISO, numbers below 1e11 are s, below 1e14 ms, below 1e17 us, else ns. day: a number of days, "
        "which count from any first one. place: no time but the event's place in its user's history; order: likewise the place "
        "of its basket, which those bought together share",
    )
    format: str | None = Field(
        default=None, description="strptime pattern such as '%d/%m/%Y %H:%M' for text that is not ISO 8601"
    )
    clock: str | None = Field(
        default=None,
        description="column with the time of day, where `name` holds the day alone: 10:15, 10:15:30, or hhmm as 1015 or 5. It "
        "goes behind the day, in text by a blank, before unit or format read the two",
    )
    time_zone: str = Field(
        default="UTC",
        description="zone of times that carry no offset, for example Europe/London; also of the split's dates",
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError("unknown time zone; write it as in UTC or Europe/London") from None
        return zone

    @field_validator("format")
    @classmethod
    def _reads_dates(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            check_format(pattern)
        return pattern

    @property
    def rule(self) -> TimeRule:
        return TimeRule("s" if self.unit == "day" else self.unit, self.format, self.time_zone)

    @model_validator(mode="after")
    def _unit_or_format(self) -> TimestampColumn:
        if self.format is not None and self.unit != "auto":
            raise ValueError("unit and format exclude each other; leave one out")
        if self.clock is not None and self.unit not in ("auto", "iso", "day"):
            raise ValueError("clock goes with a day: with unit day, iso or auto, or with a format; leave it out")
        return self


class EventColumn(Section):
    """`event: type` is short for `event: {name: type}`."""

    name: str = Field(description="column that holds the kind of event")
    types: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_EVENT_TYPES,
        description="kinds to keep, in index order; null: all, sorted by name",
    )
    rename: dict[str, str] = Field(default={}, description="kind in the log -> kind in the data set, before types is applied")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("types")
    @classmethod
    def _distinct(cls, types: list[str] | None) -> list[str] | None:
        if types is not None and len(set(types)) < len(types):
            raise ValueError("a kind is listed twice")
        return types


class ColumnsSection(Section):
    user: str = Field(description="column of the user's id; ids are text and kept exactly")
    item: str = Field(description="column of the item's id; ids are text and kept exactly")
    timestamp: TimestampColumn = Field(description="the time of the event")
    event: EventColumn | None = Field(default=None, description="the kind of event (view, cart, buy), if the log has several")
    numeric: list[str] = Field(default=[], description="numbers to keep with each event, as float32")
    missing_numeric: float | None = Field(
        default=None, allow_inf_nan=False, description="stands in for an empty number; null: such rows are left out and counted"
    )

    @field_validator("numeric")
    @classmethod
    def _plain_names(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a column is listed twice")
        return names


LINE_COLUMNS = ColumnsSection(user="user", item="item", timestamp=TimestampColumn(name="place", unit="s"))


class GraphSection(Section):
    kind: Literal["auto", "basket", "next", "none"] = Field(
        default="auto",
        description="basket: items of one user and time, both ways; next: an event and those that follow, one way; auto: basket "
        "where half of the training events stand in a basket of several items, else next; prepare tells and stores which",
    )
    within: int = Field(default=3, ge=1, le=100, description="next: how many of the user's following events count")
    neighbours: int = Field(default=100, ge=1, description="how many an item keeps, the closest")
    max_basket: int = Field(
        default=500, ge=2, description="basket: no pairs are counted in baskets of more items; prepare tells how many there were"
    )


class StatisticsSection(Section):
    events: list[str] | None = Field(
        default=None, min_length=1, description="kinds of events that the daily counts and the graph count; null: all"
    )
    graph: GraphSection = Field(default=GraphSection(), description="which items go together, from the training part")


class OutputSection(Section):
    dir: str = Field(description="the data set's directory, from the current directory; --output DIR overrides it")
    events_per_shard: int = Field(default=2_000_000, ge=1, description="about how many events a shard file holds")


class EngineSection(Section):
    memory_limit: str = Field(
        default="1400MB",
        description="what DuckDB may hold in memory; beyond it, it spills beside the output. The process takes some 500 MB more: "
        "with the default it stays below 2 GiB",
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="null: one a core")

    @field_validator("memory_limit")
    @classmethod
    def _with_unit(cls, limit: str) -> str:
        if not re.fullmatch(r"\d+(\.\d+)?\s?([KMGT]i?B)", limit):
            raise ValueError("write a number with a unit, for example 800MB or 2GB")
        return limit


def check_event_kinds(asked: dict[str, list[str]], types: list[str]) -> None:
    """Raises ValueError when a key of {config path: kinds} names a kind that the data set does not have."""
    for where, kinds in asked.items():
        unknown = [name for name in kinds if name not in types]
        if unknown:
            close = difflib.get_close_matches(unknown[0], types, 1, 0.6)
            hint = f"did you mean {close[0]}? The" if close else "the"
            raise ValueError(f"{where}: no event is of kind {unknown[0]!r}; {hint} kinds are {', '.join(types)}")


def moment(text: str, time_zone: str) -> int:
    """Unix seconds of an ISO 8601 text; text without an offset is read in `time_zone`. Raises ValueError.

    A local time that a change of the clock skips or repeats is the later of the two that it may be, as in the log.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 date or time such as 2011-09-01 or 2011-09-01T08:00+01:00") from None
    if when.tzinfo is None:
        when = max((when.replace(tzinfo=ZoneInfo(time_zone), fold=fold) for fold in (0, 1)), key=datetime.timestamp)
    return int(when.timestamp() // 1)
