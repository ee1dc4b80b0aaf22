"""Times from anywhere but the log, read by the rule of times/timestamps.py; and what to type where a time is not read."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attnrec_dist.errors import InputError
from attnrec_dist.times.timestamps import FORMS, TimeRule, doubt, form, microseconds

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

MOST_LOOKED_AT = 1000  # of values that are no times, for advice
EXAMPLE = "2026-03-01 10:00:00+01:00"


def read_times(values: Iterable[Any] | pa.ChunkedArray, rule: TimeRule, where: str) -> np.ndarray:
    """Microseconds since 1970 of numbers, texts, datetimes, numpy's or pandas' times, or of an Arrow column, int64 [n].

    Raises InputError, which begins with `where`, for values that are no times by the rule.
    """
    import duckdb
    import numpy as np
    import pyarrow as pa

    if not isinstance(values, pa.ChunkedArray):
        values = pa.chunked_array([pa.array([_written(each) for each in values], pa.string())])
    query = f"SELECT stamp, {microseconds(rule)} AS us, {form(rule)} AS form FROM ({_STAMPS})"
    try:
        found = _asked(query, values)
    except duckdb.Error as error:
        raise InputError(f"{where}: values of type {values.type} are no times ({str(error).splitlines()[0]})") from None
    us = np.ma.MaskedArray(found["us"])
    bad = np.flatnonzero(np.ma.getmaskarray(us))
    if len(bad):
        wrong = [None if text is np.ma.masked else text for text in np.ma.MaskedArray(found["stamp"])[bad[:MOST_LOOKED_AT]]]
        first = ", ".join(
            f"no. {place + 1} is {'missing' if text is None else repr(text)}" for place, text in zip(bad[:3], wrong)
        )
        raise InputError(
            f"{where}: {len(bad):,} of {len(us):,} {'is no time' if len(bad) == 1 else 'are no times'}: {first}; "
            f"{advice([text for text in wrong if text is not None], rule)}"
        )
    codes, counts = np.unique(np.ma.MaskedArray(found["form"]).compressed(), return_counts=True)
    doubtful = doubt({FORMS[code]: int(count) for code, count in zip(codes, counts)})
    if doubtful:
        raise InputError(f"{where}: found {doubtful[0]}, no unix times; write unix seconds or ISO 8601 such as {EXAMPLE}")
    return np.asarray(us.data, np.int64)


def check_format(pattern: str) -> None:
    """Raises ValueError where a strptime pattern is not known, or what it reads is no date."""
    import duckdb

    directives = set(re.findall("%-?(.)", pattern))
    if directives & {"s", "Q"}:
        raise ValueError(f"{pattern!r}: unix times need no format; leave it out, or set unit: s, ms, us or ns")
    try:
        _asked(f"SELECT {_read_by(pattern)} FROM ({_STAMPS})", [""])
    except duckdb.Error as error:
        unknown = re.search("format specifier.*?(%.?):", str(error))
        raise ValueError(
            f"{pattern!r}: {f'{unknown[1]} is unknown' if unknown else str(error).splitlines()[0]}; write it as strptime does, "
            "for example '%d/%m/%Y %H:%M'"
        ) from None
    if not directives & set("YyGcx"):
        raise ValueError(f"{pattern!r} reads no date: a year (%Y) is needed")


def advice(values: list[str], rule: TimeRule, section: str = "") -> str:
    """What to type for texts that are no times by a rule: the format that reads them, where there is one.

    `section` of the YAML file holds the rule's keys; without one, the values are to be written anew.
    """
    known = _known_case(values, rule, section)
    if known:
        return known
    found = [_quoted(pattern) for pattern in formats_that_read(values)]
    if not section:
        looks = f" (they look like {' or '.join(found)})" if found else ""
        return f"write unix seconds or ISO 8601 such as {EXAMPLE}{looks}"
    if not found:
        return (
            f"read are unix times and ISO 8601 such as {EXAMPLE} ({section}.unit), others by {section}.format: '%d/%m/%Y %H:%M'"
        )
    which = f"{', '.join(found[:-1])} or {found[-1]}, whichever is meant: each reads them" if len(found) > 1 else found[0]
    return f"set {section}.format: {which}"


def _known_case(values: list[str], rule: TimeRule, section: str) -> str | None:
    """What to do where no format would help."""
    import numpy as np

    if rule.unit == "place":
        return "the log has no times but the places of events in their history: write whole numbers 0, 1, 2, ..."
    if section and (rule.unit, rule.format) != ("auto", None):
        read = _asked(f"SELECT {microseconds(TimeRule())} AS us, {form(TimeRule())} AS form FROM ({_STAMPS})", values)
        if values and not np.ma.is_masked(read["us"]):
            key = "unit" if rule.format is None else "format"
            return f"they are {FORMS[read['form'][0]]}, which are read without {section}.{key}: leave it out"
    cases = {
        r"": "fill it in, or leave it out",
        r"\s*\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?(\s*[AaPp][Mm])?\s*": "they are times of a day: put date and time into one column",
        r"\s+[-+.\d]+\s*|[-+.\d]+\s+": "they have blanks around them: remove these",
    }
    return next((told for case, told in cases.items() if all(re.fullmatch(case, each) for each in values)), None)


def formats_that_read(values: list[str]) -> list[str]:
    """The strptime patterns, of those that the first values look like, that read all of these texts.

    >>> formats_that_read(["01/03/2026", "02/03/2026"])
    ['%d/%m/%Y', '%m/%d/%Y']
    >>> formats_that_read(["01/03/2026", "31/03/2026"])
    ['%d/%m/%Y']
    """
    patterns = list(dict.fromkeys(pattern for value in values[:5] for pattern in formats_like(value)))
    if not patterns:
        return []
    counts = _asked(
        f"SELECT {', '.join(f'count({_read_by(each)}) AS c{place}' for place, each in enumerate(patterns))} FROM ({_STAMPS})",
        values,
    )
    return [pattern for pattern, count in zip(patterns, counts.values()) if count[0] == len(values)]


def formats_like(value: str) -> list[str]:
    """Strptime patterns that a text looks like; an ambiguous date has several.

    >>> formats_like("Sun Mar 01 10:00:00 +0000 2026"), formats_like("3/1/2026 9:05 PM")
    (['%a %b %d %H:%M:%S %z %Y'], ['%d/%m/%Y %I:%M %p', '%m/%d/%Y %I:%M %p'])
    """
    value = re.sub(r"\s+", " ", value.strip()).replace("%", "%%")
    hour = "%I" if re.search(r"\d\s*[ap]m\b", value, re.IGNORECASE) else "%H"
    months, days = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", "mon|tue|wed|thu|fri|sat|sun"
    value = re.sub(rf"\b({months})[a-z]{{2,}}(?![a-z])", "%B", value, flags=re.IGNORECASE)
    for words, directive in ((rf"({months})", "%b"), (rf"({days})[a-z]{{2,}}", "%A"), (rf"({days})", "%a"), ("[ap]m", "%p")):
        value = re.sub(rf"(?<![a-z%]){words}(?![a-z])", directive, value, flags=re.IGNORECASE)
    value = re.sub(r"(?<!\d)\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?", functools.partial(_clock, hour), value)
    value = re.sub(r"(?<=\d[-T ])\d{2}\.\d{2}\.\d{2}([.,]\d+)?$", functools.partial(_clock, hour), value)
    value = re.sub(
        r"(?<=[SMfn]) ?[-+]\d{2}(:?\d{2})?$|(?<= )[-+]\d{4}(?= )", lambda found: " %z" if found[0][0] == " " else "%z", value
    )
    value = re.sub(r"(?<=[SMfnp] )(?!UTC|GMT)[A-Z]{3,5}\b", "%Z", value)
    return _dated(re.sub(r"\d{14}|\d{12}|\d{8}|\d{6}", _joined, value))


def _clock(hour: str, found: re.Match[str]) -> str:
    """The directives of a time of day: `21:02`, `21:02:24.5`, `21.02.24`."""
    directives = iter((hour, "%M", "%S", "%f"))
    return re.sub(r"\d+", lambda _: next(directives), found[0])


def _joined(found: re.Match[str]) -> str:
    """Digits without anything between them."""
    return {14: "%Y%m%d%H%M%S", 12: "%Y%m%d%H%M", 8: "%Y%m%d", 6: "%H%M%S" if found.start() else "%y%m%d"}[len(found[0])]


def _dated(value: str) -> list[str]:
    """The digits that are left in a half-made pattern, read as day, month and year in every order that is in use."""
    places = list(re.finditer(r"(?<![%\d])\d+", value))
    if any(len(found[0]) not in (1, 2, 4) for found in places) or re.search(r"W\d", value):  # weeks have no directive
        return []
    has_month = "%b" in value or "%B" in value
    lengths = [len(found[0]) == 4 for found in places]
    orders = {
        (): [""],
        (False, False, True): ["dmY", "mdY"],
        (True, False, False): ["Ymd"],
        (True, False, False, False): ["YmdH"],
        (False, False, False): ["dmy", "mdy", "ymd"],
    }
    with_month = {(False, True): ["dY"], (True, False): ["Yd"], (False, False): ["dy"], (True,): ["Y"]}
    found = []
    for order in (with_month if has_month else orders).get(tuple(lengths), []):
        pattern, end = "", 0
        for place, letter in zip(places, order):
            pattern, end = f"{pattern}{value[end : place.start()]}%{letter}", place.end()
        found.append(pattern + value[end:])
    return [pattern for pattern in found if "%" in pattern]


_STAMPS = "SELECT nullif(CAST(stamp AS VARCHAR), '') AS stamp FROM stamps"


def _written(value: Any) -> str | None:
    """A value as the text that the rule reads; None where it is missing, which each library writes its own way."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    written = str(value)
    return None if written in ("None", "nan", "NaT", "<NA>") else written


def _read_by(pattern: str) -> str:
    return microseconds(TimeRule(format=pattern))


def _quoted(pattern: str) -> str:
    return "'" + pattern.replace("'", "''") + "'"  # as YAML wants it


def _asked(query: str, stamps: list[str] | pa.Array | pa.ChunkedArray) -> dict[str, np.ndarray]:
    """The answer to a query over the table `stamps`, whose one column is `stamp`; masked where it is NULL."""
    import pyarrow as pa

    column = pa.array(stamps, pa.string()) if isinstance(stamps, list) else stamps
    session = _database().cursor()  # of this thread
    session.execute("SET TimeZone = 'UTC'")
    session.register("stamps", pa.table({"stamp": column}))
    found: dict[str, np.ndarray] = session.execute(query).fetchnumpy()
    return found


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(":memory:", config={"threads": 1})
