"""What a row must be: each value read from text, and the first reason, if any, that rules the row out.

Numbers and times are matched by a regular expression before they are cast, because engines differ in what a cast takes
(" 12", "12.5" as an integer, overflow). Times are kept to the microsecond until the rows are in order.
"""

from __future__ import annotations

from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.sections import LINE_FORMATS, Bounds, ColumnsSection, EventColumn, TimestampColumn, moment
from attnrec_dist.prepare.sql import NUMBER, text

# In the order in which they are looked for; a row is counted under the first that applies.
REASONS = (
    "missing user",
    "missing item",
    "more than two words",
    "unreadable timestamp",
    "bad number",
    "unknown event",
    "out of bounds",
    "after input.end",
    "duplicate",
    "below min_item_events or min_user_events",
)
UNUSABLE = REASONS[:5]  # damage, as against the rows that the config filters out on purpose

DECIMAL = r"[-+]?[0-9]{1,17}(\.[0-9]*)?"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
OFFSET = r"(Z|[-+][0-9]{2}(:?[0-9]{2})?)"
ISO = rf"{DATE}([T ]{CLOCK}( ?{OFFSET})?)?"

UNITS = {"s": 1_000_000, "place": 1_000_000, "ms": 1000, "us": 1}  # microseconds
FURTHEST = 100_000_000_000  # seconds either side of 1970: beyond it, the unit is wrong
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
    return wanted


def wanted_keys(config: PrepareConfig) -> dict[str, str]:
    """{config key: column of the log}, for the message when a column is missing."""
    columns = config.columns
    keys = {"columns.user": columns.user, "columns.item": columns.item, "columns.timestamp": columns.timestamp.name}
    if columns.event is not None:
        keys["columns.event"] = columns.event.name
    keys |= {f"columns.numeric[{place}]": name for place, name in enumerate(columns.numeric)}
    return keys | {f"filters.where.{name}": name for name in config.filters.where}


def number_columns(config: PrepareConfig) -> list[str]:
    """The numeric columns to keep, then those that are only bounded."""
    return list(dict.fromkeys([*config.columns.numeric, *config.filters.where]))


def clean(config: PrepareConfig, raw: str = "raw") -> str:
    """SELECT user_id, item_id (text), us (microseconds), event (text), n0.. (float32) and reason (NULL: the row is good)."""
    kept = ["user_id", "item_id", "us", "event", *(f"n{place}" for place in range(len(config.columns.numeric)))]
    return f"SELECT {', '.join(kept)}, {reason(config)} AS reason FROM (SELECT {', '.join(parsed(config))} FROM {raw}) AS parsed"


def offenders(config: PrepareConfig, why: str, raw: str) -> str:
    """SELECT of the raw rows, as they are, that a reason rules out."""
    both = ", ".join(["raw_row", *parsed(config)])
    return f"SELECT raw_row FROM (SELECT {both} FROM {raw} AS raw_row) AS parsed WHERE {reason(config)} = {text(why)}"


def parsed(config: PrepareConfig) -> list[str]:
    values = ["user_id", "item_id", f"{microseconds(config.columns.timestamp)} AS us", f"{event(config.columns.event)} AS event"]
    values += ["words"] if config.input.format in LINE_FORMATS else []
    return values + [f"{number(f'n{place}', config.columns)} AS n{place}" for place in range(len(number_columns(config)))]


def reason(config: PrepareConfig) -> str:
    """SQL: the first of REASONS that rules a parsed row out, else NULL."""
    names = number_columns(config)
    tests = [("user_id IS NULL", "missing user"), ("item_id IS NULL", "missing item")]
    tests += [("words <> '2'", "more than two words")] if config.input.format == "pairs" else []
    tests += [("us IS NULL", "unreadable timestamp")]
    tests += [(f"n{place} IS NULL", "bad number") for place in range(len(names))]
    if config.columns.event is not None:
        types = config.columns.event.types
        known = f" OR event NOT IN ({', '.join(map(text, types))})" if types else ""
        tests.append((f"event IS NULL{known}", "unknown event"))
    tests += [(beyond(f"n{names.index(name)}", bounds), "out of bounds") for name, bounds in config.filters.where.items()]
    if config.input.end is not None:
        end = moment(config.input.end, config.columns.timestamp.time_zone)
        tests.append((f"us >= {end * 1_000_000}", "after input.end"))
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


def number(column: str, columns: ColumnsSection) -> str:
    """SQL: float32 of a text column, NULL where it is no finite number. -0.0 becomes 0.0, so that equal numbers look equal."""
    value = f"TRY_CAST({column} AS DOUBLE)"
    good = f"regexp_full_match({column}, '{NUMBER}') AND abs({value}) <= {LARGEST_FLOAT32}"
    empty = "" if columns.missing_numeric is None else f"WHEN {column} IS NULL THEN CAST({columns.missing_numeric!r} AS FLOAT) "
    return f"CASE {empty}WHEN {good} THEN CAST({value} AS FLOAT) + CAST(0 AS FLOAT) END"


def microseconds(column: TimestampColumn) -> str:
    """SQL: microseconds since 1970 of the text column `stamp`, NULL where it is no time."""
    if column.format is not None:
        return _zoned(f"try_strptime(stamp, {text(column.format)})", column.time_zone)
    if column.unit == "iso":
        return _iso(column.time_zone)
    value = "TRY_CAST(stamp AS DECIMAL(24, 6))"
    counted = {unit: f"CAST(floor({value} * {factor}) AS BIGINT)" for unit, factor in UNITS.items()}
    sizes = {"s": FURTHEST, "place": FURTHEST, "ms": FURTHEST * 1000, "us": FURTHEST * 1000000}
    units = [column.unit] if column.unit in sizes else ["s", "ms", "us"]
    choice = " ".join(f"WHEN abs({value}) < {sizes[unit]} THEN {counted[unit]}" for unit in units)
    numeric = f"WHEN regexp_full_match(stamp, '{DECIMAL}') THEN CASE {choice} END"
    iso = f" ELSE {_iso(column.time_zone)}" if column.unit == "auto" else ""
    return f"CASE {numeric}{iso} END"


def _iso(time_zone: str) -> str:
    """SQL for ISO 8601: the offset is taken off by hand, so that the session's own zone never matters."""
    offset = f"regexp_extract(stamp, '{CLOCK} ?{OFFSET}$', 3)"
    local = f"TRY_CAST(replace(regexp_extract(stamp, '^{DATE}([T ]{CLOCK})?'), ',', '.') AS TIMESTAMP)"
    hours = f"CAST(substr({offset}, 2, 2) AS BIGINT)"
    minutes = f"CASE WHEN length({offset}) > 3 THEN CAST(right({offset}, 2) AS BIGINT) ELSE 0 END"
    east = (
        f"CASE WHEN {offset} = 'Z' THEN 0 ELSE ({hours} * 60 + {minutes}) * CASE WHEN {offset} LIKE '-%' THEN -1 ELSE 1 END END"
    )
    with_offset = f"epoch_us({local}) - ({east}) * 60000000"
    either = f"CASE WHEN {offset} = '' THEN {_zoned(local, time_zone)} ELSE {with_offset} END"
    return f"CASE WHEN regexp_full_match(stamp, '{ISO}') THEN {either} END"


def _zoned(local: str, time_zone: str) -> str:
    return f"epoch_us({local})" if time_zone == "UTC" else f"epoch_us(timezone({text(time_zone)}, {local}))"
