"""An independent reader of raw logs: Python's csv, gzip, datetime and pyarrow, a row at a time, and what each row plainly says.

It need not understand everything that prepare does. What it cannot tell it calls doubtful, and the oracle then only counts.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

csv.field_size_limit(2**31 - 1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FURTHEST = 100_000_000_000
ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[-+]\d{2}:\d{2})?)?", re.ASCII)
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
GOOD, BAD, DOUBTFUL = "good", "bad", "doubtful"


class Unreadable(Exception):
    """This is no log in the format that it is said to be."""


@dataclass
class Log:
    """Events that are plainly there, and what is doubtful."""

    rows: int = 0
    sure_count: bool = True  # whether `rows` is what every reader must find
    events: set[tuple[str, str, int, str]] = field(default_factory=set)  # (user, item, second, kind)
    doubtful: int = 0


def read(files: list[Path], config: Any) -> Log:
    """`config` has the keys of a prepare YAML as attributes. Raises Unreadable."""
    log = Log()
    for path in files:
        kind = _kind(path, config)
        try:
            if kind == "parquet":
                _add_parquet(log, path, config)
            else:
                _add_text(log, _unpacked(path), kind, config)
        except Unreadable:
            raise
        except (OSError, EOFError, ValueError, KeyError, pa.ArrowException, csv.Error) as error:
            raise Unreadable(f"{path.name}: {type(error).__name__}: {error}") from error
    return log


def _kind(path: Path, config: Any) -> str:
    if config.input.format != "auto":
        return config.input.format
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    kinds = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet"}
    if not suffixes or suffixes[-1] not in kinds:
        raise Unreadable(f"{path.name}: the suffix says nothing")
    return kinds[suffixes[-1]]


def _unpacked(path: Path) -> str:
    """Raises also where the text is not UTF-8."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        data = gzip.decompress(path.read_bytes())
    elif suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            data = stream.read()
    else:
        data = path.read_bytes()
    return data.decode().removeprefix("\ufeff")


def _add_text(log: Log, text: str, kind: str, config: Any) -> None:
    if kind in ("user_items", "pairs"):
        return _add_lines(log, text, kind)
    delimiter = config.input.delimiter or ("\t" if kind == "tsv" else ",")
    quote = config.input.quote
    how: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, **how))
    rows = [row for row in lines if row]
    if len(rows) < len(lines) or (quote and _stray_quotes(text, delimiter, quote)):
        log.sure_count = False  # readers differ about blank lines and about quotes inside a value
    names = list(config.input.names) if not config.input.header else rows.pop(0) if rows else []
    _check_names(names, config)
    whole = [row for row in rows if len(row) == len(names)]
    log.rows += len(rows) - len(whole)  # ragged: counted as damaged, no events
    columns = dict(zip(names, zip(*whole))) if whole else dict.fromkeys(names, ())
    _add_events(log, columns, len(whole), config)


def _stray_quotes(text: str, delimiter: str, quote: str) -> bool:
    ends = rf"{re.escape(delimiter)}\r\n{re.escape(quote)}"
    return bool(re.search(rf"[^{ends}]{re.escape(quote)}(?![{ends}]|$)", text))


def _add_lines(log: Log, text: str, kind: str) -> None:
    blank = re.compile("[ \t\r\v\f]+")
    seen: set[str] = set()
    places: dict[str, int] = {}
    for line in text.split("\n"):
        words = [word for word in blank.split(line) if word]
        if not words:
            continue
        user, items = words[0], words[1:]
        if kind == "user_items":
            if user in seen:
                raise Unreadable(f"two lines of user {user}")
            log.rows += max(1, len(items))
            log.events |= {(user, item, place, "") for place, item in enumerate(items)}
        else:
            log.rows += 1
            if len(items) == 1:
                log.events.add((user, items[0], places.setdefault(user, 0), ""))
                places[user] += 1
        seen.add(user)


def _add_parquet(log: Log, path: Path, config: Any) -> None:
    table = pq.ParquetFile(path, page_checksum_verification=True).read()
    table.validate(full=True)
    _check_names(table.column_names, config)
    columns = {name: _texts(table[name]) for name in _wanted(config)}
    _add_events(log, columns, len(table), config)


def _texts(column: pa.ChunkedArray) -> tuple[Any, ...]:
    """Texts, None, or DOUBTFUL values, which are no text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    values = column.to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return tuple(values)
    if pa.types.is_integer(kind):
        return tuple(None if value is None else str(value) for value in values)
    if pa.types.is_float64(kind):
        return tuple(_float(value) for value in values)
    return tuple(None if value is None else 0 for value in values)


def _float(value: float | None) -> str | int | None:
    if value is None or math.isnan(value):
        return None
    return str(int(value)) if abs(value) < 2**53 and value == math.floor(value) else 0


def _add_events(log: Log, columns: dict[str, tuple[Any, ...]], count: int, config: Any) -> None:
    wanted = config.columns
    numbers = list(dict.fromkeys([*wanted.numeric, *config.filters.where]))
    kinds = [wanted.event.name] if wanted.event else []
    log.rows += count
    for place in range(count):
        user, item = columns[wanted.user][place], columns[wanted.item][place]
        kind = columns[kinds[0]][place] if kinds else ""
        time, second = _time(columns[wanted.timestamp.name][place], config)
        judged = [_id(user), _id(item), time, *(_number(columns[name][place]) for name in numbers)]
        judged += [_id(kind)] if kinds else []
        if BAD in judged:
            continue
        if wanted.event and isinstance(kind, str):
            kind = wanted.event.rename.get(kind, kind)
            if wanted.event.types is not None and kind not in wanted.event.types:
                continue
        if DOUBTFUL in judged or config.filters.where or config.input.end:
            log.doubtful += 1
        else:
            log.events.add((user, item, second, kind))


def _wanted(config: Any) -> list[str]:
    columns = config.columns
    kinds = [columns.event.name] if columns.event else []
    return [columns.user, columns.item, columns.timestamp.name, *kinds, *columns.numeric, *config.filters.where]


def _check_names(names: list[str], config: Any) -> None:
    for name in _wanted(config):
        if names.count(name) != 1:
            raise Unreadable(f"{names.count(name)} columns are called {name!r}")


def _id(value: Any) -> str:
    return BAD if value in (None, "") else GOOD if isinstance(value, str) else DOUBTFUL


def _number(value: Any) -> str:
    if value is None or value == "":
        return BAD
    if not isinstance(value, str):
        return DOUBTFUL
    if not NUMBER.fullmatch(value):
        return DOUBTFUL
    return GOOD if abs(float(value)) < 3e38 else DOUBTFUL


def _time(value: Any, config: Any) -> tuple[str, int]:
    """Whether it is plainly a time, and its second."""
    column = config.columns.timestamp
    if value in (None, ""):
        return BAD, 0
    if not isinstance(value, str):
        return DOUBTFUL, 0
    if column.format is not None or column.unit == "place":
        return DOUBTFUL, 0
    if re.fullmatch(r"-?\d{1,17}", value, re.ASCII) and column.unit != "iso":
        number = int(value)
        factors = {"s": 1, "ms": 1000, "us": 10**6}
        units = [column.unit] if column.unit in factors else list(factors)
        for unit in units:
            if abs(number) < FURTHEST * factors[unit]:
                return GOOD, number // factors[unit]
        return DOUBTFUL, 0
    if ISO.fullmatch(value) and column.unit in ("iso", "auto"):
        try:
            when = dt.datetime.fromisoformat(value)
            when = when if when.tzinfo else when.replace(tzinfo=ZoneInfo(column.time_zone))
            return GOOD, (when - EPOCH) // dt.timedelta(seconds=1)
        except (ValueError, OverflowError):
            return DOUBTFUL, 0
    return DOUBTFUL, 0
