"""A data set held in lists, with the reading interface of shards.DataSet; and hypothesis strategies for small ones.

An event is (item, time, event code). Its place in its row travels along as the numeric column "place", so that a test can tell
which of two equal events it is looking at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import Rows
from attnrec_dist.data.manifest import Split

NUM_ITEMS = 6  # items 6 and 7 are cold: later parts show them, the training part never
EVENT_TYPES = ["view", "cart", "buy"]
Event = tuple[int, int, int]


@dataclass
class Row:
    events: list[Event]
    train_end: int
    valid_end: int


@dataclass
class FakeData:
    content: list[Row]
    train_end: int | None = None  # unix second of the cut, None for leave_one_out
    valid_end: int | None = None
    path: Path = field(default=Path("fake"))

    @property
    def num_rows(self) -> int:
        return len(self.content)

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(
            num_items=NUM_ITEMS,
            event_types=EVENT_TYPES,
            numeric=["place"],
            counts=SimpleNamespace(
                rows=len(self.content),
                train_events=sum(row.train_end for row in self.content),
                users_without_train_events=sum(row.train_end == 0 for row in self.content),
            ),
            statistics={},
            fingerprint="0123456789abcdef" * 4,
            split=Split(
                kind="leave_one_out" if self.train_end is None else "time", train_end=self.train_end, valid_end=self.valid_end
            ),
        )

    def rows(self, indices: np.ndarray, first: int | None = None) -> Rows:
        chosen = [self.content[int(index)] for index in indices]
        events = [event for row in chosen for event in row.events]
        items, times, codes = (np.array([event[part] for event in events], np.int64) for part in range(3))
        places = [place for row in chosen for place in range(len(row.events))]
        return Rows(
            users=np.array(indices, np.int64),
            train_end=np.array([row.train_end for row in chosen], np.int32),
            valid_end=np.array([row.valid_end for row in chosen], np.int32),
            offsets=np.cumsum([0] + [len(row.events) for row in chosen]).astype(np.int64),
            items=items.astype(np.int32),
            times=times,
            events=codes.astype(np.int8),
            numeric={"place": np.array(places, np.float32)},
            first=first,
        )

    def pieces(self, indices: np.ndarray, start: np.ndarray, stop: np.ndarray) -> dict[str, np.ndarray]:
        rows = self.rows(indices)
        spans = zip(rows.offsets[:-1] + start, rows.offsets[:-1] + stop, strict=True)
        token = np.array([place for first, last in spans for place in range(first, last)], np.int64)
        columns = {"items": rows.items, "times": rows.times, "events": rows.events, "numeric.place": rows.numeric["place"]}
        return {name: values[token] for name, values in columns.items()}

    def scan(self, batch_rows: int = 2):
        for first in range(0, self.num_rows, batch_rows):
            yield self.rows(np.arange(first, min(first + batch_rows, self.num_rows)), first)


def baskets_of(events: list[Event], basket: str) -> list[list[int]]:
    """Places of the events, basket by basket."""
    baskets: list[list[int]] = []
    for place, event in enumerate(events):
        if basket == "time" and baskets and events[place - 1][1] == event[1]:
            baskets[-1].append(place)
        else:
            baskets.append([place])
    return baskets


def codes_of(config: DataConfig) -> list[int]:
    return list(range(3)) if config.target_events is None else [EVENT_TYPES.index(name) for name in config.target_events]


@st.composite
def time_split(draw, max_rows: int = 5, max_events: int = 24) -> FakeData:
    """Rows cut at two moments that all share. Times are few, so baskets are large and ties many."""
    cuts = sorted(draw(st.tuples(st.integers(0, 14), st.integers(0, 14))))
    content = []
    for _ in range(draw(st.integers(1, max_rows))):
        times = sorted(draw(st.lists(st.integers(0, 14), max_size=max_events)))
        train_end, valid_end = (sum(time < cut for time in times) for cut in cuts)
        highest = [NUM_ITEMS - 1 if place < train_end else NUM_ITEMS + 1 for place in range(len(times))]
        items = [draw(st.integers(0, high)) for high in highest]
        codes = [draw(st.integers(0, 2)) for _ in times]
        content.append(Row(list(zip(items, times, codes, strict=True)), train_end, valid_end))
    return FakeData(content, *cuts)


@st.composite
def leave_one_out(draw, max_rows: int = 5, max_events: int = 12) -> FakeData:
    """Rows cut before their last and second last event, through baskets too."""
    content = []
    for _ in range(draw(st.integers(1, max_rows))):
        times = sorted(draw(st.lists(st.integers(0, 6), max_size=max_events)))
        events = [(draw(st.integers(0, NUM_ITEMS - 1)), time, draw(st.integers(0, 2))) for time in times]
        held_out = 2 if len(events) >= 3 else 0
        content.append(Row(events, len(events) - held_out, len(events) - (held_out > 0)))
    return FakeData(content)


@st.composite
def configs(draw) -> DataConfig:
    max_length = draw(st.integers(1, 12))
    targets = draw(st.sampled_from(["all", "all", "last", "prefixes"]))
    windows = draw(st.sampled_from(["all", "last"]))
    return DataConfig(
        path="fake",
        basket=draw(st.sampled_from(["time", "none"])),
        target_events=draw(st.sampled_from([None, ["buy"], ["view", "cart"], ["buy", "view"]])),
        max_length=max_length,
        windows=windows,
        targets=targets,
        empty_history=draw(st.booleans()) if (targets, windows) == ("prefixes", "all") else False,
        context=None if targets == "prefixes" else draw(st.none() | st.integers(0, max_length - 1)),
    )
