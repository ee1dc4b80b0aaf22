"""The best items for customers of the data set, or for fresh histories: from Python, and as the rows of a file.

Known customers are served with all their events, whatever part they are in. Customers without any known event get the
trend (what all had in the last days of the log) and are marked so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from attnrec_dist.batch import SequenceBatch
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import forecast_batch
from attnrec_dist.data.windows import is_target, target_codes
from attnrec_dist.errors import ConfigError
from attnrec_dist.inference.histories import (
    MICROSECONDS,
    CustomerHistories,
    event_codes,
    in_baskets,
    time_rule,
)
from attnrec_dist.inference.load import TrainedModel, load_model, scored
from attnrec_dist.inference.words import date, names
from attnrec_dist.models.base import Scored
from attnrec_dist.ops.top_k import top_k
from attnrec_dist.recommendation.reasons import asked_at, reason
from attnrec_dist.terminal.layout import counted, paragraph
from attnrec_dist.times.read_times import read_times

CUSTOMERS_AT_ONCE = 256
SCORES_HELD = 2**24
DAY = 86_400
TREND_SECONDS = 14 * DAY
MODEL, TREND = "model", "trend"


@dataclass
class Recommendation:
    """One item of one customer's list."""

    rank: int
    item: str
    title: str | None
    score: float
    source: str  # "model" or, for customers without history, "trend"
    because: str = ""  # what the expert with the largest share has to say, where the model has experts
    shares: dict[str, float] = field(default_factory=dict)  # expert -> its part of the item's probability


@dataclass(repr=False)
class Recommender:
    """`load(RUN_DIR)`: a trained model that answers questions."""

    trained: TrainedModel
    _trend: list[np.ndarray] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Recommender of {self.trained}>"

    def recommend(
        self,
        history: Sequence[str] = (),
        top_k: int = 10,
        times: Sequence[Any] | None = None,
        events: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        new_only: bool = False,
    ) -> list[Recommendation]:
        """The best items after a history of raw item ids, oldest first.

        `times`, one an item, tell baskets apart: unix s, ms, us or ns by their size, datetimes (numpy's, pandas' too) or texts,
        read as the log's; places where the log had places. Without them every item is a basket of its own, a day after the
        one before, the last at the end of the log. `events` are the event types; without them all are of the first type that
        the model predicts. Items that the model does not know are left out; where none is left, the list is the trend. It is
        never longer than the catalogue. Raises ConfigError or InputError.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, Integral):
            raise ConfigError(f"top_k {top_k!r}: a whole number is needed")
        if top_k < 1:
            raise ConfigError(f"top_k {top_k}: at least 1 is needed")
        history, exclude = _texts("history", history, "item ids"), _texts("exclude", exclude, "item ids")
        events = events if events is None else _texts("events", events, "kinds of events")
        stamps = self._default_times(len(history)) if times is None else self._times(times)
        for name, count in (("times", len(stamps)), ("events", len(history) if events is None else len(events))):
            if count != len(history):
                raise ConfigError(f"{name} has {count} entries, history {len(history)}: give one for each item")
        items = self.trained.data.item_index(history)
        by_time = np.argsort(stamps, kind="stable")
        row = np.zeros(len(items), np.int64)
        codes = event_codes(events, len(items), self.trained.data, self.trained.config, "events")
        is_timed = times is not None
        stamps = in_baskets(stamps[by_time], row, self.trained.data.manifest.basket_gap if is_timed else None)
        columns, seconds = {"event": codes[by_time]}, stamps // MICROSECONDS
        histories = CustomerHistories(["the customer"], np.array([-1]), row, items[by_time], seconds, columns, is_timed)
        barred = self.known_items(exclude)
        lists = next(iter(self.lists(histories.known_only(self.num_items), int(top_k), barred, new_only)))
        return lists[0]

    def _default_times(self, count: int) -> np.ndarray:
        """Microseconds, int64 [count]: a day apart, the last at the end of the log; or places."""
        manifest = self.trained.data.manifest
        days = manifest.end_time - DAY * np.arange(count)[::-1]
        return (np.arange(count) if manifest.times_are_places else days) * MICROSECONDS

    def _times(self, times: Sequence[Any]) -> np.ndarray:
        listed = _listed(times)
        if listed is None:
            raise ConfigError(f"times: a list with a time for each item is needed; got {repr(times)[:100]}")
        return read_times(listed, time_rule(self.trained.data), "times")

    @property
    def num_items(self) -> int:
        return self.trained.data.manifest.num_items

    def known_items(self, ids: Sequence[str]) -> np.ndarray:
        """Indices of those ids that are in the catalogue, int64."""
        items = self.trained.data.item_index(list(ids))
        return items[(items >= 0) & (items < self.num_items)]

    def lists(
        self, histories: CustomerHistories, k: int, barred: np.ndarray, new_only: bool
    ) -> Iterator[list[list[Recommendation]]]:
        """Recommendations of each customer, in order, some customers at a time."""
        k = min(k, self.num_items)
        step = max(1, min(CUSTOMERS_AT_ONCE, SCORES_HELD // self.num_items))
        for first in range(0, len(histories.names), step):
            part = histories.part(first, first + step)
            has_history = np.bincount(part.row, minlength=len(part.names)) > 0
            batch = self._question(part, has_history) if has_history.any() else None
            answer = None if batch is None else scored(self.trained.model, batch, self.trained.device)
            scores, ids = self._best(part, answer, has_history, k, barred, new_only)
            lists = [self._list(scores[row], ids[row], bool(has_history[row])) for row in range(len(part.names))]
            if answer is not None:
                self._explain(part, answer, np.flatnonzero(has_history), ids, lists)
            yield lists

    def _question(self, part: CustomerHistories, has_history: np.ndarray) -> SequenceBatch:
        """The batch that asks for those customers who have a history, at the end of the log or of their own history."""
        place = np.cumsum(has_history) - 1  # rows of the batch are the customers with a history
        history = {"item": part.items, "time": part.times, **part.columns}
        now = np.full(int(has_history.sum()), self.trained.data.manifest.end_time + 1)
        np.maximum.at(now, place[part.row], part.times + 1)
        return forecast_batch(part.users[has_history], place[part.row], history, self.trained.config, now)

    def _best(
        self,
        part: CustomerHistories,
        answer: Scored | None,
        has_history: np.ndarray,
        k: int,
        barred: np.ndarray,
        new_only: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        count = len(part.names)
        trend = torch.from_numpy(self.trend())
        if answer is None:
            scores = trend.repeat(count, 1)
        elif has_history.all():
            scores = answer.scores.cpu()
        else:
            known = answer.scores.cpu()
            scores = trend.to(torch.promote_types(trend.dtype, known.dtype)).repeat(count, 1)
            scores[torch.from_numpy(has_history)] = known.to(scores.dtype)
        exclude_items = [np.tile(barred, count)]
        exclude_rows = [np.repeat(np.arange(count), len(barred))]
        if new_only:
            had = self._is_target(part)
            exclude_items.append(part.items[had])
            exclude_rows.append(part.row[had])
        exclude = tuple(torch.from_numpy(np.concatenate(each).astype(np.int64)) for each in (exclude_items, exclude_rows))
        best, ids = top_k(scores, k, exclude)  # type: ignore[arg-type]
        return best.numpy(), ids.numpy()

    def _explain(
        self, part: CustomerHistories, answer: Scored, rows: np.ndarray, ids: np.ndarray, lists: list[list[Recommendation]]
    ) -> None:
        """Tells each item's reasons, where the model consists of experts."""
        if answer.shares is None:
            return
        shares = answer.shares(torch.from_numpy(np.maximum(ids[rows], 0))).cpu().numpy()  # [P, k, K]
        for place, row in enumerate(rows):
            history = part.part(row, row + 1)
            for rank, told in enumerate(lists[row]):
                told.shares = dict(zip(answer.experts, shares[place, rank].tolist()))
                told.because = reason(told.shares, int(ids[row, rank]), history, self.trained.data)

    def _is_target(self, part: CustomerHistories) -> np.ndarray:
        return is_target(part.columns["event"], target_codes(self.trained.config, self.trained.data.manifest.event_types))

    def _list(self, scores: np.ndarray, ids: np.ndarray, has_history: bool) -> list[Recommendation]:
        data, kept = self.trained.data, ids[ids >= 0]
        names, titles = data.item_ids(kept), data.titles(kept)
        source = MODEL if has_history else TREND
        return [
            Recommendation(place + 1, name, title, float(value), source)
            for place, (name, title, value) in enumerate(zip(names, titles, scores))
        ]

    def trend(self) -> np.ndarray:
        """Share of each item among the events of the log's last 14 days, float32 [V]; read once."""
        if not self._trend:
            self._trend.append(recent_popularity(self.trained.data))
        return self._trend[0]


def recent_popularity(data: DataSet) -> np.ndarray:
    counts = np.zeros(data.manifest.num_items, np.int64)
    for rows in data.scan():
        recent = (rows.times > data.manifest.end_time - TREND_SECONDS) & (rows.items < len(counts))
        counts += np.bincount(rows.items[recent], minlength=len(counts))
    return (counts / max(1, counts.sum())).astype(np.float32)


def load(run_dir: str | Path, checkpoint: str = "best", data: str | None = None) -> Recommender:
    """The trained model of a run directory, ready to recommend."""
    return Recommender(load_model(Path(run_dir), checkpoint, data))


def _texts(name: str, given: Iterable[str], what: str) -> list[str]:
    """The texts as a list. Raises ConfigError for anything else, with what to write."""
    listed = _listed(given)
    wrong = [given] if listed is None else [each for each in listed if not isinstance(each, str)]
    if listed is None or wrong:
        is_nested = listed is not None and _listed(wrong[0]) is not None and name == "history"
        hint = "; baskets are told by times: equal ones are one basket" if is_nested else ""
        raise ConfigError(f"{name}: {what} are texts in a list, such as ['85123A', '71053']; got {repr(wrong[0])[:100]}{hint}")
    return listed


def _listed(given: Any) -> list[Any] | None:
    """The entries in their order; None of what has none: a text, a number, a set, a table."""
    if isinstance(given, str | bytes | Mapping | Set) or getattr(given, "ndim", 1) != 1:
        return None
    try:
        return list(given)
    except TypeError:
        return None


@dataclass
class Tally:
    """What was written, counted."""

    customers: int = 0
    on_trend: int = 0  # customers without any known event
    lengths: set[int] = field(default_factory=set)  # of the lists
    events: int = 0
    unknown_events: int = 0  # of items that the model does not know

    @classmethod
    def of(cls, histories: CustomerHistories, known: CustomerHistories, lists: list[list[Recommendation]]) -> Tally:
        return cls(
            len(lists),
            len(lists) - len(np.unique(known.row)),
            {len(each) for each in lists},
            len(histories.items),
            len(histories.items) - len(known.items),
        )

    def add(self, other: Tally) -> None:
        self.customers += other.customers
        self.on_trend += other.on_trend
        self.lengths |= other.lengths
        self.events += other.events
        self.unknown_events += other.unknown_events

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "lengths": sorted(self.lengths)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Tally:
        return cls(**{**told, "lengths": set(told["lengths"])})

    def __str__(self) -> str:
        """
        >>> print(Tally(customers=1, on_trend=1, lengths={10}, events=1, unknown_events=1))
        1 customer, 10 items; 1 without known history got the trend; 1 of 1 history item is unknown to the model
        """
        low, high = min(self.lengths, default=0), max(self.lengths, default=0)
        items = counted(high, "item") if low == high else f"{low} to {high} items"
        parts = [f"{counted(self.customers, 'customer')}, {items}{' each' if self.customers > 1 else ''}"]
        if self.on_trend:
            parts.append(f"{self.on_trend:,} without known history got the trend")
        if self.unknown_events:
            verb = "is" if self.unknown_events == 1 else "are"
            parts.append(f"{self.unknown_events:,} of {counted(self.events, 'history item')} {verb} unknown to the model")
        return "; ".join(parts)


SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "rank": pa.int32(),
        "item": pa.string(),
        "title": pa.string(),
        "score": pa.float32(),
        "source": pa.string(),
        "because": pa.string(),
        "shares": pa.map_(pa.string(), pa.float32()),
    }
)


def as_table(names: list[str], lists: list[list[Recommendation]]) -> pa.Table:
    """Rows of SCHEMA, one an item of a list."""
    rows = [
        (name, each.rank, each.item, each.title, each.score, each.source, each.because, list(each.shares.items()))
        for name, best in zip(names, lists)
        for each in best
    ]
    columns = list(zip(*rows)) if rows else [()] * len(SCHEMA)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA)], schema=SCHEMA)


def lists_of(rows: pa.Table, sizes: list[int]) -> list[list[Recommendation]]:
    """The first lists of a table of `as_table`, whose lengths are given."""
    told = [{key: value for key, value in row.items() if key != "user"} for row in rows.slice(0, sum(sizes)).to_pylist()]
    found = iter(Recommendation(**{**row, "shares": dict(row["shares"])}) for row in told)
    return [list(islice(found, size)) for size in sizes]


def described(name: str, history: CustomerHistories, data: DataSet, best: list[Recommendation]) -> str:
    """A customer's newest baskets and list, for reading."""
    has_places = data.manifest.times_are_places
    at = "" if has_places or not len(history.times) else f", on {date(asked_at(history, data), data.manifest)}"
    lines = ["\n" + paragraph(f"customer {name}{at}", "  ", "")]
    for time in np.unique(history.times)[-3:]:
        items = history.items[history.times == time]
        more = f" and {len(items) - 4} more" if len(items) > 4 else ""
        when = date(int(time), data.manifest)
        lines.append(paragraph(f"{', '.join(names(data, items[:4]))}{more}", " " * (len(when) + 4), f"  {when}  "))
    without = "without history: " + ("the most frequent" if has_places else "the most frequent of the log's last 14 days")
    for each in best:
        why = without if each.source == TREND else each.because
        told = f"{(each.title or '').strip() or each.item}{f' ({why})' if why else ''}"
        lines.append(paragraph(told, "     ", f"  {each.rank}. "))
    return "\n".join(lines)
