"""Cuts training histories into windows: the samples of a run, numbered through a prefix sum of windows a row.

A window is a run of whole baskets of at most `max_length` tokens. Its queries are those of its baskets that have a target
and were no query of an earlier window; what stands before the first of them is context. So every target is trained
exactly once an epoch. Rows without a target have no window. A single basket longer than a window is thinned evenly.
With `targets: last` only a window's last query is one; with `targets: prefixes` every query has a window that ends with it, and
with `empty_history` there is one without a token for a row's first basket.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet, Rows
from attnrec_dist.data.manifest import IN_BASKETS
from attnrec_dist.errors import DataError, StorageError
from attnrec_dist.run_dir import write_whole
from attnrec_dist.storage.stored import read_json, sealed, sha256_of, size_of

# the columns of a window, all int32: its tokens [start, stop) and where its last target basket ends, counted from the row's
# first token; the token from which baskets are queries; how many queries there are
START, STOP, END, FIRST_QUERY, QUERIES = range(5)
COLUMNS = 5
WINDOWS_AT_ONCE = 2**20


@dataclass(frozen=True)
class SampleIndex:
    """All samples of a training part; memory-mapped, so the processes of a machine share it."""

    row_windows: np.ndarray  # int64 [rows + 1], prefix sum
    windows: np.ndarray  # int32 [samples, 5]
    max_length: int

    def __len__(self) -> int:
        return len(self.windows)

    def rows_of(self, samples: np.ndarray) -> np.ndarray:
        """The row (user) of each sample, int64."""
        return np.searchsorted(self.row_windows, samples, side="right") - 1

    def lengths(self, samples: np.ndarray) -> np.ndarray:
        """Tokens of each sample, int64; a stand-in (sample < 0) and an empty history have one."""
        windows = self.windows.take(np.maximum(samples, 0), axis=0)  # three times as fast as by brackets
        tokens = np.minimum(np.maximum(windows[:, STOP] - windows[:, START], 1), self.max_length)
        return np.where(samples < 0, 1, tokens).astype(np.int64)

    def queries(self, samples: np.ndarray) -> np.ndarray:
        """Queries of each sample, so the weight of its targets, int64; a stand-in has none."""
        return np.where(samples < 0, 0, self.windows[np.maximum(samples, 0), QUERIES]).astype(np.int64)

    def cut_rows(self) -> int:
        """Rows that one window does not hold; read in pieces."""
        rows, last = 0, -1
        for first in range(0, len(self), WINDOWS_AT_ONCE):
            windows = self.windows[first : first + WINDOWS_AT_ONCE]
            cut = (windows[:, START] > 0) | (windows[:, STOP] - windows[:, START] > self.max_length)
            found = np.unique(self.rows_of(first + np.flatnonzero(cut)))
            if len(found):
                rows, last = rows + len(found) - int(found[0] == last), int(found[-1])
        return rows

    def tokens_before(self) -> int:
        """Tokens before the first window of their row: with `windows: last` those that are never read."""
        begins = self.row_windows[:-1][np.diff(self.row_windows) > 0]
        return int(self.windows[begins, START].sum(dtype=np.int64))


def basket_starts(times: np.ndarray, rows: np.ndarray, basket: str) -> np.ndarray:
    """True where a token begins a basket, bool [T]; `rows` tells the tokens of one row from those of the next."""
    if basket == "none" or len(times) == 0:
        return np.ones(len(times), bool)
    return np.concatenate([[True], (times[1:] != times[:-1]) | (rows[1:] != rows[:-1])])


def is_target(events: np.ndarray, target_codes: np.ndarray | None) -> np.ndarray:
    """True where an event may be predicted, bool [T]."""
    return np.ones(len(events), bool) if target_codes is None else np.isin(events, target_codes)


def target_codes(config: DataConfig, event_types: list[str]) -> np.ndarray | None:
    """The codes of `data.target_events`, or None for all. Raises DataError for a type that the data set lacks."""
    if config.target_events is None:
        return None
    unknown = [name for name in config.target_events if name not in event_types]
    if unknown:
        known = ", ".join(event_types) or "no event types (prepare names none in columns.event)"
        raise DataError(f"data.target_events: {', '.join(unknown)} is not in the data set, which has {known}")
    return np.array([event_types.index(name) for name in config.target_events])


class IndexRecord(BaseModel):
    """What the JSON file beside an index holds: whose it is, and the sums of the two files."""

    fingerprint: str = Field(alias="data fingerprint")
    keys: str
    rows: str
    windows: str
    checksum: str


def open_index(data: DataSet, config: DataConfig, directory: Path, check: bool = True) -> SampleIndex | None:
    """The index stored in `directory`, or None when there is none for this data set and these keys that is whole. Without `check`
    its content is trusted: this process has just compared it."""
    rows, windows, record = _paths(data, config, directory)
    try:
        told = read_json(record, IndexRecord)
        agrees = (told.fingerprint, told.keys) == (data.manifest.fingerprint, config.samples_key())
        if not agrees or (check and (told.rows, told.windows) != (sha256_of(rows), sha256_of(windows))):
            return None
        if size_of(rows) != 8 * (data.num_rows + 1):
            return None
    except (OSError, ValueError):
        return None
    row_windows = _mapped(rows, np.int64)
    if windows.stat().st_size != 4 * COLUMNS * row_windows[-1]:
        return None
    return SampleIndex(row_windows, _mapped(windows, np.int32).reshape(-1, COLUMNS), config.max_length)


def _mapped(path: Path, dtype: type) -> np.ndarray:
    """A memory-mapped file as a plain array, which numpy indexes without asking Python each time."""
    return np.asarray(np.memmap(path, dtype, "r"))


def build_index(data: DataSet, config: DataConfig, directory: Path) -> str:
    """Reads the training part once, in bounded memory, and stores its windows, unless they are there. One process does it. What
    there is to tell: that an index was there which could not be used; else "".

    Raises DataError when nobody has a training target, StorageError when the disk refuses.
    """
    if open_index(data, config, directory) is not None:
        return ""
    codes = target_codes(config, data.manifest.event_types)
    *finals, record = _paths(data, config, directory)
    said = f"{finals[0].parent}: the sample index is damaged or of an older version; built anew" if finals[1].exists() else ""
    partials = [path.with_name(f"{path.name}.{os.getpid()}.partial") for path in finals]
    samples = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with open(partials[0], "wb") as row_file, open(partials[1], "wb") as window_file:
            row_file.write(np.zeros(1, np.int64).tobytes())
            for rows in data.scan():
                row_of, windows = windows_of(rows, config, codes)
                row_file.write((samples + np.cumsum(np.bincount(row_of, minlength=len(rows)))).astype(np.int64).tobytes())
                window_file.write(windows.tobytes())
                samples += len(windows)
            for file in (row_file, window_file):
                file.flush()
                os.fsync(file.fileno())
        if samples:
            sums = dict(zip(("rows", "windows"), map(sha256_of, partials)))
            for partial, final in zip(partials, finals):
                partial.replace(final)
            whose = {"data fingerprint": data.manifest.fingerprint, "keys": config.samples_key()}
            write_whole(record, json.dumps(sealed(whose | sums)) + "\n")
    except OSError as error:
        raise StorageError.of(error, f"storing the sample index in {directory}") from None
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    if not samples:
        raise DataError(f"{data.path}: {_why_no_sample(data, config)}")
    return said


def _why_no_sample(data: DataSet, config: DataConfig) -> str:
    counts = data.manifest.counts
    predicted = "an event" if config.target_events is None else f"a {' or '.join(config.target_events)} event"
    told = (
        f"nothing to train on: {predicted} is predicted from earlier ones of the same customer, and of the "
        f"{counts.train_events:,} training events, of {counts.rows - counts.users_without_train_events:,} customers, none has one"
    )
    if config.basket == "time" and data.manifest.statistics.get(IN_BASKETS):
        told += " (those of one time are one basket; --data.basket none predicts them one after another)"
    return f"{told}. When it was prepared: is columns.user the customer's column, and not a visit's or an order's?"


def _paths(data: DataSet, config: DataConfig, directory: Path) -> tuple[Path, Path, Path]:
    """Raw little-endian arrays: the prefix sum of windows a row, int64 [rows + 1], and the windows, int32 [samples, 5]; and the
    record of them."""
    name = f"samples-{data.manifest.fingerprint[:16]}-{config.samples_key()}"
    return directory / f"{name}.rows.bin", directory / f"{name}.windows.bin", directory / f"{name}.json"


def windows_of(rows: Rows, config: DataConfig, codes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The windows of these rows' training parts: (place of the row among them [n], windows [n, 5]), in row order."""
    in_training, row, _ = training_tokens(rows)
    if not len(row):
        return np.empty(0, np.int64), np.empty((0, COLUMNS), np.int32)
    times, events = rows.times[in_training], rows.events[in_training]
    starts = np.flatnonzero(basket_starts(times, row, config.basket))  # [baskets], tokens counted over all rows
    ends = np.append(starts[1:], len(row))
    basket_row = row[starts]
    has_target = np.maximum.reduceat(is_target(events, codes), starts)
    if config.targets == "prefixes":
        return _prefixes(starts, ends, basket_row, has_target, config)
    result_rows, result = [], []
    edges = np.searchsorted(basket_row, np.arange(len(rows.users) + 1))
    for index in range(len(rows.users)):
        first, last = edges[index], edges[index + 1]
        if last - first > 1:
            for window in _cut(ends[first:last] - starts[first], has_target[first:last], config):
                result_rows.append(index)
                result.append(window)
    return np.array(result_rows, np.int64), np.array(result, np.int32).reshape(-1, COLUMNS)


def training_tokens(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which tokens are in the training part (index [T']), their row [T'] and their place in it [T']."""
    sizes = rows.train_end.astype(np.int64)
    row = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rows.offsets[row] + place, row, place


def _cut(ends: np.ndarray, has_target: np.ndarray, config: DataConfig) -> Iterator[tuple[int, int, int, int, int]]:
    """Windows of one row with baskets [k] that end at token ends[k]; basket k is a query when basket k + 1 has a target."""
    starts = np.concatenate([[0], ends[:-1]])
    queries = np.flatnonzero(has_target[1:])

    def window(first: int, inside: np.ndarray) -> tuple[int, int, int, int, int]:
        trained = inside[-1:] if config.targets == "last" else inside
        final = int(inside[-1])
        return int(starts[first]), int(ends[final]), int(ends[final + 1]), int(starts[trained[0]]), len(trained)

    if not len(queries):
        return
    last = int(queries[-1])
    if ends[last] <= config.max_length:  # by far the most rows: one window holds it all
        yield window(0, queries)
        return
    if config.windows == "last":
        first = min(int(np.searchsorted(starts, ends[last] - config.max_length)), last)
        yield window(first, queries[queries >= first])
        return
    done = 0
    while done < len(queries):
        query = int(queries[done])
        context = min(config.context_tokens, max(0, config.max_length - int(ends[query] - starts[query])))
        first = min(int(np.searchsorted(starts, starts[query] - context)), query)
        fitting = queries[done:][ends[queries[done:]] <= starts[first] + config.max_length]
        count = max(1, len(fitting))
        yield window(first, queries[done : done + count])
        done += count


def _prefixes(
    starts: np.ndarray, ends: np.ndarray, basket_row: np.ndarray, has_target: np.ndarray, config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """A window for each query of all rows: the baskets up to it that fit. Baskets [k] hold the tokens [starts, ends), counted
    over all rows. Without a loop, because there are as many windows as targets."""
    asks = np.append((basket_row[1:] == basket_row[:-1]) & has_target[1:], False)
    query = np.flatnonzero(asks)  # [n] basket of each
    row = basket_row[query]
    first_of_row = np.searchsorted(basket_row, row)
    first = np.clip(np.searchsorted(starts, ends[query] - config.max_length), first_of_row, query)
    if config.windows == "last":
        last = np.searchsorted(row, row, side="right") - 1  # the row's last query
        inside = query >= first[last]
        query, row, first_of_row, first = query[inside], row[inside], first_of_row[inside], first[inside]
    tokens = np.stack([starts[first], ends[query], ends[query + 1], starts[query]], axis=1) - starts[first_of_row][:, None]
    if config.empty_history:
        opening = np.flatnonzero(np.append(True, basket_row[1:] != basket_row[:-1]) & has_target)  # [m] basket of each
        nothing = np.zeros(len(opening), np.int64)
        row = np.concatenate([basket_row[opening], row])
        order = np.argsort(row, kind="stable")
        sizes = (ends - starts)[opening]
        row, tokens = row[order], np.concatenate([np.stack([nothing, nothing, sizes, nothing], axis=1), tokens])[order]
    return row, np.column_stack([tokens, np.ones(len(row), np.int64)]).astype(np.int32)
