"""What is in a data set, counted in one scan that also checks what a reader relies on. Memory: a batch of rows and the catalogue.

B rows of a batch, T their tokens, V_all items with the cold ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from attnrec_dist.data.dataset import DataSet, Rows
from attnrec_dist.data.fingerprint import Fingerprint, complete, confirm
from attnrec_dist.data.manifest import TABLES
from attnrec_dist.data.windows import basket_starts
from attnrec_dist.errors import DataError
from attnrec_dist.inspection.examples import PartOfExamples, inspect_examples

PARTS = ("training", "validation", "test")
MOST_BINS = 160  # of the time line
TOP = 5  # items that are named
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
BIN_SECONDS = [1, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 28 * _DAY, 91 * _DAY, 364 * _DAY]
BIN_PLACES = [base * 10**power for power in range(10) for base in (1, 2, 5)]


class Histogram:
    """How often each whole number occurs, exactly; memory: the different numbers."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, values: np.ndarray) -> None:
        numbers, counts = np.unique(values, return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self.counts[number] += count

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers, ascending, and how often each occurs. int64 [n] each."""
        pairs = np.array(sorted(self.counts.items()), np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def quantile(self, share: float) -> int:
        """The smallest number that this share of all are not above.

        >>> some = Histogram()
        >>> some.add(np.array([3, 1, 1, 9]))
        >>> some.quantile(0), some.quantile(0.5), some.quantile(0.75), some.quantile(1)
        (1, 1, 3, 9)
        """
        numbers, counts = self.sorted()
        up_to = np.cumsum(counts)
        return int(numbers[np.searchsorted(up_to, share * up_to[-1])])

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        return sum(number * count for number, count in self.counts.items()) / self.total


@dataclass
class Inspection:
    """The figures. Arrays with an axis of 3 are by part: training, validation, test."""

    data: DataSet
    lengths: Histogram = field(default_factory=Histogram)  # events a user
    train_lengths: Histogram = field(default_factory=Histogram)  # training events of a user who has any
    baskets: Histogram = field(default_factory=Histogram)  # events of one user at one time
    baskets_a_user: Histogram = field(default_factory=Histogram)
    events: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    users: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))  # with an event in the part
    repeats: int = 0  # events of an item that the user had before
    by_type: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))  # [event types, 3]
    bins: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # [n + 1] edges of the time line
    time_line: np.ndarray = field(default_factory=lambda: np.zeros((3, 0), np.int64))  # [3, n] events
    item_events: np.ndarray = field(default_factory=lambda: np.zeros((3, 0), np.int64))  # [3, V_all]
    top: list[str] = field(default_factory=list)  # titles, or ids, of the most frequent items
    rows: int = 0
    first_time: int = np.iinfo(np.int64).max  # of all events, unix seconds
    last_time: int = np.iinfo(np.int64).min
    users_without_train_events: int = 0
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    examples: dict[str, PartOfExamples] = field(default_factory=dict)  # by part; empty where there are none

    @property
    def item_counts(self) -> np.ndarray:
        """[V_all] training events."""
        return self.item_events[0]

    @property
    def cold(self) -> np.ndarray:
        """[V_all] items without a training event: those outside the catalogue and, where the split is by user, some inside."""
        return self.item_counts == 0

    @property
    def cold_events(self) -> np.ndarray:
        """[3] events of such items."""
        return self.item_events[:, self.cold].sum(1)

    @property
    def has_baskets(self) -> bool:
        """Whether any user has several events at one time."""
        return self.baskets.quantile(1) > 1

    @property
    def share_of_baskets(self) -> float:
        """Of a user's moments, those with several events: in [0, 1]."""
        return 1 - self.baskets.counts[1] / self.baskets.total

    def share_of_top(self, share: float) -> float:
        """Share of the training events that fall on the most frequent items, this share of the catalogue (one at least)."""
        catalogue = self.item_counts[: self.data.manifest.num_items]
        return float(catalogue[: max(1, round(share * len(catalogue)))].sum() / catalogue.sum())


def inspect(data: DataSet) -> Inspection:
    """Scans the data set once. Raises DataError where it is not what its manifest and its format say."""
    manifest = data.manifest
    found = Inspection(
        data,
        by_type=np.zeros((len(manifest.event_types), 3), np.int64),
        bins=bins(manifest.start_time, manifest.end_time, BIN_PLACES if manifest.times_are_places else BIN_SECONDS),
        item_events=np.zeros((3, manifest.num_all_items), np.int64),
    )
    found.time_line = np.zeros((3, len(found.bins) - 1), np.int64)
    for rows in data.scan():
        row = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
        place = np.arange(len(row)) - rows.offsets[row]
        part = (place >= rows.train_end[row]).astype(np.int64) + (place >= rows.valid_end[row])  # [T]
        check_rows(data, rows, row, part)
        _count(found, rows, row, part)
        found.fingerprint.add_rows(rows)
    _count_items(found)
    _check_totals(found)
    found.examples = inspect_examples(data, found.cold)
    confirm(data, complete(found.fingerprint, data))
    return found


def bins(start: int, end: int, widths: Iterable[int]) -> np.ndarray:
    """Edges of equal bins, of the smallest of these widths that needs at most MOST_BINS of them, from `start` to beyond `end`."""
    widths = list(widths)
    width = next((width for width in widths if end // width - start // width < MOST_BINS), None)
    if width is None:
        width = -(-(end - start + 1) // (MOST_BINS - 1) // widths[-1]) * widths[-1] + widths[-1]
    return np.arange(start // width, end // width + 2) * width


def check_rows(data: DataSet, rows: Rows, row: np.ndarray, part: np.ndarray) -> None:
    """What docs/data-format.md promises of a row. `row`, `part` [T]: whose a token is, and in which part."""
    manifest = data.manifest
    lengths = np.diff(rows.offsets)
    bounds = (lengths > 0) & (rows.train_end >= 0) & (rows.train_end <= rows.valid_end) & (rows.valid_end <= lengths)
    _refuse(data, rows, ~bounds, "its parts do not fit its events")
    fits = (rows.items >= 0) & (rows.items < np.where(part == 0, manifest.num_items, manifest.num_all_items))
    _refuse(data, rows, row[~fits], "an item that the catalogue does not have")
    later = (row[1:] == row[:-1]) & (rows.times[1:] < rows.times[:-1])
    _refuse(data, rows, row[1:][later], "its times are not in order")
    inside = (rows.times >= manifest.start_time) & (rows.times <= manifest.end_time)
    _refuse(data, rows, row[~inside], "a time outside the manifest's start_time and end_time")
    known = (rows.events >= 0) & (rows.events < max(1, len(manifest.event_types)))
    _refuse(data, rows, row[~known], "an event type that the manifest does not name")
    if manifest.split.train_end is not None and manifest.split.valid_end is not None:
        by_time = (rows.times >= manifest.split.train_end).astype(np.int64) + (rows.times >= manifest.split.valid_end)
        _refuse(data, rows, row[by_time != part], "an event on the wrong side of a cut")
    for name, values in rows.numeric.items():
        _refuse(data, rows, row[~np.isfinite(values)], f"a number of {name} that is not finite")


def _refuse(data: DataSet, rows: Rows, bad: np.ndarray, what: str) -> None:
    """Raises DataError when any row is bad: bool [B], or the numbers of bad rows in the batch."""
    where = np.flatnonzero(bad) if bad.dtype == bool else bad
    if len(where):
        raise DataError(f"{data.path}: row {rows.users[where[0]]:,} is damaged: {what}; prepare the data set again")


def _count(found: Inspection, rows: Rows, row: np.ndarray, part: np.ndarray) -> None:
    lengths = np.diff(rows.offsets)
    found.rows += len(rows)
    found.first_time = min(found.first_time, int(rows.times.min()))
    found.last_time = max(found.last_time, int(rows.times.max()))
    found.lengths.add(lengths)
    found.train_lengths.add(rows.train_end[rows.train_end > 0])
    found.users_without_train_events += int((rows.train_end == 0).sum())
    ends = (np.zeros_like(lengths), rows.train_end, rows.valid_end, lengths)
    found.users += np.array([(later > earlier).sum() for earlier, later in pairwise(ends)])
    found.events += np.bincount(part, minlength=3)

    starts = np.flatnonzero(basket_starts(rows.times, row, "time"))
    found.baskets.add(np.diff(np.append(starts, len(row))))
    found.baskets_a_user.add(np.bincount(row[starts], minlength=len(rows)))

    had = np.unique(row * found.data.manifest.num_all_items + rows.items)
    found.repeats += len(row) - len(had)
    if len(found.by_type):
        codes = rows.events.astype(np.int64) * 3 + part
        found.by_type += np.bincount(codes, minlength=found.by_type.size).reshape(found.by_type.shape)
    width = found.bins[1] - found.bins[0]
    at = rows.times // width - found.bins[0] // width
    place = part * found.time_line.shape[1] + at
    found.time_line += np.bincount(place, minlength=found.time_line.size).reshape(found.time_line.shape)
    places, counts = np.unique(part * found.item_events.shape[1] + rows.items, return_counts=True)
    found.item_events.reshape(-1)[places] += counts


def _count_items(found: Inspection) -> None:
    """Compares the items' counts with items.parquet, and reads the names of the most frequent."""
    file = found.data.path / TABLES[0]
    if not np.array_equal(found.data.items()["count"].to_numpy(), found.item_counts):
        raise DataError(f"{file}: its counts are not those of the sequences; prepare the data set again")
    for name, table in zip(TABLES, (found.data.items(), found.data.users())):
        if not np.array_equal(table["index"].to_numpy(), np.arange(len(table))):
            raise DataError(f"{found.data.path / name}: its rows are not in the order of their index; prepare the data set again")
    top = np.arange(min(TOP, found.data.manifest.num_items))
    titles = found.data.titles(top)
    found.top = [title or name for title, name in zip(titles, found.data.item_ids(top), strict=True)]


def _check_totals(found: Inspection) -> None:
    """What the manifest says of the whole, against what was counted."""
    manifest = found.data.manifest
    names = ("rows", "events", "train_events", "validation_events", "test_events", "users_without_train_events")
    actual = (found.rows, int(found.events.sum()), *found.events.tolist(), found.users_without_train_events)
    said = {name: (count, getattr(manifest.counts, name)) for name, count in zip(names, actual, strict=True)}
    said |= {"events kept": (said["events"][0], manifest.cleaning.get("events kept", said["events"][0]))}
    said |= {"as start_time": (found.first_time, manifest.start_time), "as end_time": (found.last_time, manifest.end_time)}
    if manifest.split.kind == "time":
        said |= {"catalogue items": (int((found.item_counts > 0).sum()), manifest.num_items)}
    for name, (count, told) in said.items():
        if count != told:
            raise DataError(
                f"{found.data.path}: the sequences hold {count:,} {name}, the manifest says {told:,}; prepare the data set again"
            )
