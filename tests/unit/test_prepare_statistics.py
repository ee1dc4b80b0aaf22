"""Daily counts and the item graph against plain Python, scipy, and planted future events."""

from __future__ import annotations

import collections
import itertools
import pickle
import random
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_helpers import contents, flip_byte, run, write_csv
from scipy import sparse

from attnrec_dist.data.shards import DataSet
from attnrec_dist.errors import ConfigError, DataError, InputError
from attnrec_dist.prepare import statistics

ROOT = Path(__file__).parents[2]
DAY = 86_400
ALL_TRAIN = {"train": 1, "validation": 0, "test": 0}


def daily_of(data: DataSet) -> list[list[tuple[int, int]]]:
    daily = data.daily()
    entries = list(zip(daily.days.tolist(), daily.counts.tolist(), strict=True))
    return [entries[lo:hi] for lo, hi in itertools.pairwise(daily.offsets.tolist())]


def graph_of(data: DataSet) -> list[list[tuple[int, np.float32, int]]]:
    graph = data.graph()
    entries = list(zip(graph.neighbours.tolist(), graph.weights.tolist(), graph.pairs.tolist(), strict=True))
    return [entries[lo:hi] for lo, hi in itertools.pairwise(graph.offsets.tolist())]


def plain_daily(data: DataSet, kinds: list[str] | None) -> list[list[tuple[int, int]]]:
    index = {name: place for place, name in enumerate(data.items()["id"].to_pylist())}
    counts = [collections.Counter() for _ in index]
    for *_, tokens in contents(data):
        for item, second, kind, *_ in tokens:
            if kinds is None or kind in kinds:
                counts[index[item]][second // DAY] += 1
    return [sorted(each.items()) for each in counts[: data.manifest.num_items]]


def plain_graph(data: DataSet, kinds: list[str] | None, rule: dict) -> tuple[list[list[tuple]], list[int]]:
    """Neighbours of each item with exact comparisons: a fraction's square instead of a rounded cosine."""
    index = {name: place for place, name in enumerate(data.items()["id"].to_pylist())}
    pairs, held = collections.Counter(), collections.Counter()
    for _, train_end, _, tokens in contents(data):
        own = [(index[item], second) for item, second, kind, *_ in tokens[:train_end] if kinds is None or kind in kinds]
        if rule["kind"] == "next":
            held.update(item for item, _ in own)
            for place, (item, _) in enumerate(own):
                pairs.update((item, other) for other, _ in own[place + 1 : place + 1 + rule["within"]] if other != item)
            continue
        for _, basket in itertools.groupby(own, key=lambda event: event[1]):
            items = {item for item, _ in basket}
            held.update(items)
            if len(items) <= rule["max_basket"]:
                pairs.update(itertools.permutations(items, 2))
    rows = [[] for _ in range(data.manifest.num_items)]
    for (item, other), together in pairs.items():
        closeness = Fraction(together * together, held[item] * held[other])
        weight = np.float32(together / np.sqrt(np.float64(held[item] * held[other])))
        rows[item].append((-closeness, other, float(weight), together))
    nearest = [[entry[1:] for entry in sorted(row)[: rule["neighbours"]]] for row in rows]
    return nearest, [held[item] for item in range(data.manifest.num_items)]


row = st.fixed_dictionaries(
    {
        "user": st.sampled_from("uvw"),
        "item": st.sampled_from("abcdefg"),
        "time": st.integers(-2, 6).map(lambda half_days: str(half_days * DAY // 2)),
        "event": st.sampled_from(["view", "buy"]),
    }
)
rules = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["basket", "next"]),
        "within": st.integers(1, 4),
        "neighbours": st.integers(1, 6),
        "max_basket": st.integers(2, 4),
    }
)
splits = st.sampled_from([ALL_TRAIN, {"train": 0.6, "validation": 0.2, "test": 0.2}, {"kind": "leave_one_out"}])


@settings(deadline=None, max_examples=40)
@given(st.lists(row, min_size=12, max_size=50), rules, st.sampled_from([None, ["buy"]]), splits, st.sampled_from([1, 7, 2**22]))
def test_equals_the_definition_in_plain_python(rows, rule, kinds, split, piece):
    before, statistics.PIECE = statistics.PIECE, piece
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = write_csv(Path(folder) / "log.csv", [*rows, {"user": "u", "item": "a", "time": "-99999", "event": "buy"}])
            sections = {"columns": {"event": "event"}, "split": split, "filters": {"drop_duplicates": False}}
            data = run([file], Path(folder) / "data", **sections, statistics={"events": kinds, "graph": rule})
            nearest, held = plain_graph(data, kinds, rule)
            assert graph_of(data) == nearest
            assert data.graph().baskets.tolist() == held
            assert daily_of(data) == plain_daily(data, kinds)
    finally:
        statistics.PIECE = before
