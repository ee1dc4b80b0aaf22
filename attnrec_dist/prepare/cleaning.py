"""What a row must be: each value read from text, and the first reason, if any, that rules the row out.

Numbers and times are matched by a regular expression before they are cast, because engines differ in what a cast takes
(" 12", "12.5" as an integer, overflow). Times (times/timestamps.py) are kept to the microsecond until the rows are in order.
"""

from __future__ import annotations

from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.config.choice import ID_LISTS, Bounds
from attnrec_dist.prepare.config.input_sections import LINE_FORMATS
from attnrec_dist.prepare.config.sections import EventColumn, TimestampColumn, moment
from attnrec_dist.prepare.reading.columns import DAMAGED
from attnrec_dist.prepare.reading.joined import UNMATCHED
from attnrec_dist.prepare.sql import NUMBER, text, with_point
from attnrec_dist.times.timestamps import form, microseconds

# Key of filters: reason.
LISTED = {key: f"{'not ' if key.startswith('keep') else ''}in filters.{key}" for key in ID_LISTS}
# In the order in which they are looked for; a row is counted under the first that applies.
REASONS = (
    "damaged row",
    "no match in input.join",
    "missing user",
    "missing item",
    "more than two words",
    "unreadable timestamp",
    "bad number",
    "unknown event",
    "out of bounds",
    "before input.start",
    "after input.end",
    *LISTED.values(),
    "duplicate",
    "above max_user_events",
    "below min_item_events or min_user_events",
)
UNUSABLE = REASONS[:7]  # damage, as against the rows that the config filters out on purpose

DAYS = "[-+]?[0-9]{1,7}"
CLOCK_OF_DAY = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?"
LARGEST_FLOAT32 = "3.4028234e38"


def wanted_columns(config: PrepareConfig) -> dict[str, str]:
    """{name in the statements: column of the log}."""
    columns = config.columns
    wanted = {"user_id": columns.user, "item_id": columns.item, "stamp": columns.timestamp.name}
    if columns.event is not None:
        wanted["event"] = columns.event.name
    for place, name in enumerate(number_columns(config)):
        wanted[f"n{place}"] = name
    if config.input.format in LINE_FORMATS:
        wanted |= {"words": "words", "number": "number"}
    if columns.timestamp.clock is not None:
        wanted["clock"] = columns.timestamp.clock
    if config.input.join is not None:
        wanted["unmatched"] = UNMATCHED
    return wanted | {"damaged": DAMAGED}


def optional_columns(config: PrepareConfig) -> list[str]:
    """Those that not each file of a log need have: where one lacks them, they are missing in its rows."""
    event = config.columns.event
    return [*number_columns(config), *([event.name] if event is not None else [])]


def wanted_keys(config: PrepareConfig) -> dict[str, str]:
    """{config key: column of the log}, for the message when a column is missing."""
    columns = config.columns
    keys = {"columns.user": columns.user, "columns.item": columns.item, "columns.timestamp": columns.timestamp.name}
    if columns.timestamp.clock is not None:
        keys["columns.timestamp.clock"] = columns.timestamp.clock
    if columns.event is not None:
        keys["columns.event"] = columns.event.name
    keys |= {f"columns.numeric[{place}]": name for place, name in enumerate(columns.numeric)}
    return keys | {f"filters.where.{name}": name for name in config.filters.where}


def number_columns(config: PrepareConfig) -> list[str]:
    """The numeric columns to keep, then those that are only bounded."""
    return list(dict.fromkeys([*config.columns.numeric, *config.filters.where]))


def clean(config: PrepareConfig, raw: str = "raw") -> str:
    """SELECT user_id, item_id (text), us (microseconds), event (text), n0.. (float32), form (place in FORMS: how the time is
    written) and reason (NULL: the row is good)."""
    kept = ["user_id", "item_id", "us", "form", "event", *(f"n{place}" for place in range(len(config.columns.numeric)))]
    read = f"SELECT {', '.join(parsed(config))} FROM {dated(config, raw)}"
    return f"SELECT {', '.join(kept)}, {reason(config)} AS reason FROM ({read}) AS parsed"


def forms() -> str:
    """How the times of all rows are written, counted: (place in FORMS, rows)."""
    return "SELECT form, count(*) FROM clean WHERE us IS NOT NULL AND form IS NOT NULL GROUP BY form"


def offenders(config: PrepareConfig, why: str, raw: str) -> str:
    """SELECT of the raw rows, as they are, that a reason rules out."""
    both = ", ".join(["raw_row", *parsed(config)])
    return (
        f"SELECT raw_row FROM (SELECT {both} FROM {dated(config, raw)} AS raw_row) AS parsed WHERE {reason(config)} = {text(why)}"
    )


def dated(config: PrepareConfig, raw: str) -> str:
    """The raw rows with the whole time in `stamp`: a clock from another column, a decimal comma as a point."""
    whole = stamped(config.columns.timestamp)
    if config.input.decimal == ",":
        whole = f"CASE WHEN regexp_full_match({whole}, '[0-9]+,[0-9]+') THEN replace({whole}, ',', '.') ELSE {whole} END"
    return raw if whole == "stamp" else f"(SELECT * REPLACE ({whole} AS stamp) FROM {raw} AS as_written)"


def stamped(column: TimestampColumn) -> str:
    """SQL: a day and a time of day as one text; of a day's number, as seconds from day 0. NULL: one of them is none."""
    day = f"CASE WHEN regexp_full_match(stamp, '{DAYS}') THEN TRY_CAST(stamp AS BIGINT) * 86400 END"
    if column.clock is None:
        return f"CAST({day} AS VARCHAR)" if column.unit == "day" else "stamp"
    digits = "lpad(clock, CASE WHEN length(clock) > 4 THEN 6 ELSE 4 END, '0')"
    coloned = f"rtrim(regexp_replace({digits}, '(..)(..)(..)?', '\\1:\\2:\\3'), ':')"
    padded = "CASE WHEN substr(clock, 2, 1) = ':' THEN '0' || clock ELSE clock END"
    clock = f"CASE WHEN regexp_full_match(clock, '[0-9]{{1,6}}') THEN {coloned} ELSE {padded} END"
    if column.unit != "day":
        return f"regexp_replace(stamp, '[T ]00:00(:00([.]0+)?)?$', '') || ' ' || {clock}"
    second = f"date_part('epoch', TRY_CAST({clock} AS TIME))"
    second = f"CASE WHEN regexp_full_match({clock}, '{CLOCK_OF_DAY}') THEN CAST({second} AS BIGINT) END"
    return f"CAST({day} + {second} AS VARCHAR)"


def parsed(config: PrepareConfig) -> list[str]:
    rule = config.columns.timestamp.rule
    values = [
        "user_id",
        "item_id",
        f"{microseconds(rule)} AS us",
        f"{form(rule)} AS form",
        f"{event(config.columns.event)} AS event",
    ]
    values += ["damaged", *(["unmatched"] if config.input.join is not None else [])]
    values += ["words"] if config.input.format in LINE_FORMATS else []
    return values + [f"{number(f'n{place}', config)} AS n{place}" for place in range(len(number_columns(config)))]


def reason(config: PrepareConfig) -> str:
    """SQL: the first of REASONS that rules a parsed row out, else NULL."""
    names = number_columns(config)
    tests = [("damaged", "damaged row")]
    tests += [("unmatched", "no match in input.join")] if config.input.join is not None else []
    tests += [("user_id IS NULL", "missing user"), ("item_id IS NULL", "missing item")]
    tests += [("words <> '2'", "more than two words")] if config.input.format == "pairs" else []
    tests += [("us IS NULL", "unreadable timestamp")]
    tests += [(f"n{place} IS NULL", "bad number") for place in range(len(names))]
    if config.columns.event is not None:
        types = config.columns.event.types
        known = f" OR event NOT IN ({', '.join(map(text, types))})" if types else ""
        tests.append((f"event IS NULL{known}", "unknown event"))
    tests += [(beyond(f"n{names.index(name)}", bounds), "out of bounds") for name, bounds in config.filters.where.items()]
    zone = config.columns.timestamp.time_zone
    if config.input.start is not None:
        tests.append((f"us < {moment(config.input.start, zone) * 1_000_000}", "before input.start"))
    if config.input.end is not None:
        tests.append((f"us >= {moment(config.input.end, zone) * 1_000_000}", "after input.end"))
    for key in [key for key in ID_LISTS if getattr(config.filters, key) is not None]:
        verb, _, whose = key.partition("_")
        column = "user_id" if whose == "users" else "item_id"
        tests.append((f"{column} {'NOT ' if verb == 'keep' else ''}IN (SELECT id FROM {key})", LISTED[key]))
    return "CASE " + " ".join(f"WHEN {test} THEN {text(name)}" for test, name in tests) + " END"


def beyond(column: str, bounds: Bounds) -> str:
    sides = [f"{column} < CAST({bounds.min!r} AS FLOAT)"] if bounds.min is not None else []
    sides += [f"{column} > CAST({bounds.max!r} AS FLOAT)"] if bounds.max is not None else []
    return " OR ".join(sides)


def event(column: EventColumn | None) -> str:
    if column is None:
        return "''"
    if not column.rename:
        return "event"
    return "CASE event " + " ".join(f"WHEN {text(a)} THEN {text(b)}" for a, b in column.rename.items()) + " ELSE event END"


def number(column: str, config: PrepareConfig) -> str:
    """SQL: float32 of a text column, NULL where it is no finite number. -0.0 becomes 0.0, so that equal numbers look equal."""
    missing, written = config.columns.missing_numeric, with_point(column) if config.input.decimal == "," else column
    value = f"TRY_CAST({written} AS DOUBLE)"
    good = f"regexp_full_match({written}, '{NUMBER}') AND abs({value}) <= {LARGEST_FLOAT32}"
    empty = "" if missing is None else f"WHEN {column} IS NULL THEN CAST({missing!r} AS FLOAT) "
    return f"CASE {empty}WHEN {good} THEN CAST({value} AS FLOAT) + CAST(0 AS FLOAT) END"
