"""What counts as a time, for every time that enters: the log's, a histories file's, those given from Python.

The rule is an SQL expression over a text column `stamp`. `prepare` puts it into its statements; read_times.py applies the very
same one to other values, so that a history is read as the log was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

NUMBER = r"[-+]?([0-9]{1,20}(\.[0-9]*)?|\.[0-9]+)([eE]\+?[0-9]{1,2})?"
DATE = r"[0-9]{4}(-[0-9]{2}-[0-9]{2}|/[0-9]{2}/[0-9]{2})"
CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
OFFSET = r"(Z|UTC|GMT|[-+][0-9]{2}(:?[0-9]{2})?)"
ZONE_NAME = r"( [A-Z]{2,5}|\[[A-Za-z0-9_/+-]+\])?"  # after an offset, which wins: `+0530 IST`, `+01:00[Europe/Paris]`
ISO = rf"({DATE}([T ]{CLOCK})?)( ?{OFFSET}{ZONE_NAME})?"
AFTER_CLOCK = "substr(stamp, 17)"  # what follows `2026-03-01 10:00`: seconds, fraction, offset

FURTHEST = 100_000_000_000  # seconds either side of 1970: beyond it, the unit is wrong
UNITS = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}  # a second, in each
DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}  # seconds
DECIMAL = "TRY_CAST(stamp AS DECIMAL(26, 6))"

# How a value that `auto` reads is written, to be counted. The doubtful ones may be no unix time at all.
SMALL, EXCEL, DAY_NUMBER, CLOCK_NUMBER = (
    "numbers below 100,000",
    "Excel dates",
    "dates such as 20260301",
    "times such as 20260301101500",
)
FORMS = (
    *(f"unix {unit}" for unit in UNITS),
    "dates",
    "local times",
    "times with an offset",
    SMALL,
    EXCEL,
    DAY_NUMBER,
    CLOCK_NUMBER,
)
_DAY = "(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"
_CLOCK_NUMBER = rf"{_DAY}([01][0-9]|2[0-3])[0-5][0-9]([0-5][0-9])?"
_EXCEL = (32_874, 73_416)  # 1990 to 2100, in days since 1899-12-30
PART_OF_A_DATE = "day|date|week|month|year|hour|hhmm|trans_time"
EARLY = 30_000_000  # unix seconds that look like a date are all below
MOST = 0.9  # a column is what this share of it is


@dataclass(frozen=True)
class TimeRule:
    """How a column's times are written: the keys of columns.timestamp."""

    unit: str = "auto"  # s, ms, us, ns, iso, day, place, order, auto
    format: str | None = None  # strptime pattern
    time_zone: str = "UTC"  # of times that carry none
    else_auto: bool = False  # what unit or format do not read is read as auto

    @classmethod
    def of_histories(cls, config: dict[str, Any], places: bool, start_time: int) -> TimeRule:
        """The rule for histories of a data set, from its manifest's configuration and the unix second of its first event.

        Its format and time zone hold. Of numbers the size tells the unit, whatever that of the log was: unix seconds may always
        be given. Where the log had places, so have histories; where it numbered days, small numbers are days; where it begins in
        early 1970, they are seconds.
        """
        column = (config.get("columns") or {}).get("timestamp") or {}
        if places:
            return cls(unit="place")
        unit = "day" if column.get("unit") == "day" else "s" if start_time < EARLY else "auto"
        return cls(unit, column.get("format"), column.get("time_zone") or "UTC", else_auto=True)


def microseconds(rule: TimeRule) -> str:
    """SQL: microseconds since 1970 of the text column `stamp`, NULL where it is no time."""
    if rule.else_auto:
        auto = TimeRule(time_zone=rule.time_zone)
        return f"coalesce({microseconds(replace(rule, else_auto=False))}, {microseconds(auto)})"
    if rule.format is not None:
        return _formatted(rule.format, rule.time_zone)
    if rule.unit == "iso":
        return _iso(rule.time_zone)
    units = {"auto": list(UNITS), "place": ["s"], "order": ["s"]}.get(rule.unit, [rule.unit])
    choice = " ".join(f"WHEN abs({DECIMAL}) < {_furthest(unit)} THEN {_counted(unit)}" for unit in units)
    iso = f" ELSE {_iso(rule.time_zone)}" if rule.unit == "auto" else ""
    return f"CASE WHEN regexp_full_match(stamp, '{NUMBER}') THEN CASE {choice} END{iso} END"


def form(rule: TimeRule) -> str:
    """SQL: place in FORMS of a `stamp` that is a time; NULL unless it is read as `auto`, which alone leaves a choice."""
    first = replace(rule, else_auto=False)
    if rule.else_auto and first != TimeRule(time_zone=rule.time_zone):
        return f"CASE WHEN {microseconds(first)} IS NULL THEN {form(TimeRule())} END"
    if rule.unit != "auto" or rule.format is not None:
        return "CAST(NULL AS TINYINT)"
    code = {name: f"CAST({place} AS TINYINT)" for place, name in enumerate(FORMS)}
    value = "abs(TRY_CAST(stamp AS DOUBLE))"
    text = (
        f"WHEN length(stamp) <= 10 THEN {code['dates']} "
        f"WHEN regexp_matches({AFTER_CLOCK}, '[-+ZUG]') THEN {code['times with an offset']} ELSE {code['local times']}"
    )
    doubtful = {
        EXCEL: f"{value} BETWEEN {_EXCEL[0]} AND {_EXCEL[1]}",
        SMALL: f"{value} < 100000",
        DAY_NUMBER: f"length(stamp) = 8 AND regexp_full_match(stamp, '{_DAY}')",
        CLOCK_NUMBER: f"length(stamp) IN (12, 14) AND regexp_full_match(stamp, '{_CLOCK_NUMBER}')",
    }
    numbers = " ".join(f"WHEN {test} THEN {code[name]}" for name, test in doubtful.items())
    sizes = " ".join(f"WHEN {value} < {FURTHEST * size} THEN {code[f'unix {unit}']}" for unit, size in UNITS.items())
    return f"CASE WHEN substr(stamp, 5, 1) IN ('-', '/') THEN CASE {text} END ELSE CASE {numbers} {sizes} END END"


def doubt(forms: dict[str, int], column: str = "") -> tuple[str, str] | None:
    """What the numbers of a column are, where most are no unix times by their look, and what to do.

    `forms` counts them by name; small numbers are doubted where the column's name speaks of a part of a date.

    >>> doubt({"numbers below 100,000": 711}, "DAY")[0]
    'numbers of days or the like'
    """
    to_do = {
        DAY_NUMBER: "set columns.timestamp.format: '%Y%m%d'",
        CLOCK_NUMBER: "set columns.timestamp.format: '%Y%m%d%H%M%S', or '%Y%m%d%H%M' where they end in minutes",
        EXCEL: "write them as text such as 2026-03-01 10:00:00 (they count days since 1899-12-30)",
    }
    total = sum(forms.values())
    for name, advice in to_do.items():
        if total and forms.get(name, 0) >= MOST * total:
            return name, advice
    small = forms.get(SMALL, 0) + forms.get(EXCEL, 0)
    if total and small >= MOST * total and re.search(PART_OF_A_DATE, column, re.IGNORECASE):
        whole = "if they number days, set columns.timestamp.unit: day, and clock to the column of the time of day"
        return "numbers of days or the like", whole
    return None


def mixture(forms: dict[str, int]) -> str | None:
    """The forms that a column mixes, the most frequent first; None where it has one.

    >>> mixture({"unix s": 990, "unix ms": 10})
    '990 unix s, 10 unix ms'
    """
    merged = {name: count for name, count in forms.items() if name != EXCEL}
    if EXCEL in forms:
        merged[SMALL] = merged.get(SMALL, 0) + forms[EXCEL]
    shown = sorted(merged.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count:,} {name}" for name, count in shown) if len(shown) > 1 else None


def _furthest(unit: str) -> int:
    """The number that is too large for a time in this unit."""
    return FURTHEST // DURATIONS["d"] if unit == "day" else FURTHEST * UNITS[unit]


def _counted(unit: str) -> str:
    """Exact, so in decimals; rounded down. CAST because a plain 0.001 is a float for some engines."""
    if unit == "day":
        return f"TRY_CAST(floor({DECIMAL} * {DURATIONS['d'] * UNITS['us']}) AS BIGINT)"
    factor = "CAST(0.001 AS DECIMAL(4, 3))" if unit == "ns" else str(UNITS["us"] // UNITS[unit])
    return f"TRY_CAST(floor({DECIMAL} * {factor}) AS BIGINT)"


def _iso(time_zone: str) -> str:
    """SQL for ISO 8601: the offset is taken off by hand, so that the session's own zone never matters."""
    offset = f"regexp_extract({AFTER_CLOCK}, '[-+ZUG].*')"
    local = f"TRY_CAST(replace(substr(stamp, 1, length(stamp) - length({offset})), ',', '.') AS TIMESTAMP)"
    plain = "TRY_CAST(replace(stamp, ',', '.') AS TIMESTAMP)"
    minutes = f"coalesce(TRY_CAST(substr(replace({offset}, ':', ''), 4, 2) AS BIGINT), 0)"
    east = f"TRY_CAST(substr({offset}, 2, 2) AS BIGINT) * 60 + {minutes}"
    cases = (
        f"WHEN NOT regexp_matches({AFTER_CLOCK}, '[-+ZUG]') THEN {_zoned(plain, time_zone)} "
        f"WHEN regexp_matches({AFTER_CLOCK}, '[-+]') THEN "
        f"epoch_us({local}) - CASE WHEN {offset} LIKE '-%' THEN -60000000 ELSE 60000000 END * ({east}) "
        f"ELSE epoch_us({local})"
    )
    return f"CASE WHEN regexp_full_match(stamp, '{ISO}') THEN CASE {cases} END END"


def _formatted(pattern: str, time_zone: str) -> str:
    """SQL for a strptime pattern. An offset in the text wins over the time zone.

    As in Python, %z takes a Z too, and the fraction %f may have any number of digits, or be absent with its point.
    """
    patterns = [pattern]
    if "%f" in pattern:
        patterns += [pattern.replace("%f", "%n"), re.sub("[.,]?%f", "", pattern)]
    patterns += [each.replace("%z", "Z") for each in patterns if "%z" in each]
    found = [_read_by(each, time_zone) for each in patterns]
    return f"coalesce({', '.join(found)})" if len(found) > 1 else found[0]


def _read_by(pattern: str, time_zone: str) -> str:
    """CAST because %n, nanoseconds, gives types of their own."""
    value = f"try_strptime(stamp, {_text(pattern)})"
    if _directives(pattern) & {"z", "Z"}:
        return f"epoch_us(CAST({value} AS TIMESTAMPTZ))"
    return _zoned(f"CAST({value} AS TIMESTAMP)", "UTC" if has_offset(pattern) else time_zone)


def _directives(pattern: str) -> set[str]:
    return set(re.findall("%-?(.)", pattern))


def has_offset(pattern: str) -> bool:
    """Whether what a strptime pattern reads tells its own offset: by %z or %Z, or as the letters Z, UTC or GMT.

    >>> has_offset("%d/%m/%Y %H:%M %z"), has_offset("%Y-%m-%dT%H:%M:%SZ"), has_offset("%d/%m/%Y %H:%M")
    (True, True, False)
    """
    letters = re.sub("%-?.", "0", pattern)
    return bool(_directives(pattern) & {"z", "Z"}) or re.search("(?<![A-Za-z])(Z|UTC|GMT)(?![A-Za-z])", letters) is not None


def _zoned(local: str, time_zone: str) -> str:
    """A local time that a change of the clock skips or repeats is read as the later of the two moments that it may be."""
    return f"epoch_us({local})" if time_zone == "UTC" else f"epoch_us(timezone({_text(time_zone)}, {local}))"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def seconds(duration: str) -> int:
    """
    >>> seconds("7d"), seconds("12h"), seconds("90s")
    (604800, 43200, 90)
    """
    return int(duration[:-1]) * DURATIONS[duration[-1]]
