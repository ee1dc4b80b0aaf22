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

from attnrec_dist.data.dataset import DataSet
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
        for item, second, kind in tokens:
            if kinds is None or kind in kinds:
                counts[index[item]][second // DAY] += 1
    return [sorted(each.items()) for each in counts[: data.manifest.num_items]]


def plain_graph(data: DataSet, kinds: list[str] | None, rule: dict) -> tuple[list[list[tuple]], list[int]]:
    """Neighbours of each item with exact comparisons: a fraction's square instead of a rounded cosine."""
    index = {name: place for place, name in enumerate(data.items()["id"].to_pylist())}
    pairs, held = collections.Counter(), collections.Counter()
    for _, train_end, _, tokens in contents(data):
        own = [(index[item], second) for item, second, kind in tokens[:train_end] if kinds is None or kind in kinds]
        if rule["kind"] == "next":
            held.update(item for item, _ in own)
            for place, (item, _) in enumerate(own):
                pairs.update((item, other) for other, _ in own[place + 1 : place + 1 + rule["within"]] if other != item)
            continue
        for basket in (list(group) for _, group in itertools.groupby(own, key=lambda event: event[1])):
            items = {event[0] for event in basket}
            held.update(items)
            if len(items) <= rule["max_basket"]:
                pairs.update(itertools.permutations(items, 2))
    rows: list[list[tuple]] = [[] for _ in range(data.manifest.num_items)]
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
splits = st.sampled_from([ALL_TRAIN, {"train": 0.6, "validation": 0.2, "test": 0.2}, {"kind": "leave_one_out", "ties": "keep"}])


@settings(deadline=None, max_examples=25)
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


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> DataSet:
    """The bundled log."""
    from attnrec_dist.prepare.config import PrepareConfig
    from attnrec_dist.prepare.pipeline import prepare
    from attnrec_dist.settings import build, read_yaml

    file = ROOT / "configs" / "prepare" / "quickstart.yaml"
    output = tmp_path_factory.mktemp("quickstart") / "data"
    prepare(build(PrepareConfig, read_yaml(file), "quickstart"), file.parent, output)
    return DataSet.open(output)


def test_the_bundled_log_against_a_sparse_product(quickstart):
    (rows,) = quickstart.scan(10**6)
    place = np.arange(len(rows.items)) - np.repeat(rows.offsets[:-1], np.diff(rows.offsets))
    user = np.repeat(rows.users, np.diff(rows.offsets))
    training = place < np.repeat(rows.train_end, np.diff(rows.offsets))
    _, basket = np.unique(np.stack([user, rows.times])[:, training], axis=1, return_inverse=True)
    incidence = sparse.csr_array((np.ones(training.sum()), (basket.ravel(), rows.items[training])))
    incidence.data = np.minimum(incidence.data, 1)
    incidence.sum_duplicates()
    incidence.data[:] = 1
    together = (incidence.T @ incidence).toarray()
    held = together.diagonal().copy()
    np.fill_diagonal(together, 0)
    cosine = together / np.sqrt(np.outer(held, held))
    graph = quickstart.graph()
    row = np.repeat(np.arange(len(held)), np.diff(graph.offsets))
    assert graph.baskets.tolist() == held.tolist()
    assert graph.pairs.tolist() == together[row, graph.neighbours].tolist()
    np.testing.assert_allclose(graph.weights, cosine[row, graph.neighbours], rtol=1e-7)
    best = -np.sort(-cosine, axis=1)[:, :100]
    assert np.diff(graph.offsets).tolist() == (best > 0).sum(axis=1).tolist()
    np.testing.assert_allclose(graph.weights, best[best > 0], rtol=1e-6)  # in the same order: the highest, descending


def test_the_bundled_log_s_daily_counts_against_numpy(quickstart):
    (rows,) = quickstart.scan(10**6)
    known = rows.items < quickstart.manifest.num_items
    pairs, counts = np.unique(np.stack([rows.items, rows.times // DAY])[:, known], axis=1, return_counts=True)
    daily = quickstart.daily()
    assert np.repeat(np.arange(len(daily.offsets) - 1), np.diff(daily.offsets)).tolist() == pairs[0].tolist()
    assert daily.days.tolist() == pairs[1].tolist()
    assert daily.counts.tolist() == counts.tolist()


@pytest.fixture(scope="module")
def shop() -> list[dict[str, str]]:
    """Baskets of several items, with repeats, over a hundred days."""
    draw = random.Random(5)
    rows = []
    for _ in range(300):
        user, time = f"u{draw.randrange(40)}", str(1_600_000_000 + draw.randrange(100) * DAY + draw.randrange(3))
        for _ in range(draw.randrange(1, 9)):
            item = f"i{int(draw.paretovariate(0.7)) % 50}"
            rows.append({"user": user, "item": item, "time": time, "event": draw.choice(["view", "buy"])})
    return rows


CUTS = {"validation_from": "2020-11-20", "test_from": "2020-12-05"}
KINDS = ["basket", "next"]


@pytest.mark.parametrize("kind", KINDS)
def test_planted_future_events_change_nothing_before_them(shop, tmp_path, kind):
    sections = {"split": CUTS, "statistics": {"graph": {"kind": kind}}}
    one = run([write_csv(tmp_path / "one.csv", shop)], tmp_path / "one", **sections)
    cut = one.manifest.split.train_end
    planted = [{"user": f"u{k % 45}", "item": f"i{k % 7}", "time": str(cut + k // 9 * 7000)} for k in range(400)]
    two = run([write_csv(tmp_path / "two.csv", shop + planted)], tmp_path / "two", **sections)
    assert one.manifest.counts.train_events == two.manifest.counts.train_events
    assert graph_of(one) == graph_of(two)
    assert one.graph().baskets.tolist() == two.graph().baskets.tolist()
    assert sum(map(len, graph_of(one))) > 300
    before = [[[entry for entry in row if entry[0] < cut // DAY] for row in daily_of(data)] for data in (one, two)]
    assert before[0] == before[1]
    assert one.daily().counts.sum() + 300 < two.daily().counts.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_neither_files_nor_threads_nor_shards_nor_memory_nor_pieces_leave_a_trace(shop, tmp_path, kind, monkeypatch):
    sections = {"columns": {"event": "event"}, "statistics": {"graph": {"kind": kind, "neighbours": 5}}}
    one = run([write_csv(tmp_path / "log.csv", shop)], tmp_path / "one", **sections)
    mixed = random.Random(1).sample(shop, len(shop))
    halves = [write_csv(tmp_path / f"half{k}.csv", mixed[k::2]) for k in (0, 1)]
    variants = [
        (halves, {}, 2**22),
        (halves[::-1], {"engine": {"threads": 3, "memory_limit": "400MB"}}, 100),
        (halves, {"engine": {"threads": 2, "memory_limit": "60MB"}, "output": {"events_per_shard": 100}}, 1),
    ]
    for place, (files, change, piece) in enumerate(variants):
        monkeypatch.setattr(statistics, "PIECE", piece)
        two = run(files, tmp_path / str(place), **sections, **change)
        assert two.manifest.fingerprint == one.manifest.fingerprint
        assert [table.sha256 for table in two.manifest.tables[2:]] == [table.sha256 for table in one.manifest.tables[2:]]


@pytest.mark.parametrize("change", [{"graph": {"kind": "none"}}, {"graph": {"neighbours": 3}}, {"events": ["buy"]}])
def test_the_fingerprint_sees_the_statistics(shop, tmp_path, change):
    file = write_csv(tmp_path / "log.csv", shop)
    one = run([file], tmp_path / "one", columns={"event": "event"})
    two = run([file], tmp_path / "two", columns={"event": "event"}, statistics=change)
    assert contents(one) == contents(two)
    assert one.manifest.fingerprint != two.manifest.fingerprint


def test_events_of_one_second_but_not_of_one_microsecond_are_two_baskets(tmp_path):
    times = {"a": "1600000000.25", "b": "1600000000.25", "c": "1600000000.5"}
    rows = [{"user": "u", "item": item, "time": time} for item, time in times.items()]
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", split=ALL_TRAIN)
    assert [[entry[0] for entry in row] for row in graph_of(data)] == [[1], [0], []]


def test_equal_closeness_goes_by_index_though_the_rounded_cosines_differ(tmp_path):
    """1/sqrt(3) and 3/sqrt(27) are equal, their float64 quotients with a common basket count need not be."""
    rows = []
    held_by = {"x": 5, "p": 1, "q": 9}
    together = {"p": 1, "q": 3}
    baskets = itertools.count()
    for other, count in together.items():
        for _ in range(count):
            time = str(next(baskets) * DAY)
            rows += [{"user": "u", "item": item, "time": time} for item in ("x", other)]
    for item, wanted in held_by.items():
        missing = wanted - sum(row["item"] == item for row in rows)
        rows += [{"user": "u", "item": item, "time": str(next(baskets) * DAY)} for _ in range(missing)]
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", split=ALL_TRAIN)
    q, x, p = data.item_index(["q", "x", "p"]).tolist()
    assert (q, x, p) == (0, 1, 2)
    assert [entry[0] for entry in graph_of(data)[x]] == [q, p]


def test_big_baskets_are_told_and_their_pairs_left_out(tmp_path):
    rows = [{"user": "u", "item": item, "time": "5"} for item in "abcd"]
    rows += [{"user": "v", "item": item, "time": "5"} for item in "ab"]
    file = write_csv(tmp_path / "log.csv", rows)
    data = run([file], tmp_path / "data", split=ALL_TRAIN, statistics={"graph": {"max_basket": 3}})
    assert data.manifest.statistics["baskets over max_basket"] == 1
    assert graph_of(data) == [[(1, 0.5, 1)], [(0, 0.5, 1)], [], []]
    assert data.graph().baskets.tolist() == [2, 2, 1, 1]


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_items_without_a_pair(tmp_path, kind):
    file = write_csv(tmp_path / "log.csv", [{"user": user, "item": user, "time": "5"} for user in "abc"])
    data = run([file], tmp_path / "data", split=ALL_TRAIN, statistics={"graph": {"kind": kind}})
    assert (data.path / "graph.arrow").exists() == (kind != "none")
    if kind == "none":
        assert data.graph() is None
    else:
        assert data.graph().offsets.tolist() == [0, 0, 0, 0]
        assert data.graph().neighbours.dtype == np.int32
        assert data.graph().within == (3 if kind == "next" else 0)
    assert daily_of(data) == [[(0, 1)]] * 3


@pytest.mark.parametrize("name", ["daily.arrow", "graph.arrow"])
def test_a_flipped_byte(shop, tmp_path, name):
    data = run([write_csv(tmp_path / "log.csv", shop)], tmp_path / "data")
    flip_byte(data.path / name, (data.path / name).stat().st_size // 2)
    with pytest.raises(DataError, match=rf"{name}: damaged"):
        DataSet.open(data.path)


def test_the_views_are_mapped_and_read_only_and_a_copy_maps_them_again(shop, tmp_path):
    data = run([write_csv(tmp_path / "log.csv", shop)], tmp_path / "data")
    types = {
        "offsets": np.int64,
        "days": np.int32,
        "counts": np.int32,
        "neighbours": np.int32,
        "weights": np.float32,
        "pairs": np.int32,
        "baskets": np.int32,
    }
    before = pa.total_allocated_bytes()
    views = {**vars(data.daily()), **vars(data.graph())}
    assert pa.total_allocated_bytes() - before < 1000
    views.pop("within")
    assert {name: view.dtype for name, view in views.items()} == types
    assert not any(view.flags.writeable for view in views.values())
    assert data.graph() is data.graph()
    assert len(pickle.dumps(data)) < 10_000
    assert graph_of(pickle.loads(pickle.dumps(data))) == graph_of(data)


def test_a_graph_of_another_data_set_is_noticed(shop, tmp_path):
    one = run([write_csv(tmp_path / "log.csv", shop)], tmp_path / "one")
    two = run([write_csv(tmp_path / "less.csv", shop[:40])], tmp_path / "two")
    (two.path / "graph.arrow").write_bytes((one.path / "graph.arrow").read_bytes())
    with pytest.raises(DataError, match=r"graph\.arrow: damaged: .* rows"):
        two.graph()


def test_kinds_of_events_that_are_not_there(shop, tmp_path):
    file = write_csv(tmp_path / "log.csv", shop)
    for column, error in ((None, ConfigError), ({"name": "event", "types": ["view"]}, ConfigError), ("event", InputError)):
        with pytest.raises(error, match=r"statistics\.events"):
            run([file], tmp_path / "data", columns={"event": column}, statistics={"events": ["bought"]})


@pytest.mark.parametrize("rows", [5, 15, 199])
@pytest.mark.parametrize(("train", "validation"), [(0.8, 0.1), (0.7, 0.2)])
def test_without_validation_part_the_test_part_is_the_same(tmp_path, rows, train, validation):
    log = [{"user": f"u{k % 7}", "item": f"i{k % 5}", "time": str(k)} for k in range(rows)]
    file = write_csv(tmp_path / "log.csv", log)
    test = round(1 - train - validation, 3)
    usual = run([file], tmp_path / "usual", split={"train": train, "validation": validation, "test": test})
    refit = run([file], tmp_path / "refit", split={"train": round(1 - test, 3), "validation": 0, "test": test})
    split = refit.manifest.split
    assert split.train_end == split.valid_end == usual.manifest.split.valid_end
    assert refit.manifest.counts.validation_events == 0
    assert refit.manifest.counts.test_events == usual.manifest.counts.test_events > 0
    assert [row[2:] for row in contents(refit)] == [row[2:] for row in contents(usual)]
    assert all(train_end == valid_end for _, train_end, valid_end, _ in contents(refit))


def test_dates_without_validation_part(shop, tmp_path):
    dates = {"validation_from": "2020-12-05", "test_from": "2020-12-05"}
    data = run([write_csv(tmp_path / "log.csv", shop)], tmp_path / "data", split=dates)
    assert data.manifest.counts.validation_events == 0 < data.manifest.counts.test_events


BY_PAIRS = [
    {"user": user, "item": item, "time": str(day * DAY), "event": "buy"} for user in "uv" for day in range(9) for item in "ab"
]
ALONE = [{"user": user, "item": "ab"[n % 2], "time": str(n * DAY + 7), "event": "view"} for user in "uv" for n in range(12)]


@pytest.mark.parametrize(
    ("rows", "sections", "kind"),
    [
        (BY_PAIRS, {}, "basket"),
        (ALONE, {}, "next"),
        (BY_PAIRS + ALONE, {}, "basket"),  # 36 of 60
        (BY_PAIRS + 2 * ALONE, {"filters": {"drop_duplicates": True}}, "basket"),  # an item counts once a basket
        (BY_PAIRS, {"statistics": {"graph": {"max_basket": 2}}}, "basket"),
        (BY_PAIRS + ALONE, {"columns": {"event": "event"}, "statistics": {"events": ["view"]}}, "next"),
        (ALONE, {"columns": {"timestamp": {"name": "time", "unit": "place"}}, "split": {"kind": "leave_one_out"}}, "next"),
    ],
)
def test_the_graphs_kind_is_chosen_from_the_training_events_and_stored(tmp_path, rows, sections, kind):
    """The data set is the same, fingerprint and manifest, as if the kind had been named."""
    if "split" in sections:
        rows = [row | {"time": str(place)} for place, row in enumerate(ALONE[:12])]
    file = write_csv(tmp_path / "log.csv", rows)
    sections = {"split": ALL_TRAIN} | sections
    chosen = run([file], tmp_path / "chosen", **sections)
    assert chosen.manifest.config["statistics"]["graph"]["kind"] == kind
    graph = sections.get("statistics", {}).get("graph", {}) | {"kind": kind}
    named = run([file], tmp_path / "named", **sections | {"statistics": sections.get("statistics", {}) | {"graph": graph}})
    assert named.manifest.fingerprint == chosen.manifest.fingerprint
    assert named.manifest.config == chosen.manifest.config


def test_what_was_chosen_is_told_with_its_reason(tmp_path):
    from prepare_helpers import config_of

    from attnrec_dist.prepare.pipeline import prepare

    told: list[str] = []
    file = write_csv(tmp_path / "log.csv", BY_PAIRS + ALONE)
    prepare(config_of([file], split=ALL_TRAIN), Path("/"), tmp_path / "data", told.append)
    assert (
        "statistics.graph.kind: basket, as 36 of 60 training events stand in a basket of several items; basket from 50% on"
        in told
    )


def test_the_bundled_log_keeps_its_fingerprint(quickstart):
    assert quickstart.manifest.config["statistics"]["graph"]["kind"] == "basket"
    assert quickstart.manifest.fingerprint.startswith("e62904da7e1d3e32")
