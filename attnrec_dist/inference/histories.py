"""Histories to recommend for: those of the data set, or fresh ones from a file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.gather import ranges
from attnrec_dist.data.windows import target_codes
from attnrec_dist.errors import InputError
from attnrec_dist.storage.yaml_text import in_a_line, shortened
from attnrec_dist.terminal.layout import counted
from attnrec_dist.times.read_times import read_times
from attnrec_dist.times.timestamps import TimeRule

COLUMNS = ("user", "item", "timestamp")
EVENT = "event"  # the column that may be left out
CUSTOMERS_READ = 4096
MOST_NAMED = 20  # columns in a message
MICROSECONDS = 1_000_000  # in a second


@dataclass
class CustomerHistories:
    """Packed histories of some customers, in time order. B customers, S events."""

    names: list[str]  # [B] raw ids
    users: np.ndarray  # int64 [B] index in the data set, -1 for unknown customers
    row: np.ndarray  # int64 [S] ascending
    items: np.ndarray  # int64 [S] index in the catalogue; -1, and those above it, are unknown to a model
    times: np.ndarray  # int64 [S] unix seconds
    columns: dict[str, np.ndarray]  # {"event": int8 [S], numeric columns: float32 [S]}
    is_timed: bool = True  # False: whoever gave the history told no times, and `times` are made up

    def __len__(self) -> int:
        return len(self.names)

    def known_only(self, num_items: int) -> CustomerHistories:
        """Without the events of items that a model cannot know."""
        return self._where((self.items >= 0) & (self.items < num_items))

    def part(self, first: int, stop: int) -> CustomerHistories:
        inside = self._where(slice(*np.searchsorted(self.row, [first, stop])))
        return replace(inside, names=self.names[first:stop], users=self.users[first:stop], row=inside.row - first)

    def of(self, names: list[str]) -> CustomerHistories:
        """These customers only, in this order; those without events have an empty history."""
        place = {name: index for index, name in enumerate(self.names)}
        chosen = np.array([place.get(name, -1) for name in names], np.int64)
        starts = np.searchsorted(self.row, chosen)
        sizes = np.where(chosen >= 0, np.searchsorted(self.row, chosen, side="right") - starts, 0)
        token, row = ranges(starts, sizes)
        users = np.where(chosen >= 0, self.users[chosen], -1) if len(self.users) else np.full(len(names), -1)
        columns = {name: column[token] for name, column in self.columns.items()}
        return CustomerHistories(names, users, row, self.items[token], self.times[token], columns)

    def _where(self, keep: np.ndarray | slice) -> CustomerHistories:
        columns = {name: column[keep] for name, column in self.columns.items()}
        return replace(self, row=self.row[keep], items=self.items[keep], times=self.times[keep], columns=columns)


class StoredCustomers:
    """Customers of the data set, whose histories are read a part at a time; unknown ones have an empty history. B customers."""

    def __init__(self, data: DataSet, names: list[str] | None):
        self.data, self.names = data, names  # None: all
        self.users = np.arange(data.num_rows) if names is None else data.user_index(names)  # int64 [B], -1 for unknown ones

    def __len__(self) -> int:
        return len(self.users)

    def part(self, first: int, stop: int) -> CustomerHistories:
        """All events of some of them."""
        users = self.users[first:stop]
        known = users >= 0
        rows = self.data.rows(users[known])
        return CustomerHistories(
            self.data.users()["id"].slice(first, len(users)).to_pylist() if self.names is None else self.names[first:stop],
            users,
            np.repeat(np.flatnonzero(known), np.diff(rows.offsets)),
            rows.items.astype(np.int64),
            rows.times,
            {EVENT: rows.events, **rows.numeric},
        )


def stored_histories(data: DataSet, names: list[str] | None) -> Iterator[CustomerHistories]:
    """All events of these customers (None: of all) from the data set, some thousands of customers at a time."""
    customers = StoredCustomers(data, names)
    for first in range(0, len(customers), CUSTOMERS_READ):
        yield customers.part(first, first + CUSTOMERS_READ)


def read_histories(
    path: Path, data: DataSet, config: DataConfig, say: Callable[[str], None] = lambda _: None
) -> CustomerHistories:
    """Fresh histories from a CSV, TSV or Parquet file: columns user, item, timestamp and, optionally, event.

    Times are read as in the log: unix s, ms, us or ns, ISO 8601, the data set's format. `say` is told what was assumed: of a file
    without event types, and of columns that are not read.
    """
    table = _read_table(path)
    _check_columns(path, table.column_names, say)
    types = data.manifest.event_types
    if EVENT not in table.column_names and len(types) > 1:
        assumed = types[event_codes(None, 1, data, config, str(path))[0]]
        say(f"{path}: lacks the column {EVENT}, so all rows count as {assumed}; add it ({', '.join(types)}) if they are not")
    if table["user"].null_count or table["timestamp"].null_count:
        raise InputError(f"{path}: rows without a user or a timestamp; remove them, or fill them in")
    times = read_times(
        table["timestamp"], time_rule(data), f"{path}: column timestamp must hold unix seconds or times as the log does"
    )
    user_ids = np.array(_texts(path, table, "user"), dtype=object)
    items = data.item_index(_texts(path, table, "item"))
    names, row = np.unique(user_ids, return_inverse=True)
    events = _texts(path, table, EVENT) if EVENT in table.column_names else None
    columns = {EVENT: event_codes(events, len(table), data, config, f"{path}: column {EVENT}")}
    order = np.lexsort((items, times, row))
    times[order] = in_baskets(times[order], row[order], data.manifest.basket_gap)
    return CustomerHistories(
        [str(name) for name in names],
        data.user_index([str(name) for name in names]),
        row[order],
        items[order],
        times[order] // MICROSECONDS,
        {name: column[order] for name, column in columns.items()},
    )


def in_baskets(times: np.ndarray, row: np.ndarray, gap: int | None) -> np.ndarray:
    """Times as baskets.gap has them in the log: those less than `gap` seconds after the one before in the row become the first of
    them. int64 [S] microseconds, in order within each row; None: as they are."""
    if gap is None or not len(times):
        return times
    begins = np.append(True, (np.diff(times) >= gap * MICROSECONDS) | (np.diff(row) != 0))
    return times[np.maximum.accumulate(np.where(begins, np.arange(len(times)), 0))]


def time_rule(data: DataSet) -> TimeRule:
    """How times of histories are written: as the log's were; unix times and ISO 8601 are always understood."""
    manifest = data.manifest
    return TimeRule.of_histories(manifest.config, manifest.times_are_places, manifest.start_time)


def _texts(path: Path, table: pa.Table, name: str) -> list[Any]:
    """A column of texts or numbers as texts, None where it has none. Raises InputError."""
    try:
        texts: list[Any] = table[name].cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{path}: column {name} must hold texts or numbers: {error}") from None
    return texts


def _check_columns(path: Path, there: list[str], say: Callable[[str], None]) -> None:
    """Raises InputError where a column lacks or looks misspelt; the other ones that are not read are only told."""
    twice = sorted({name for name in there if there.count(name) > 1})
    if twice:
        names = ", ".join(map(shortened, twice[:MOST_NAMED]))
        raise InputError(f"{path}: {names} names more than one column; rename or remove all but one")
    missing = [name for name in COLUMNS if name not in there]
    unused = [name for name in there if name not in (*COLUMNS, EVENT)]
    for absent in [name for name in (*COLUMNS, EVENT) if name not in there]:
        near = [name for name in unused if difflib.SequenceMatcher(None, absent, name.lower()).ratio() >= 0.66]
        if near:
            raise InputError(f"{path}: column {shortened(near[0])} is unknown; did you mean {absent}? Rename it, or leave it out")
    if missing:
        raise InputError(f"{path}: lacks the column {', '.join(missing)}; it has {listed(there)}")
    if unused:
        say(f"{path}: not used: {listed(unused)}")


def listed(names: list[str]) -> str:
    """Names of columns for a message, however many and long they are."""
    return ", ".join([in_a_line(name) for name in names[:MOST_NAMED]] + ["..."] * (len(names) > MOST_NAMED))


def event_codes(events: Sequence[str | None] | None, count: int, data: DataSet, config: DataConfig, where: str) -> np.ndarray:
    """int8 [count]: these event types' codes. Where none are told, all are of the (first) type that the model predicts."""
    types = data.manifest.event_types
    if events is None or not types:
        predicted = target_codes(config, types)
        return np.full(count, 0 if predicted is None else predicted[0], np.int8)
    unknown = sorted({str(name) for name in events} - set(types))
    if unknown:
        raise InputError(f"{where} holds {', '.join(unknown[:5])}; the data set knows {', '.join(types)}")
    return np.array([types.index(str(name)) for name in events], np.int8)


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        text = {name: pa.string() for name in (*COLUMNS, EVENT)}
        delimiter = "\t" if path.suffix == ".tsv" else ","
        return pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(delimiter=delimiter),
            convert_options=pa_csv.ConvertOptions(column_types=text, null_values=[""], strings_can_be_null=True),
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def read_lines(path: Path, option: str) -> list[str]:
    """The lines of a text file, empty ones left out. Raises InputError."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except FileNotFoundError:
        raise InputError(f"{option} {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} {path}: cannot be read as text: {error}") from None


def read_items(path: Path, option: str, data: DataSet, say: Callable[[str], None]) -> list[str]:
    """Item ids, one a line. `say` is told those that the data set has no item of: they may be misspelt. Raises InputError."""
    ids = read_lines(path, option)
    unknown = [name for name, index in zip(ids, data.item_index(ids)) if index < 0]
    if unknown:
        few = ", ".join(map(shortened, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        say(f"{option} {path}: {len(unknown):,} of {counted(len(ids), 'id')} not in the data set: {few}")
    return ids
