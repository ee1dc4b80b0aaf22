"""What cleaning left out and what came in, as tables and as messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from attnrec_dist.data.manifest import Manifest
from attnrec_dist.errors import InputError
from attnrec_dist.prepare.cleaning import LISTED, REASONS, UNUSABLE, dated, number_columns, offenders, parsed, wanted_columns
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.reading.columns import PLACE, Source, rows_of
from attnrec_dist.prepare.reading.lines import located
from attnrec_dist.prepare.reading.ragged import SHOWN
from attnrec_dist.terminal.layout import counted, paragraph
from attnrec_dist.times.read_times import MOST_LOOKED_AT, advice
from attnrec_dist.times.timestamps import doubt, mixture

USUAL_TIMES = (int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2101, 1, 1, tzinfo=UTC).timestamp()))
READ, KEPT = "rows read", "events kept"

_HINTS = {
    "damaged row": "are input.format, delimiter and quote right? Of JSON Lines each line is one object",
    "no match in input.join": "are input.join.on and input.join.id the right columns, and both files of one time?",
    "missing user": "is columns.user the right column?",
    "missing item": "is columns.item the right column?",
    "more than two words": "pairs reads 'user item' lines; is input.format right, or is it user_items, csv or tsv?",
    "bad number": "leave the column out of columns.numeric, or set columns.missing_numeric for empty values",
    "unknown event": "check columns.event.types and columns.event.rename",
    "out of bounds": "check filters.where",
    "before input.start": "check input.start and columns.timestamp.unit",
    "after input.end": "check input.end and columns.timestamp.unit",
    **{reason: f"check filters.{key}: it must hold ids just as the log has them" for key, reason in LISTED.items()},
}


def cleaning_table(cleaning: dict[str, int]) -> str:
    """Lines "name  count  share of the rows read"; reasons that met no row are left out."""
    total = max(cleaning[READ], 1)
    shown = {name: count for name, count in cleaning.items() if count or name in (READ, KEPT)}
    width = max(map(len, shown))
    return "\n".join(f"  {name:<{width}}  {count:>13,}  {count / total:7.2%}" for name, count in shown.items())


def summary(manifest: Manifest) -> str:
    """The data set in a few lines, for people."""
    counts = manifest.counts
    cold = manifest.num_all_items - manifest.num_items
    lines = [
        cleaning_table(manifest.cleaning),
        f"{counted(counts.rows, 'user')} ({counts.users_without_train_events:,} without training events), "
        f"{counted(manifest.num_items, 'item')} and {cold:,} more without training events, {span(manifest)}",
        f"events: training {counts.train_events:,}, validation {counts.validation_events:,}, test {counts.test_events:,}",
    ]
    if manifest.split.train_end is not None and manifest.split.valid_end is not None:
        held_back = "nothing held back for validation"
        if counts.validation_events:
            held_back = f"validation from {day(manifest.split.train_end, manifest)}"
        zone = "" if manifest.time_unit == "day" else " (UTC)"
        lines.append(f"{held_back}, test from {day(manifest.split.valid_end, manifest)}{zone}")
    usual = manifest.time_unit == "day" or (USUAL_TIMES[0] <= manifest.start_time and manifest.end_time < USUAL_TIMES[1])
    if not usual and not manifest.times_are_places:
        lines.append(
            "warning: times before 1990 or after 2100: is columns.timestamp the right column, and columns.timestamp.unit right?"
        )
    return "\n".join([lines[0], *(paragraph(line, "    ", "  ") for line in lines[1:])])


def span(manifest: Manifest) -> str:
    """From when to when the events are."""
    if manifest.times_are_places and manifest.start_time:  # the log's own numbers, which may have gaps
        return f"places {manifest.start_time:,} to {manifest.end_time:,}"
    if manifest.times_are_places:
        return f"histories of at most {manifest.end_time + 1:,} events"
    return f"{day(manifest.start_time, manifest)} to {day(manifest.end_time, manifest)}"


def day(second: int, manifest: Manifest | None = None) -> str:
    """A moment, UTC; of a log that numbers its days as it does."""
    try:
        return (manifest and manifest.own_number(second)) or datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"second {second}"


def check_usable(config: PrepareConfig, cleaning: dict[str, int], sources: list[Source], rows: Callable[[str], list]) -> None:
    """Raises InputError when too many rows are damaged or none is left, with the first offenders: file, row, column, value."""
    total = cleaning[READ]
    files = sum(len(source.files) for source in sources)
    first = f"{sources[0].files[0]}" + (f" and {files - 1} more" if files > 1 else "")
    if total == 0:
        where = "no line that is not blank" if sources[0].is_lines else "no rows below the header"
        raise InputError(f"{first}: {where}; is this the right file?")
    bad = sum(cleaning.get(name, 0) for name in UNUSABLE)
    left = total - sum(cleaning.get(name, 0) for name in REASONS)
    if left > 0 and bad <= config.input.max_bad_share * total:
        return
    worst = max((name for name in REASONS if cleaning.get(name)), key=lambda name: cleaning[name])
    what = (
        "no row is left after cleaning"
        if left == 0
        else f"{bad:,} of {total:,} rows are unusable, more than input.max_bad_share {config.input.max_bad_share:g} allows"
    )
    examples = "\n".join(f"  {example}" for example in _examples(config, worst, sources, rows))
    look = {"unreadable timestamp": _time_hint, "bad number": _number_hint}
    hint = look[worst](config, sources, rows) if worst in look else _HINTS[worst]
    raise InputError(f"{first}: {what}\n{cleaning_table(cleaning)}\n{examples}\nMost are {worst}: {hint}")


def check_times(config: PrepareConfig, forms: dict[str, int], progress: Callable[[str], None]) -> None:
    """Raises InputError where the numbers of the time column are no unix times by their look; says where it mixes forms.

    `forms` counts how the times of all rows are written, where columns.timestamp leaves a choice.
    """
    column = config.columns.timestamp.name
    doubtful = doubt(forms, column)
    if doubtful:
        raise InputError(
            f"column {column!r} (columns.timestamp) holds {doubtful[0]}, no unix times: {doubtful[1]}; "
            "where they are seconds since 1970 after all, set columns.timestamp.unit: s"
        )
    mixed = mixture(forms)
    if mixed:
        progress(f"warning: column {column!r} mixes forms of time: {mixed}; columns.timestamp.unit or format holds it to one")


def _time_hint(config: PrepareConfig, sources: list[Source], rows: Callable[[str], list]) -> str:
    """What to type, from a thousand distinct texts that are no times."""
    raw = f"({rows_of(sources, wanted_columns(config))})"
    bad = f"SELECT raw_row.stamp AS stamp FROM ({offenders(config, 'unreadable timestamp', raw)}) AS o"
    distinct = f"SELECT stamp FROM ({bad}) AS b WHERE stamp IS NOT NULL GROUP BY stamp"
    found = rows(f"{distinct} ORDER BY md5(stamp) LIMIT {MOST_LOOKED_AT}")
    return advice([stamp for (stamp,) in found], config.columns.timestamp.rule, "columns.timestamp")


def ragged_rows(sources: list[Source]) -> list[str]:
    """The first rows of csv files that were left out for having too many or too few values."""
    return [
        f"line {line:,} of {file}: {_shown(written)} ({values} values, {len(source.columns)} columns)"
        for source in sources
        for file, ragged in source.ragged.items()
        for line, written, values in ragged.first
    ][:SHOWN]


def _number_hint(config: PrepareConfig, sources: list[Source], rows: Callable[[str], list]) -> str:
    names = [f"raw_row.n{place}" for place in range(len(number_columns(config)))]
    comma = " OR ".join(f"regexp_full_match({name}, '[-+]?[0-9][0-9. ]*,[0-9]+')" for name in names)
    bad = offenders(config, "bad number", f"({rows_of(sources, wanted_columns(config))})")
    (found, total) = rows(f"SELECT count(*) FILTER (WHERE {comma}), count(*) FROM ({bad}) AS o")[0]
    if config.input.decimal == "." and 2 * found > total:
        return "they have a decimal comma; set input.decimal: ','"
    return _HINTS["bad number"]


def _examples(config: PrepareConfig, why: str, sources: list[Source], rows: Callable[[str], list], most: int = 3) -> list[str]:
    """The first rows that a reason rules out."""
    if sources[0].is_lines:
        bad = f"SELECT CAST(raw_row.number AS BIGINT) FROM ({offenders(config, why, 'raw')}) AS o ORDER BY 1 LIMIT {most}"
        found_lines = located(rows, sources[0].files, [number for (number,) in rows(bad)])
        return [f"line {line:,} of {file}: {_shown(text)}" for file, line, text in found_lines]
    if why == "damaged row" and (shown := ragged_rows(sources)):
        return shown
    return _found(config, sources, rows, lambda raw: offenders(config, why, raw), _suspects(config, why), most)


def found_rows(
    config: PrepareConfig, sources: list[Source], rows: Callable[[str], list], condition: str, shown: list[str], most: int = 3
) -> list[str]:
    """The first rows for which a condition on the read values (cleaning.parsed) holds: "row 3 of FILE: column 'x' = ...".

    `shown`: columns by their names in the statements.
    """
    read = ", ".join(["raw_row", *parsed(config)])
    return _found(
        config,
        sources,
        rows,
        lambda raw: f"SELECT raw_row FROM (SELECT {read} FROM {dated(config, raw)} AS raw_row) AS parsed WHERE {condition}",
        shown,
        most,
    )


def _found(
    config: PrepareConfig,
    sources: list[Source],
    rows: Callable[[str], list],
    query: Callable[[str], str],
    shown: list[str],
    most: int,
) -> list[str]:
    """By reading again, file by file. Rows are counted from 1 below the header."""
    wanted = wanted_columns(config)
    found: list[str] = []
    for source in sources:
        for file in source.files:
            raw = f"({source.select(wanted | {'place': PLACE}, (file,))})"
            for (row,) in rows(f"{query(raw)} ORDER BY raw_row.place LIMIT {most - len(found)}"):
                values = ", ".join(f"column {wanted[name]!r} = {_shown(row[name])}" for name in shown)
                number = source.ragged[file].numbered(row["place"]) if file in source.ragged else row["place"]
                found.append(f"row {number:,} of {file}: {values or 'no whole JSON object'}")
            if len(found) >= most:
                return found
    return found


def _suspects(config: PrepareConfig, why: str) -> list[str]:
    """The columns that a reason is about, by their names in the statements."""
    numbers = [f"n{place}" for place in range(len(number_columns(config)))]
    known = {
        "damaged row": [],
        "no match in input.join": ["user_id", "item_id"],
        "missing user": ["user_id"],
        "missing item": ["item_id"],
        "unreadable timestamp": ["stamp"],
        "before input.start": ["stamp"],
        "after input.end": ["stamp"],
        "unknown event": ["event"],
        **{reason: ["user_id" if key.endswith("users") else "item_id"] for key, reason in LISTED.items()},
    }
    return known.get(why, numbers)


def _shown(value: str | None) -> str:
    if value is None:
        return "(empty)"
    return repr(value if len(value) <= 60 else value[:57] + "...")
