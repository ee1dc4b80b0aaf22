"""Recommendations: from Python and by the command alike, for known, unknown and fresh customers; read piece by piece."""

from __future__ import annotations

import copy
import csv
import dataclasses
import datetime
import doctest
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import attnrec_dist
from attnrec_dist import load
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.inference import histories as histories_module
from attnrec_dist.inference.histories import read_histories, stored_histories
from attnrec_dist.inference.load import load_model
from attnrec_dist.recommendation import recommend as recommend_module


def rows_of(path) -> dict[str, list[dict]]:
    lists: dict[str, list[dict]] = defaultdict(list)
    for row in pq.read_table(path).to_pylist():
        lists[row["user"]].append(row)
    return dict(lists)


def log_of(shop) -> list[dict[str, str]]:
    with (shop.path / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def recommender(trained):
    return load(trained.run)


HISTORIES = {"a": ["item-1", "item-2", "item-5"], "b": ["item-3"], "c": ["item-7", "item-1", "unheard-of", "item-2"]}


def test_python_and_the_command_give_the_same_lists(trained, recommender, attnrec, tmp_path):
    lines = [f"{name},{item},{place}" for name, items in HISTORIES.items() for place, item in enumerate(items)]
    (tmp_path / "fresh.csv").write_text("\n".join(["user,item,timestamp", *reversed(lines)]) + "\n")
    done = attnrec("recommend", trained.run, "--output", tmp_path / "out.parquet", "--histories", tmp_path / "fresh.csv")
    assert done.code == 0, done.err
    lists = rows_of(tmp_path / "out.parquet")
    assert lists.keys() == HISTORIES.keys()
    for name, items in HISTORIES.items():
        own = recommender.recommend(history=items)
        assert [(row["rank"], row["item"], row["title"], row["source"]) for row in lists[name]] == [
            (each.rank, each.item, each.title, "model") for each in own
        ]
        assert np.allclose([row["score"] for row in lists[name]], [each.score for each in own], rtol=1e-5, atol=1e-6)
        assert [each.rank for each in own] == list(range(1, 11))
        assert own[0].title == f"Thing, no. {own[0].item.removeprefix('item-')}"
        scores = [each.score for each in own]
        assert scores == sorted(scores, reverse=True)


def test_every_customer_of_the_data_set_gets_a_list(trained, attnrec, tmp_path):
    done = attnrec("recommend", trained.run, "--output", tmp_path / "out.parquet", "--top_k", 4, "--show", 2)
    assert done.code == 0, done.err
    assert done.out.count("\ncustomer u") == 2
    lists = rows_of(tmp_path / "out.parquet")
    assert list(lists) == DataSet.open(trained.data).users()["id"].to_pylist()
    assert {len(rows) for rows in lists.values()} == {4}
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_a_known_customer_is_served_with_all_their_events(trained, recommender, attnrec, tmp_path):
    known = {name for name, count in Counter(row["user"] for row in log_of(trained)).items() if count > 3}
    user = sorted(known)[0]
    warm = set(recommender.trained.data.items()["id"].to_pylist()[: recommender.num_items])
    log = log_of(trained)
    own = sorted((int(row["time"]), row["item"], row["kind"]) for row in log if row["user"] == user and row["item"] in warm)
    done = attnrec("recommend", trained.run, "--output", tmp_path / "out.parquet", "--users", user)
    assert done.code == 0, done.err
    times, items, kinds = zip(*own, strict=True)
    expected = recommender.recommend(items, times=times, events=kinds)
    assert [row["item"] for row in rows_of(tmp_path / "out.parquet")[user]] == [each.item for each in expected]


def test_unknown_customers_get_the_trend_and_are_marked(trained, recommender, attnrec, tmp_path):
    log = log_of(trained)
    warm = set(recommender.trained.data.items()["id"].to_pylist()[: recommender.num_items])
    newest = max(int(row["time"]) for row in log)
    counts = Counter(row["item"] for row in log if int(row["time"]) > newest - 14 * 86_400 and row["item"] in warm)
    (tmp_path / "users.txt").write_text("nobody\n\nu1\n")
    options = ["--users", "stranger", "--users_file", tmp_path / "users.txt", "--top_k", 5]
    done = attnrec("recommend", trained.run, "--output", tmp_path / "out.parquet", *options)
    assert done.code == 0, done.err
    lists = rows_of(tmp_path / "out.parquet")
    assert list(lists) == ["stranger", "nobody", "u1"]
    for name in ("stranger", "nobody"):
        assert {row["source"] for row in lists[name]} == {"trend"}
        assert [counts[row["item"]] for row in lists[name]] == sorted(counts.values(), reverse=True)[:5]
    assert {row["source"] for row in lists["u1"]} == {"model"}
    assert [each.item for each in recommender.recommend([], top_k=5)] == [row["item"] for row in lists["nobody"]]
    assert recommender.recommend(["unheard-of"], top_k=5) == recommender.recommend([], top_k=5)


def test_the_excluded_and_the_bought_stay_out(trained, recommender, attnrec, tmp_path):
    everything = recommender.recommend(["item-1", "item-2"], top_k=10)
    barred = [each.item for each in everything[:3]]
    left = recommender.recommend(["item-1", "item-2"], top_k=7, exclude=[*barred, "unheard-of"])
    assert [each.item for each in left] == [each.item for each in everything[3:]]
    new = recommender.recommend(["item-1", "item-2"], top_k=100, new_only=True)
    assert {"item-1", "item-2"}.isdisjoint(each.item for each in new)
    assert len(new) == recommender.num_items - 2

    (tmp_path / "exclude.txt").write_text("\n".join(barred))
    options = ["--exclude", tmp_path / "exclude.txt", "--new_only", "--top_k", 100]
    done = attnrec("recommend", trained.run, "--output", tmp_path / "out.parquet", *options)
    assert done.code == 0, done.err
    bought = {(row["user"], row["item"]) for row in log_of(trained)}
    for user, rows in rows_of(tmp_path / "out.parquet").items():
        items = [row["item"] for row in rows]
        assert set(items).isdisjoint(barred)
        assert not bought & {(user, item) for item in items}
        assert len(set(items)) == len(items)


def test_more_than_the_catalogue_is_the_catalogue(recommender):
    everything = recommender.recommend(["item-1"], top_k=10_000)
    assert sorted(each.item for each in everything) == sorted(
        recommender.trained.data.items()["id"].to_pylist()[: recommender.num_items]
    )


def test_times_tell_baskets_apart_and_may_come_in_any_order(recommender):
    one = recommender.recommend(["item-1", "item-2", "item-3"], times=[5, 5, 9])
    assert one == recommender.recommend(["item-3", "item-2", "item-1"], times=[9, 5, 5])
    with pytest.raises(ConfigError, match="times has 1 entries, history 2"):
        recommender.recommend(["item-1", "item-2"], times=[1])


def moments() -> list[datetime.datetime]:
    return [datetime.datetime(2020, 9, 13, 12, 26, 40) + datetime.timedelta(days=day) for day in (0, 0, 3)]


@pytest.mark.parametrize(
    "written",
    [
        lambda moment: int(moment.timestamp() * 1000),
        lambda moment: int(moment.timestamp()) * 10**9,
        lambda moment: moment.timestamp(),
        lambda moment: moment,
        lambda moment: moment.replace(tzinfo=None),
        lambda moment: moment.astimezone(datetime.timezone(datetime.timedelta(hours=5.5))),
        lambda moment: np.datetime64(moment.replace(tzinfo=None)),
        lambda moment: moment.isoformat(),
        lambda moment: f"{moment:%Y/%m/%d %H:%M:%S} UTC",
    ],
)
def test_times_may_be_written_as_in_a_log(recommender, attnrec, trained, tmp_path, written):
    """Milliseconds were taken for seconds, and all else was refused."""
    whole = [moment.replace(tzinfo=datetime.UTC) for moment in moments()]
    seconds, times = [int(moment.timestamp()) for moment in whole], [written(moment) for moment in whole]
    items = ["item-1", "item-2", "item-3"]
    expected = recommender.recommend(items, times=seconds)
    assert recommender.recommend(items, times=times) == expected
    assert (
        recommender.recommend(tuple(items), times=np.array(times) if not isinstance(times[0], datetime.datetime) else times)
        == expected
    )
    rows = [f"a,{item},{time}" for item, time in zip(items, times, strict=True)]
    (tmp_path / "fresh.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    data = recommender.trained.data
    assert read_histories(tmp_path / "fresh.csv", data, recommender.trained.config).times.tolist() == seconds


def of_another_log(recommender, **timestamp):
    """The recommender, as if its log had had other times."""
    data = copy.copy(recommender.trained.data)
    columns = {**data.manifest.config["columns"], "timestamp": {"name": "t", "unit": "auto", **timestamp}}
    data.manifest = data.manifest.model_copy(update={"config": {**data.manifest.config, "columns": columns}})
    return dataclasses.replace(recommender, trained=dataclasses.replace(recommender.trained, data=data))


def test_histories_are_read_as_their_log_was(recommender, tmp_path):
    """The log's format and time zone hold for them; its numbers may be of any unit."""
    (tmp_path / "fresh.csv").write_text("user,item,timestamp\na,x,13/09/2020 17:56\na,y,2020-09-13T12:27:00Z\na,z,1600000080\n")
    trained = of_another_log(recommender, format="%d/%m/%Y %H:%M", time_zone="Asia/Kolkata").trained
    times = read_histories(tmp_path / "fresh.csv", trained.data, trained.config).times
    assert times.tolist() == [1599999960, 1600000020, 1600000080]


def test_where_the_log_had_places_histories_have_places(recommender):
    placed, items = of_another_log(recommender, unit="place"), ["item-1", "item-2", "item-3"]
    assert placed._default_times(3).tolist() == [0, 10**6, 2 * 10**6]
    assert placed.recommend(items) == placed.recommend(items, times=[0, 1, 2]) == placed.recommend(items[::-1], times=[2, 1, 0])
    with pytest.raises(InputError, match="the log has no times but the places of events"):
        placed.recommend(items, times=["2020-01-01"] * 3)


def test_events_of_an_unnamed_type_are_of_the_type_that_is_predicted(recommender):
    def scores(**keys) -> list[float]:
        return [each.score for each in recommender.recommend(["item-1", "item-2"], **keys)]

    assert scores() == scores(events=["view", "view"]) != scores(events=["buy", "buy"])
    config = recommender.trained.config.model_copy(update={"target_events": ["buy"]})
    buyers = dataclasses.replace(recommender, trained=dataclasses.replace(recommender.trained, config=config))
    assert [each.score for each in buyers.recommend(["item-1", "item-2"])] == scores(events=["buy", "buy"])
    with pytest.raises(InputError, match="events holds sell; the data set knows view, buy"):
        scores(events=["sell", "buy"])


def test_histories_are_read_piece_by_piece(trained, monkeypatch):
    data = DataSet.open(trained.data)
    monkeypatch.setattr(histories_module, "CUSTOMERS_READ", 7)
    asked: list[int] = []
    original = DataSet.rows
    monkeypatch.setattr(DataSet, "rows", lambda self, indices: asked.append(len(indices)) or original(self, indices))
    names = data.users()["id"].to_pylist()
    for wanted in (None, ["stranger", *names[::-1]]):
        asked.clear()
        pieces = [piece.known_only(data.manifest.num_items) for piece in stored_histories(data, wanted)]
        assert max(asked) <= 7
        assert [name for piece in pieces for name in piece.names] == (wanted or names)
        found = [
            (piece.names[row], data.item_ids(np.array([item]))[0], int(time))
            for piece in pieces
            for row, item, time in zip(piece.row, piece.items, piece.times, strict=True)
        ]
        warm = set(data.items()["id"].to_pylist()[: data.manifest.num_items])
        expected = [(row["user"], row["item"], int(row["time"])) for row in log_of(trained) if row["item"] in warm]
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user,item\na,b\n", "lacks the column timestamp; it has user, item"),
        ("user,item,timestamp,evnt\na,b,1,buy\n", "column 'evnt' is unknown; did you mean event?"),
        ("user,item,Time_stamp\na,b,1\n", "column 'Time_stamp' is unknown; did you mean timestamp?"),
        ("user,item,timestamp\na,b,yesterday\n", "column timestamp must hold unix seconds"),
        ("user,item,timestamp\na,b,\nb,c,3\n", "rows without a user or a timestamp"),
        ("user,item,timestamp,event\na,b,1,sell\n", "column event holds sell; the data set knows view, buy"),
        ("", "cannot be read"),
        ("user,user,item,timestamp\na,b,c,1\n", "'user' names more than one column; rename or remove all but one"),
        ("user,item,timestamp,x,x\na,b,1,2,3\n", "'x' names more than one column"),
        ("user,item,timestamp\n,b,1\n", "rows without a user or a timestamp"),
        ("user,item,timestamp\na,b,31/03/2026\n", "no. 1 is '31/03/2026'; write unix seconds or ISO 8601"),
        ("user,item,timestamp\na,b,20260331\na,b,20260401\n", "found dates such as 20260301, no unix times"),
        ("user,item,timestamp\na,b,46082.5\n", "found Excel dates"),
    ],
)
def test_histories_that_cannot_be_used(trained, attnrec, tmp_path, content, message):
    (tmp_path / "fresh.csv").write_text(content)
    done = attnrec("recommend", trained.run, "--output", tmp_path / "out.parquet", "--histories", tmp_path / "fresh.csv")
    assert done.code == 2
    assert message in done.err
    assert str(tmp_path / "fresh.csv") in done.err
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("timestamp", [datetime.time(10, 0)], "column timestamp must hold unix seconds"),
        ("timestamp", [[1]], "column timestamp must hold unix seconds"),
        ("user", [["a"]], "column user must hold texts or numbers"),
        ("item", [b"\xff"], "column item must hold texts or numbers"),
        ("event", [["view"]], "column event must hold texts or numbers"),
    ],
)
def test_parquet_columns_of_other_types_are_named(trained, attnrec, tmp_path, name, values, message):
    columns = {"user": ["a"], "item": ["item-1"], "timestamp": [1], "event": ["view"], name: values}
    pq.write_table(pa.table(columns), tmp_path / "fresh.parquet")
    done = attnrec("recommend", trained.run, "--output", tmp_path / "out.parquet", "--histories", tmp_path / "fresh.parquet")
    assert done.code == 2
    assert f"{tmp_path / 'fresh.parquet'}: {message}" in done.err


def test_parquet_and_tabs_are_read_too(trained, recommender, attnrec, tmp_path):
    table = pa.table({"user": ["a", "a"], "item": ["item-1", "item-2"], "timestamp": [1, 2], "event": ["view", "buy"]})
    pq.write_table(table, tmp_path / "fresh.parquet")
    (tmp_path / "fresh.tsv").write_text("user\titem\ttimestamp\na\titem-1\t1\na\titem-2\t2\n")
    for name, events in (("fresh.parquet", ["view", "buy"]), ("fresh.tsv", None)):
        done = attnrec("recommend", trained.run, "--output", tmp_path / "o.parquet", "--histories", tmp_path / name)
        assert done.code == 0, done.err
        items = [row["item"] for row in rows_of(tmp_path / "o.parquet")["a"]]
        assert items == [each.item for each in recommender.recommend(["item-1", "item-2"], events=events)]


def test_what_was_assumed_and_counted_is_told(trained, recommender, attnrec, tmp_path):
    out, fresh = tmp_path / "o.parquet", tmp_path / "fresh.csv"
    fresh.write_text("user,item,timestamp,price\na,item-1,1,2\na,unheard-of,2,2\nb,unheard-of,3,2\n")
    done = attnrec("recommend", trained.run, "--output", out, "--histories", fresh, "--top_k", 10_000)
    assert done.out == ""
    assert done.err.splitlines() == [
        f"--top_k 10,000: the catalogue has {recommender.num_items} items, so no list is longer",
        f"{fresh}: not used: price",
        f"{fresh}: lacks the column event, so all rows count as view; add it (view, buy) if they are not",
        f"{out}: 2 customers, {recommender.num_items} items each; 1 without known history got the trend; "
        "2 of 3 history items are unknown to the model",
    ]
    fresh.write_text("user,item,timestamp,event\na,item-1,1,buy\n")
    done = attnrec("recommend", trained.run, "--output", out, "--histories", fresh, "--top_k", 3)
    assert done.err == f"{out}: 1 customer, 3 items\n"


def test_the_tally_reads_as_its_example():
    assert doctest.testmod(recommend_module).failed == 0


def test_python_refuses_what_the_command_refuses(recommender):
    with pytest.raises(ConfigError, match="top_k 0: at least 1 is needed"):
        recommender.recommend(["item-1"], top_k=0)
    unusable = (
        [1, 2],
        "item-1",
        [None],
        np.arange(3),
        [float("nan")],
        None,
        float("nan"),
        3,
        b"item-1",
        {"item-1"},
        {"item-1": 1},
        np.array("item-1"),
        np.array([["item-1"]]),
    )
    for wrong in unusable:
        with pytest.raises(ConfigError, match="history: item ids are texts in a list"):
            recommender.recommend(wrong)
    with pytest.raises(ConfigError, match="baskets are told by times: equal ones are one basket"):
        recommender.recommend([["item-1", "item-2"], ["item-3"]])
    for wrong in (2.5, "3", None, True, float("nan")):
        with pytest.raises(ConfigError, match="a whole number is needed"):
            recommender.recommend(["item-1"], top_k=wrong)
    for wrong in ("buy", [None], [1]):
        with pytest.raises(ConfigError, match="events: kinds of events are texts in a list"):
            recommender.recommend(["item-1"], events=wrong)
    for wrong in (5, "5", np.array(5), np.array([[5]]), {5}):
        with pytest.raises(ConfigError, match="times: a list with a time for each item is needed"):
            recommender.recommend(["item-1"], times=wrong)
    for wrong in ([None], [float("nan")], [np.datetime64("NaT")], ["yesterday"], [True], [[1]], [10**22]):
        with pytest.raises(InputError, match=r"times: 1 of 1 is no time: no\. 1 is"):
            recommender.recommend(["item-1"], times=wrong)
    with pytest.raises(ConfigError, match="exclude: item ids are texts in a list"):
        recommender.recommend(["item-1"], exclude=[3])


@pytest.mark.parametrize("kind", [pa.int64(), pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("ns", "UTC")])
def test_parquet_times_of_any_unit_are_unix_seconds(trained, tmp_path, kind):
    seconds = pa.array([1_600_000_000, 1_600_000_060])
    stamps = seconds if kind == pa.int64() else seconds.cast(pa.timestamp("s")).cast(kind)
    pq.write_table(pa.table({"user": ["a", "a"], "item": ["item-1", "item-2"], "timestamp": stamps}), tmp_path / "fresh.parquet")
    model = load_model(trained.run)
    assert read_histories(tmp_path / "fresh.parquet", model.data, model.config).times.tolist() == seconds.to_pylist()


def test_chosen_customers_are_printed_without_a_file(trained, attnrec, tmp_path):
    done = attnrec("recommend", trained.run, "--users", "u1", "nobody", "--top_k", "7")
    assert done.code == 0, done.err
    assert done.out.count("customer ") == 2
    assert done.out.count("  7. ") == 2, "the whole list"
    assert "2 customers, 7 items each" in done.err
    for options in (["--show", "0"], ["--show", "1"]):
        assert attnrec("recommend", trained.run, "--users", "u1", "nobody", "--top_k", "7", *options).out == done.out
    filed = attnrec("recommend", trained.run, "--users", "u1", "nobody", "--output", tmp_path / "o.csv")
    assert filed.out == ""


def test_ids_to_exclude_that_nobody_knows_are_told(trained, attnrec, tmp_path):
    (tmp_path / "few").write_text("item-1\nitem_2\nITEM-3\nx\ny\n")
    done = attnrec("recommend", trained.run, "--users", "u1", "--exclude", tmp_path / "few")
    assert f"--exclude {tmp_path / 'few'}: 4 of 5 ids not in the data set: 'item_2', 'ITEM-3', 'x', ..." in done.err
    (tmp_path / "known").write_text("item-1\n")
    assert "not in the data set" not in attnrec("recommend", trained.run, "--users", "u1", "--exclude", tmp_path / "known").err


def test_a_loaded_model_is_shown_in_a_line_and_load_is_listed(trained, recommender):
    best = (trained.run / "best").resolve().name
    assert repr(recommender) == f"<Recommender of {trained.run}, sasrec, {best}, on {recommender.trained.device}>"
    assert "load" in dir(attnrec_dist)
    assert "__version__" in dir(attnrec_dist)


def test_the_readmes_python_runs_after_make_train(trained, capsys, monkeypatch, tmp_path):
    """On the tiny run, put where `make train` puts its own."""
    root = Path(__file__).parents[2]
    code = re.search(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)[1]
    run = re.search(r'load\("([^"]+)"\)', code)[1]
    makefile = (root / "Makefile").read_text()
    made = re.search(r"^RUN := (.*)$", makefile, re.MULTILINE)[1]
    assert run.replace(made, "$(RUN)") in re.findall(r"--(?:run_dir|output) (\S+)", makefile)
    (tmp_path / run).parent.mkdir(parents=True)
    (tmp_path / run).symlink_to(trained.run)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "3", "4", "5"]
