"""What is evaluated: views of histories up to a moment, and the items that came after it.

A view is one user's history up to its end, with the relevant items of one protocol or of both:
    period       the history up to the cut; all items of the user in the validation or test part
    next_basket  the history up to the user's first target basket after the cut; that basket's items
Where nothing lies between the cut and that basket (always, when every event is a target) one view serves both. A query
never sees an event of its target's time. Items without training events stay among the relevant ones: they are misses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from attnrec_dist.batch import SequenceBatch
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet, Rows
from attnrec_dist.data.gather import ranges
from attnrec_dist.data.pack import Histories, pack
from attnrec_dist.data.windows import basket_starts, is_target, target_codes

PROTOCOLS = ("next_basket", "period")
Part = Literal["validation", "test"]


@dataclass
class ViewBatch:
    """Some views with all that scoring and counting need."""

    config: DataConfig
    asked_at: np.ndarray  # int64 [B] unix seconds at which the forecast is asked for: not later than what came next
    views: np.ndarray  # int64 [B] numbers of the views
    users: np.ndarray  # int64 [B]
    history: dict[str, np.ndarray]  # "item", "time", "event", numeric columns: [S], whole histories, not only the model's window
    history_row: np.ndarray  # int64 [S] row in the batch
    history_is_target: np.ndarray  # bool [S] of a type that is predicted: what the user already has
    relevant: dict[str, tuple[np.ndarray, np.ndarray]]  # protocol -> (items [M], row [M] ascending), each item once a row

    def sequences(self) -> SequenceBatch:
        """The batch that asks a model for each view's forecast: one query a row, at the end of its history."""
        return forecast_batch(self.users, self.history_row, self.history, self.config, self.asked_at)


@dataclass
class Views:
    """The views of one part of a data set, in user order: of customers with a history, or of newcomers."""

    data: DataSet
    config: DataConfig
    part: Part
    rows: np.ndarray  # int64 [views] the user of each view
    ends: np.ndarray  # int64 [views] tokens of the history
    protocols: np.ndarray  # int8 [views] bit p: the view counts under PROTOCOLS[p]
    now: int  # unix seconds of the cut: what a recommender knows is older

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, first: int, stop: int) -> ViewBatch:
        """The views first, ..., stop - 1."""
        views = np.arange(first, min(stop, len(self)))
        rows = self.data.rows(self.rows[views])
        token, row = ranges(rows.offsets[:-1], self.ends[views])
        known = rows.items[token] < self.data.manifest.num_items
        token, row = token[known], row[known]
        columns = {"item": rows.items, "time": rows.times, "event": rows.events, **rows.numeric}
        history = {name: column[token] for name, column in columns.items()}
        codes = target_codes(self.config, self.data.manifest.event_types)
        return ViewBatch(
            config=self.config,
            asked_at=self._asked_at(history["time"], row, len(views)),
            views=views,
            users=rows.users,
            history=history,
            history_row=row,
            history_is_target=is_target(history["event"], codes),
            relevant={name: self._relevant(bit, rows, views, codes) for bit, name in enumerate(PROTOCOLS)},
        )

    def _asked_at(self, times: np.ndarray, row: np.ndarray, count: int) -> np.ndarray:
        """The cut; where a history reaches beyond it, or each customer has a cut of his own (leave_one_out), its newest event."""
        newest = np.full(count, 0 if self.data.manifest.split.is_by_user else self.now)
        np.maximum.at(newest, row, times)
        return newest

    def _relevant(self, bit: int, rows: Rows, views: np.ndarray, codes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        counts = (self.protocols[views] >> bit & 1).astype(bool)
        begins, ends = part_bounds(rows, self.part)
        token, row = ranges(rows.offsets[:-1] + begins, np.where(counts, ends - begins, 0))
        wanted = is_target(rows.events[token], codes)
        token, row = token[wanted], row[wanted]
        if PROTOCOLS[bit] == "next_basket" and len(row):
            first = np.searchsorted(row, row, side="left")  # the row's first target
            same = token == token[first] if self.config.basket == "none" else rows.times[token] == rows.times[token[first]]
            token, row = token[same], row[same]
        items = rows.items[token].astype(np.int64)
        span = 1 + items.max(initial=0)
        row, items = np.divmod(np.unique(row * span + items), span)
        return items, row


def part_bounds(rows: Rows, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Where a part of each row begins and ends, in tokens of the row. int64 [n] each."""
    lengths = np.diff(rows.offsets)
    if part == "validation":
        return rows.train_end.astype(np.int64), rows.valid_end.astype(np.int64)
    return rows.valid_end.astype(np.int64), lengths.astype(np.int64)


def find_views(data: DataSet, config: DataConfig, part: Part) -> tuple[Views, Views]:
    """The views with a history, and those of newcomers, whom no model can be asked about. One scan, in bounded memory."""
    codes = target_codes(config, data.manifest.event_types)
    found: list[tuple[np.ndarray, ...]] = []
    latest = 0
    for rows in data.scan():
        row, end, protocols = _views_of(rows, config, part, codes)
        known = np.append(0, np.cumsum(rows.items < data.manifest.num_items))
        has_history = known[rows.offsets[row] + end] > known[rows.offsets[row]]
        found.append(((rows.first or 0) + row, end, protocols.astype(np.int8), has_history))
        begins, _ = part_bounds(rows, part)
        before, _ = ranges(rows.offsets[:-1], begins)
        latest = max(latest, int(rows.times[before].max(initial=0)))
    split = data.manifest.split
    cut = split.train_end if part == "validation" else split.valid_end
    row, end, protocols, has_history = (np.concatenate(columns) for columns in zip(*found))
    customers, newcomers = (
        Views(data, config, part, row[chosen], end[chosen], protocols[chosen], latest + 1 if cut is None else cut)
        for chosen in (has_history, ~has_history)
    )
    return customers, newcomers


def has_known_target(views: Views) -> bool:
    """Whether any item that the views ask for is in the catalogue; where none is, every list scores 0."""
    return any(
        bool((items < views.data.manifest.num_items).any())
        for first in range(0, len(views), 1024)
        for items, _ in views.batch(first, first + 1024).relevant.values()
    )


def _views_of(rows: Rows, config: DataConfig, part: Part, codes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    begins, ends = part_bounds(rows, part)
    token, row = ranges(rows.offsets[:-1] + begins, ends - begins)
    wanted = is_target(rows.events[token], codes)
    viewed, first = np.unique(row[wanted], return_index=True)  # users with a target, and the first of it
    target = token[wanted][first]
    cut = rows.offsets[viewed] + begins[viewed]
    if config.basket == "time":  # nothing of the target's own time is known, not even when the cut runs through a basket
        all_rows = np.repeat(np.arange(len(rows.users)), np.diff(rows.offsets))
        start_of = np.maximum.accumulate(np.where(basket_starts(rows.times, all_rows, "time"), np.arange(len(rows.items)), 0))
        cut, target = start_of[cut], start_of[target]
    same = cut == target
    row_twice = np.concatenate([viewed, viewed[~same]])
    end = np.concatenate([cut, target[~same]]) - rows.offsets[row_twice]
    protocols = np.concatenate([np.where(same, 0b11, 0b10), np.full(int((~same).sum()), 0b01)])
    by_user = np.lexsort((protocols, row_twice))
    return row_twice[by_user], end[by_user], protocols[by_user]


def forecast_batch(
    users: np.ndarray, row: np.ndarray, history: dict[str, np.ndarray], config: DataConfig, now: int | np.ndarray
) -> SequenceBatch:
    """A batch that asks each row for what comes next: its last baskets that fit `max_length` tokens, one query at the end.

    `row` [S] ascending tells whose the tokens of `history` ("item", "time", "event", numeric columns: [S]) are; none is empty.
    """
    sizes = np.bincount(row, minlength=len(users))
    ends = np.cumsum(sizes)
    starts = np.flatnonzero(basket_starts(history["time"], row, config.basket))
    last_basket = starts[np.searchsorted(starts, ends - 1, side="right") - 1]
    fitting = np.searchsorted(starts, np.maximum(ends - config.max_length, ends - sizes))  # the first basket that fits, if any
    begin = np.minimum(starts[np.minimum(fitting, len(starts) - 1)], last_basket)
    begin = np.where(fitting < len(starts), begin, last_basket)
    token, _ = ranges(begin, ends - begin)
    pieces = Histories(
        sample_ids=np.arange(len(users)),
        users=users,
        sizes=ends - begin,
        inputs=ends - begin,
        first_query=np.zeros(len(users), np.int64),
        items=history["item"][token],
        times=history["time"][token],
        columns={name: column[token] for name, column in history.items() if name not in ("item", "time")},
        is_target=np.zeros(len(token), bool),
    )
    return pack(pieces, config.basket, config.max_length, query_times=np.broadcast_to(np.asarray(now), users.shape))


def known_events(views: Views) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """All events before the cut of items in the catalogue, in row order, piece by piece.

    Each piece is (row int64, item int32, time int64, running number of the (row, time) basket int64), [n] each.
    """
    baskets = 0
    for rows in views.data.scan():
        begins, _ = part_bounds(rows, views.part)
        token, row = ranges(rows.offsets[:-1], begins)
        known = rows.items[token] < views.data.manifest.num_items
        token, row = token[known], row[known]
        basket = baskets + np.cumsum(basket_starts(rows.times[token], row, "time")) - 1
        baskets = int(basket[-1]) + 1 if len(basket) else baskets
        yield (rows.first or 0) + row, rows.items[token], rows.times[token], basket
