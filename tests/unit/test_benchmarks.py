"""The arithmetic of benchmarks/: published methods against their definitions in plain Python, tuning, tables."""

import json
import math
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from fake_data import NUM_ITEMS, FakeData, Row
from hypothesis import given, settings

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import find_views
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.errors import ConfigError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.settings import build

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import ablation
import beat_the_shop
import diginetica
import prepare_scale
import tuned_baselines
from next_basket_knn import Baskets, NextBasketKNN, frequency_vectors, nearest, recent_popularity

CUT = 1000
few = settings(deadline=None, max_examples=60)
histories = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=4), max_size=9)
shops = st.lists(st.tuples(histories, st.integers(0, NUM_ITEMS - 1)), min_size=1, max_size=6)


def events_of(history):
    """Sorted events (item, time) of a list of baskets, one a day."""
    return sorted(((item, 10 * day) for day, basket in enumerate(history) for item in basket), key=lambda event: event[::-1])


def baskets_of(history):
    events = np.array(events_of(history), np.int64).reshape(-1, 2)
    return Baskets.of((np.zeros(len(events), np.int64), events[:, 0], events[:, 1]), 1, NUM_ITEMS, "time")


def views_of(shop):
    """Test views of customers with a history before the cut and one purchase after it."""
    rows = [
        Row([*((item, time, 2) for item, time in events_of(history)), (wanted, CUT + 5, 2)], *2 * [sum(map(len, history))])
        for history, wanted in shop
    ]
    return find_views(FakeData(rows, CUT, CUT), DataConfig(path="fake"), "test")[0]


def vector_by_definition(history, groups, within, across):
    """Hu et al. with lists: the baskets dealt to groups, the newest groups the larger ones."""
    vector = [0.0] * NUM_ITEMS
    m = min(groups, len(history))
    parts = [list(part)[::-1] for part in np.array_split(np.arange(len(history))[::-1], m)][::-1] if m else []
    for g, part in enumerate(parts, 1):
        for i, basket in enumerate(part, 1):
            for item in set(history[basket]):
                vector[item] += across ** (m - g) / m * within ** (len(part) - i) / len(part)
    return np.array(vector)


@given(histories, st.integers(1, 5), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.sampled_from([0.3, 1.0]))
@few
def test_frequency_vectors_are_their_definition(history, groups, within, across):
    got = frequency_vectors(baskets_of(history), groups, within, across).toarray()[0]
    np.testing.assert_allclose(got, vector_by_definition(history, groups, within, across), atol=1e-12)


def popularity_by_definition(history, window):
    recent = history if window is None else history[-window:]
    return np.array([sum(item in basket for basket in recent) / max(len(recent), 1) for item in range(NUM_ITEMS)])


@given(histories, st.sampled_from([1, 3, 20, None]))
@few
def test_recent_popularity_is_its_definition(history, window):
    np.testing.assert_allclose(
        recent_popularity(baskets_of(history), window).toarray()[0], popularity_by_definition(history, window), atol=1e-12
    )


def scores(views, make):
    return make(NextBasketKNN(views))(views.batch(0, len(views))).numpy()


@given(shops, st.integers(1, 4), st.sampled_from([0.0, 0.4, 1.0]))
@few
def test_tifu_knn_mixes_in_the_nearest_others(shop, neighbours, own_share):
    views = views_of(shop)
    if not len(views):
        return
    got = scores(views, lambda knn: knn.tifu_knn(neighbours, 2, 0.9, 0.7, own_share))
    vectors = [vector_by_definition(history, 2, 0.9, 0.7) for history, _ in shop]
    for row, user in enumerate(views.rows):
        others = [other for other, (history, _) in enumerate(shop) if other != user and history]
        near = sorted(others, key=lambda other: (round(math.dist(vectors[user], vectors[other]) ** 2, 9), other))[:neighbours]
        mean = np.mean([vectors[other] for other in near], axis=0) if near else np.zeros(NUM_ITEMS)
        np.testing.assert_allclose(got[row], own_share * vectors[user] + (1 - own_share) * mean, atol=1e-9)


@given(shops, st.sampled_from([1, 3, None]), st.sampled_from([0, 0.3, 1]), st.sampled_from([1, 3]))
@few
def test_up_cf_weighs_all_customers_by_asymmetric_cosine(shop, window, asymmetry, locality):
    views = views_of(shop)
    if not len(views):
        return
    got = scores(views, lambda knn: knn.up_cf(window, asymmetry, locality))
    owned = [{item for basket in history for item in basket} for history, _ in shop]
    for row, user in enumerate(views.rows):
        total, weights = np.zeros(NUM_ITEMS), 0.0
        for other, (history, _) in enumerate(shop):
            if not history:
                continue
            size = len(owned[user]) ** asymmetry * len(owned[other]) ** (1 - asymmetry)
            # with oneself the paper's similarity is 1
            weight = (len(owned[user] & owned[other]) / size) ** locality
            total, weights = total + weight * popularity_by_definition(history, window), weights + weight
        np.testing.assert_allclose(got[row], (total / weights) ** (1 / locality), atol=1e-9)


@given(shops, st.integers(0, NUM_ITEMS - 1))
@few
def test_what_comes_after_the_cut_changes_nothing(shop, planted):
    views, other = views_of(shop), views_of([(history, planted) for history, _ in shop])
    for make in (lambda knn: knn.tifu_knn(2, 2, 0.9, 0.7, 0.5), lambda knn: knn.up_cf(3, 0.5, 2)):
        if len(views):
            assert np.array_equal(scores(views, make), scores(other, make))


def test_no_two_items_score_the_same():
    views = views_of([([[0], [1, 2]], 3), ([[2], [4]], 3)])
    for make in (lambda knn: knn.tifu_knn(2, 2, 1.0, 1.0, 0.5), lambda knn: knn.up_cf(None, 0.5, 2)):
        for row in scores(views, make):
            assert len(set(row.tolist())) == NUM_ITEMS
            assert row[3] > row[5]  # neither was ever bought: the lower index


def test_a_basket_without_times_is_an_event():
    events = np.zeros(3, np.int64), np.array([1, 1, 2]), np.array([5, 5, 5])
    assert Baskets.of(events, 1, NUM_ITEMS, "none").count.tolist() == [3]
    assert Baskets.of(events, 1, NUM_ITEMS, "time").count.tolist() == [1]


def test_the_nearest_are_never_the_absent():
    weights = nearest(np.array([[0.3, np.inf, 0.1, 0.3 - 1e-15], [np.inf, np.inf, np.inf, np.inf]]), 2).toarray()
    assert weights.tolist() == [[0.5, 0, 0.5, 0], [0, 0, 0, 0]]


GRID = {"a": [1, 2, 3, 4], "b": [None, 10, 20]}


def two_columns(cell):
    b = cell["b"] or 0
    return {"all": -abs(cell["a"] - 3) - abs(b - 10), "new": -cell["a"] - b, "nobody": math.nan}


@pytest.mark.parametrize(("cells", "start"), [(100, None), (3, None), (3, {"a": 4, "b": 20})])
def test_each_column_has_settings_of_its_own(monkeypatch, cells, start):
    monkeypatch.setattr(tuned_baselines, "MOST_CELLS", cells)
    best = tuned_baselines.tune(two_columns, GRID, start)
    assert best["all"]["settings"] == {"a": 3, "b": 10}
    assert best["new"]["settings"] == {"a": 1, "b": None}
    assert best["all"]["validation"] == 0


def test_no_settings_are_looked_at_twice(monkeypatch):
    looked = []
    monkeypatch.setattr(tuned_baselines, "MOST_CELLS", 3)
    tuned_baselines.tune(lambda cell: looked.append(str(cell)) or two_columns(cell), GRID)
    assert len(looked) == len(set(looked))


def test_climbing_goes_on_until_no_key_gains():
    ridge = lambda cell: -((cell["a"] - cell["b"]) ** 2) - 2 * (cell["b"] - 3) ** 2  # noqa: E731
    keys = {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}
    assert tuned_baselines.climb(ridge, keys, {"a": 0, "b": 0}) == {"a": 3, "b": 3}


def board(seeds, **baselines):
    """A board whose columns all hold the same values of some customers."""
    columns = lambda values: {cell: np.array(values, float) for cell in beat_the_shop.CELLS}  # noqa: E731
    customers = dict.fromkeys(beat_the_shop.COLUMNS, 40)
    return beat_the_shop.Board(
        "as trained",
        customers,
        {name: columns(values) for name, values in baselines.items()},
        {seed: columns(values) for seed, values in enumerate(seeds)},
    )


def test_the_model_meets_the_best_of_each_column():
    low, high = np.full(40, 0.2), np.full(40, 0.4)
    flips = np.tile([0.0, 1.0], 20)
    played = board([high + 0.1, high + 0.2, flips], weak=low, strong=high)
    cell, other = beat_the_shop.CELLS[0], beat_the_shop.CELLS[1]
    played.baselines["weak"][other] = np.full(40, 0.45)
    result = beat_the_shop.compared(played, "model")
    assert (result[cell]["baseline"], result[other]["baseline"]) == ("strong", "weak")
    assert result[cell]["difference"] == pytest.approx(0.4 / 3)
    assert result[cell]["ratio"] == pytest.approx((0.5 + 0.6 + 0.5) / 3 / 0.4)
    assert result[cell]["clear_seeds"] == 2  # half right at random is no proof
    played.baselines["weak, default"] = {each: np.full(40, 0.9) for each in beat_the_shop.CELLS}
    assert beat_the_shop.compared(played, "model") == result
    assert beat_the_shop.compared(played, "model", defaults=True)[cell]["baseline"] == "weak, default"
    means = beat_the_shop.over_seeds(played, cell)
    assert means == pytest.approx([0.5, 0.6, 0.5])
    assert beat_the_shop.spread(means) == pytest.approx(np.std([0.5, 0.6, 0.5], ddof=1))
    lines = beat_the_shop.table([played], "model")
    assert any(line.startswith("  strong") and "0.4000*" in line for line in lines)


def test_an_epoch_has_as_many_steps_as_the_engine_took(trained):
    config = load_run_config(trained.run / "config.yaml", {})
    last = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines() if '"epoch"' in line][-1]
    assert last["epoch"] == config.train.max_epochs
    assert beat_the_shop.steps_per_epoch(DataSet.open(trained.data), config) * config.train.max_epochs == last["step"]


def test_sessions_become_days_of_training_validation_and_questions():
    sessions = [["1", "2"], ["2", "1", "3"]] * 150
    rows = list(diginetica.log(sessions, [(["1"], "2"), (["3", "1"], "3")], 1.0, 7))
    day = [(start - diginetica.FIRST_DAY) // diginetica.DAY for _, start, _, _ in rows]
    assert day == [number // 2 for number in range(300)] + [150, 150]
    starts = [start for _, start, _, _ in rows]
    assert starts[:300] == sorted(set(starts[:300]))
    assert all((start + 70 * diginetica.SECONDS - diginetica.FIRST_DAY) // diginetica.DAY == d for start, d in zip(starts, day))
    assert [types for _, _, _, types in rows[284:288]] == [
        ["click"] * 2,
        ["click"] * 3,
        ["seen", "click"],
        ["seen", "seen", "click"],
    ]
    assert [row[2:] for row in rows[300:]] == [(["1", "2"], ["seen", "click"]), (["3", "1", "3"], ["seen", "seen", "click"])]


def test_a_share_is_the_newest_sessions_where_they_stand_in_the_whole():
    sessions = [["1", "2"]] * 300
    whole, newest = (list(diginetica.log(sessions, [(["1"], "2")], share, 0)) for share in (1.0, 0.1))
    assert newest == whole[270:]
    assert {kind for *_, kinds in newest[:-1] for kind in kinds} == {"click"}


def test_sessions_out_of_time_order_are_noticed():
    assert diginetica.numbered_by_appearance([["1", "2", "1"], ["3"]])
    assert not diginetica.numbered_by_appearance([["2", "1"]])


def test_sessions_are_written_a_click_a_line(tmp_path):
    path = tmp_path / "log.tsv.zst"
    assert diginetica.write([("s0", 100, ["4", "5"], ["click", "seen"])], path) == 2
    assert diginetica.lines(path) == ["session\titem\ttype\tts", "s0\t4\tclick\t100", "s0\t5\tseen\t110"]


def test_kinds_of_an_ablation():
    assert ablation.kinds_of(["a", "b", "c"]) == {
        "all": ["a", "b", "c"],
        "without a": ["b", "c"],
        "without b": ["a", "c"],
        "without c": ["a", "b"],
        "a alone": ["a"],
        "b alone": ["b"],
        "c alone": ["c"],
    }
    assert ablation.kinds_of(["a", "b"]) == {"all": ["a", "b"], "a alone": ["a"], "b alone": ["b"]}
    assert ablation.kinds_of(["a"]) == {"all": ["a"]}
    assert ablation.chosen_kinds(["a", "b", "c"], ["c+a", "without b"]) == {"c+a": ["c", "a"], "without b": ["a", "c"]}
    with pytest.raises(ConfigError, match="there is no 'a\\+x', 'without x'; known: all, without a,"):
        ablation.chosen_kinds(["a", "b", "c"], ["a+x", "without x"])


def test_an_ablation_compares_each_customers_mean_over_the_seeds():
    whole = np.array([0.5, 0.5, 0.1])
    told = ablation.figures([np.array([0.4, 0.6, 0.0]), np.array([0.6, 0.4, 0.0])], whole)
    assert (told["mean"], told["sd"]) == (pytest.approx(1 / 3), pytest.approx(0))
    assert told["difference"] == pytest.approx(-0.1 / 3)
    assert told["interval"][0] <= told["difference"] <= told["interval"][1] <= 0


def test_the_plain_pandas_script_keeps_what_prepare_keeps(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_scale, "WORKPLACE", tmp_path)
    monkeypatch.setattr(prepare_scale, "CHUNK", 7_000)
    log = prepare_scale.make_log(40_000)
    tree = {"input": {"files": f"{log}/*.parquet"}, **prepare_scale.CONFIG, "output": {"dir": "unused"}}
    manifest = prepare(build(PrepareConfig, tree, "test"), tmp_path, tmp_path / "data")
    prepare_scale.plain(log, tmp_path / "plain.parquet")
    kept = json.loads((tmp_path / "plain.json").read_text())
    assert kept.pop("items") == manifest.num_items > 100
    assert kept == {name: getattr(manifest.counts, name) for name in kept}
    reasons = {name for name, count in manifest.cleaning.items() if count}
    assert reasons >= {"missing user", "missing item", "unreadable timestamp", "bad number", "unknown event", "out of bounds"}
    assert manifest.cleaning["duplicate"] > 0
