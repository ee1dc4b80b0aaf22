"""The best items for customers of the data set, or for fresh histories: from Python, and to Parquet.

Known customers are served with all their events, whatever part they are in. Customers without any known event get the
trend (what all had in the last days of the log) and are marked so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from attnrec_dist.batch import SequenceBatch
from attnrec_dist.data.shards import DataSet
from attnrec_dist.data.views import forecast_batch
from attnrec_dist.data.windows import is_target, target_codes
from attnrec_dist.errors import ConfigError, StorageError
from attnrec_dist.inference.histories import CustomerHistories, event_codes, read_histories, read_lines, stored_histories
from attnrec_dist.inference.load import Answered, TrainedModel, answered, load_model
from attnrec_dist.inference.reasons import asked_at, reason
from attnrec_dist.inference.words import counted, names
from attnrec_dist.ops.top_k import top_k

CUSTOMERS_AT_ONCE = 256
SCORES_HELD = 2**24
DAY = 86_400
TREND_SECONDS = 14 * DAY
MODEL, TREND = "model", "trend"


@dataclass
class Request:
    """What `attnrec recommend` was asked for."""

    top_k: int = 10
    users: list[str] | None = None
    users_file: Path | None = None
    histories: Path | None = None
    exclude: Path | None = None
    new_only: bool = False
    checkpoint: str = "best"
    data: str | None = None
    show: int = 0


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


@dataclass
class Recommender:
    """`load(RUN_DIR)`: a trained model that answers questions."""

    trained: TrainedModel
    _trend: list[np.ndarray] = field(default_factory=list)

    def recommend(
        self,
        history: Sequence[str] = (),
        top_k: int = 10,
        times: Sequence[int] | None = None,
        events: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        new_only: bool = False,
    ) -> list[Recommendation]:
        """The best items after a history of raw item ids, oldest first.

        `times` (unix seconds, one an item) tell baskets apart; without them every item is a basket of its own, a day after the
        one before, the last at the end of the log. `events` are the event types; without them all are of the first type that
        the model predicts. Items that the model does not know are left out; where none is left, the list is the trend.
        """
        if top_k < 1:
            raise ConfigError(f"top_k {top_k}: at least 1 is needed")
        for name, ids in (("history", history), ("exclude", exclude)):
            _require_texts(name, ids)
        for name, given in (("times", times), ("events", events)):
            if given is not None and len(given) != len(history):
                raise ConfigError(f"{name} has {len(given)} entries, history {len(history)}: give one for each item")
        items = self.trained.data.item_index(list(history))
        daily = self.trained.data.manifest.end_time - DAY * np.arange(len(items))[::-1]
        stamps = daily if times is None else np.asarray(times, np.int64)
        by_time = np.argsort(stamps, kind="stable")
        row = np.zeros(len(items), np.int64)
        codes = event_codes(events, len(items), self.trained.data, self.trained.config, "events")
        columns = {"event": codes[by_time]}
        is_timed = times is not None
        histories = CustomerHistories(["the customer"], np.array([-1]), row, items[by_time], stamps[by_time], columns, is_timed)
        barred = self.known_items(exclude)
        lists = next(iter(self.lists(histories.known_only(self.num_items), top_k, barred, new_only)))
        return lists[0]

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
        step = max(1, min(CUSTOMERS_AT_ONCE, SCORES_HELD // self.num_items))
        for first in range(0, len(histories.names), step):
            part = histories.part(first, first + step)
            has_history = np.bincount(part.row, minlength=len(part.names)) > 0
            batch = self._question(part, has_history) if has_history.any() else None
            answer = None if batch is None else answered(self.trained.model, batch, self.trained.device)
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
        answer: Answered | None,
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
        self, part: CustomerHistories, answer: Answered, rows: np.ndarray, ids: np.ndarray, lists: list[list[Recommendation]]
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


def _require_texts(name: str, ids: Sequence[str]) -> None:
    wrong = [each for each in ids if not isinstance(each, str)]
    if isinstance(ids, str) or wrong:
        given = repr(ids if isinstance(ids, str) else wrong[0])
        raise ConfigError(f"{name}: item ids are texts in a list, such as ['85123A', '71053']; got {given}")


@dataclass
class Tally:
    """What was written, counted."""

    customers: int = 0
    on_trend: int = 0  # customers without any known event
    lengths: set[int] = field(default_factory=set)  # of the lists
    events: int = 0
    unknown_events: int = 0  # of items that the model does not know

    def add(self, histories: CustomerHistories, known: CustomerHistories, lists: list[list[Recommendation]]) -> None:
        self.customers += len(lists)
        self.on_trend += len(lists) - len(np.unique(known.row))
        self.lengths |= {len(each) for each in lists}
        self.events += len(histories.items)
        self.unknown_events += len(histories.items) - len(known.items)

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


def write_recommendations(run_dir: Path, output: Path, request: Request) -> None:
    """`attnrec recommend`: a Parquet file with user, rank, item, title, score and source; whole or absent.

    Lists that are to be shown go to stdout, what was assumed and counted to stderr.
    """
    if request.top_k < 1:
        raise ConfigError(f"--top_k {request.top_k}: at least 1 is needed")
    if output.is_dir():
        raise ConfigError(f"--output {output}: is a directory; name the Parquet file to write")
    recommender = load(run_dir, request.checkpoint, request.data)
    data = recommender.trained.data
    barred = recommender.known_items(read_lines(request.exclude, "--exclude") if request.exclude else [])
    partial = output.with_name(f".{output.name}.partial")
    schema = pa.schema(
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
    tally = Tally()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(partial, schema) as writer:
            for histories in wanted_histories(recommender.trained, request, say):
                known = histories.known_only(recommender.num_items)
                lists = [best for some in recommender.lists(known, request.top_k, barred, request.new_only) for best in some]
                writer.write_table(_as_table(known.names, lists, schema))
                for place in range(min(len(lists), request.show - tally.customers)):
                    print(described(known.names[place], known.part(place, place + 1), data, lists[place][:5]))
                tally.add(histories, known, lists)
        partial.replace(output)
    except OSError as error:
        raise StorageError.of(error, f"writing {output}") from None
    finally:
        partial.unlink(missing_ok=True)
    say(f"{output}: {tally}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def wanted_histories(trained: TrainedModel, request: Request, say: Callable[[str], None]) -> Iterable[CustomerHistories]:
    """The histories that were asked for, piece by piece."""
    users = request.users
    if request.users_file:
        users = (users or []) + read_lines(request.users_file, "--users_file")
    if request.histories:
        histories = read_histories(request.histories, trained.data, trained.config, say)
        return [histories if users is None else histories.of(users)]
    return stored_histories(trained.data, users)


def _as_table(names: list[str], lists: list[list[Recommendation]], schema: pa.Schema) -> pa.Table:
    rows = [
        (name, each.rank, each.item, each.title, each.score, each.source, each.because, list(each.shares.items()))
        for name, best in zip(names, lists)
        for each in best
    ]
    columns = list(zip(*rows)) if rows else [()] * len(schema)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema)], schema=schema)


def described(name: str, history: CustomerHistories, data: DataSet, best: list[Recommendation]) -> str:
    """A customer's newest baskets and list, for reading."""
    has_places = data.manifest.times_are_places
    at = "" if has_places or not len(history.times) else f", on {_date(asked_at(history, data))}"
    lines = [f"\ncustomer {name}{at}"]
    for time in np.unique(history.times)[-3:]:
        items = history.items[history.times == time]
        more = f" and {len(items) - 4} more" if len(items) > 4 else ""
        when = f"event {time + 1:,}" if has_places else _date(int(time))
        lines.append(f"  {when}  {', '.join(names(data, items[:4]))}{more}")
    without = "without history: " + ("the most frequent" if has_places else "the most frequent of the log's last 14 days")
    for each in best:
        why = without if each.source == TREND else each.because
        lines.append(f"  {each.rank}. {(each.title or '').strip() or each.item}{f' ({why})' if why else ''}")
    return "\n".join(lines)


def _date(second: int) -> str:
    return str(np.datetime64(second, "s").astype("datetime64[D]"))
