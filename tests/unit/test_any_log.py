"""Whatever log prepare accepts, the flagship's own configuration trains, evaluates and recommends on it, or refuses in a line.

Each log goes the way of `make train`: the same YAML, only the data's path. It is cut to an epoch and to one small body, no more.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.inference.load import load_model

ROOT = Path(__file__).parent.parent.parent
FLAGSHIP = ROOT / "configs" / "quickstart-mixture.yaml"
QUICK = ["--train.max_epochs", 1, "--train.threads", 1, "--model.body.width", 8]
DAY, START = 86_400, 1_772_000_000
UNTRUE = re.compile(r"[Bb]ought|yesterday|trending|1970|\b0 days|\bnan\b")
WITHOUT_TEST = "nothing to evaluate"

Event = tuple[str, str, int, str]


def clicks(users: int = 12, items: int = 15, count: int = 200, kinds: tuple[str, ...] = ("view",), seed: int = 3) -> list[Event]:
    """Events at times of their own, over 60 days."""
    draw = random.Random(seed)
    times = draw.sample(range(START, START + 60 * DAY), count)
    return [(f"u{draw.randrange(users)}", f"i{int(items * draw.random() ** 2)}", time, draw.choice(kinds)) for time in times]


def baskets(size: int = 4, users: int = 8, items: int = 15) -> list[Event]:
    draw = random.Random(4)
    days = [(user, day) for user in range(users) for day in draw.sample(range(60), 5)]
    chosen = [(user, day, item) for user, day in days for item in draw.sample(range(items), size)]
    return [(f"u{user}", f"i{item}", START + day * DAY, "buy") for user, day, item in chosen]


@dataclass(frozen=True)
class Log:
    """Events, what its YAML says beside the columns, and what is expected of it."""

    events: list[Event]
    sections: dict = field(default_factory=dict)
    graph: str | None = "next"
    off: tuple[str, ...] = ()  # experts without weight
    notes: tuple[str, ...] = ()  # told before the first step
    has_test: bool = True
    has_kinds: bool = False


NO_VALIDATION = {"split": {"train": 0.9, "validation": 0, "test": 0.1}}
NO_TEST = {"split": {"train": 0.9, "validation": 0.1, "test": 0}}
LEAVE_ONE_OUT = {"split": {"kind": "leave_one_out"}}
PLACES = [(f"u{user}", f"i{random.Random(50 * user + place).randrange(9)}", place, "") for user in range(9) for place in range(9)]
COLD = [(f"u{n % 5}", f"new{n}", START + (80 + n) * DAY, "view") for n in range(50)]
DUMP = [("u1", f"i{n}", START + 5 * DAY, "view") for n in range(700)]
LOGS = {
    "clicks": Log(clicks()),
    "clicks, basket graph": Log(clicks(), {"statistics": {"graph": {"kind": "basket"}}}, "basket", ("graph",)),
    "clicks, no graph": Log(clicks(), {"statistics": {"graph": {"kind": "none"}}}, None, ("graph",), ("expert graph is off",)),
    "baskets": Log(baskets(), graph="basket"),
    "last baskets": Log(baskets(), {"split": {"kind": "leave_last_basket"}}, graph="basket"),
    "baskets twice": Log(2 * baskets(), {"filters": {"drop_duplicates": False}}, "basket"),
    "a basket of 700": Log(clicks() + DUMP),
    "baskets over max_basket": Log(baskets(), {"statistics": {"graph": {"max_basket": 3}}}, "basket", ("graph",)),
    "one user": Log(clicks(users=1)),
    "two users": Log(clicks(users=2, count=40)),
    "one item": Log(clicks(items=1), off=("graph",), notes=("the catalogue has one item",)),
    "each item once": Log(
        [(f"u{n % 6}", f"i{n}", START + n * 9_000, "view") for n in range(90)], notes=("no item that the validation part asks",)
    ),
    "views alone": Log(clicks(), {"columns": {"event": "kind"}}, has_kinds=True),
    "views and buys": Log(clicks(kinds=("view", "view", "buy")), {"columns": {"event": "kind"}}, has_kinds=True),
    "nothing counted": Log(
        clicks(),
        {"columns": {"event": {"name": "kind", "types": ["view", "buy"]}}, "statistics": {"events": ["buy"]}},
        "basket",
        ("trend", "graph"),
        ("expert trend is off, its weight is 0: the data set has no daily counts",),
        has_kinds=True,
    ),
    "validation empty": Log(clicks(), NO_VALIDATION, notes=("no validation: the validation part is empty",)),
    "test empty": Log(
        clicks(), {"split": {"train": 0.9, "validation": 0.1, "test": 0}}, notes=("test part is empty",), has_test=False
    ),
    "leave one out": Log(clicks(), LEAVE_ONE_OUT),
    "places": Log(PLACES, {"columns": {"timestamp": {"name": "time", "unit": "place"}}, **LEAVE_ONE_OUT}, notes=("no days",)),
    "cold later on": Log(clicks() + COLD, notes=("no item that the validation part asks",)),
    "newcomers later on": Log(
        [(f"u{n // 6}", f"i{random.Random(n).randrange(9)}", START + n * 3_000, "view") for n in range(180)],
        notes=("no validation: nobody with a history",),
        has_test=False,
    ),
    "a history of 5,000": Log(clicks() + [("long", f"i{n % 7}", START + n * 900, "view") for n in range(5_000)]),
    "one day": Log([(user, item, START + (time - START) // 90, kind) for user, item, time, kind in clicks()], notes=("one day",)),
    "mostly one event": Log(
        clicks(users=3, count=60) + [(f"v{n}", "i1", START + n * 9_000, "view") for n in range(90)], notes=("customers in the",)
    ),
}


def write_log(directory: Path, events: list[Event], sections: dict) -> Path:
    """The log and its prepare YAML."""
    with (directory / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "time", "kind"), *events])
    columns = {"user": "user", "item": "item", "timestamp": "time"} | sections.get("columns", {})
    rest = {"output": {"dir": "unused"}, "engine": {"memory_limit": "200MB", "threads": 1}}
    tree = {"input": {"files": "log.csv"}, **rest, **sections, "columns": columns}
    (directory / "prepare.yaml").write_text(yaml.safe_dump(tree))
    return directory / "prepare.yaml"


@pytest.mark.parametrize("name", LOGS)
def test_the_flagship_works_on_any_log(name, attnrec, tmp_path):
    log = LOGS[name]
    data, run = tmp_path / "data", tmp_path / "run"
    prepared = attnrec("prepare", write_log(tmp_path, log.events, log.sections), "--output", data)
    assert prepared.code == 0, prepared.err
    graph = DataSet.open(data).graph()
    assert (None if graph is None else "next" if graph.within else "basket") == log.graph
    trained = attnrec("train", FLAGSHIP, "--data", data, "--run_dir", run, *QUICK)
    assert trained.code == 0, trained.err
    notes = [line for line in trained.err.replace("\n  ", " ").splitlines() if line.startswith("note: ")]
    for expected in (*log.notes, *(f"expert {expert} is off, its weight is 0: " for expert in log.off)):
        assert any(expected in note for note in notes), notes
    assert log.notes or log.off or not notes, notes
    assert set(load_model(run).model.config.lacking(_spec(data))) == set(log.off)

    evaluated = attnrec("evaluate", run, "--output", tmp_path / "test.json")
    assert evaluated.code == (0 if log.has_test else 2), evaluated.err
    assert (tmp_path / "test.json").exists() if log.has_test else WITHOUT_TEST in evaluated.err
    recommended = attnrec("recommend", run, "--output", tmp_path / "lists.parquet", "--top_k", 4, "--show", 99)
    assert recommended.code == 0, recommended.err
    assert not UNTRUE.search(recommended.out), recommended.out
    check_lists(pq.read_table(tmp_path / "lists.parquet").to_pylist(), log)


def _spec(data: Path):
    from attnrec_dist.batch import DataSpec

    opened = DataSet.open(data)
    return DataSpec(opened.manifest.num_items, 8, (), opened)


def check_lists(rows: list[dict], log: Log) -> None:
    """A list a customer; shares that sum to 1 and are 0 where an expert is off; of "in the history" the counts of the log."""
    assert {row["user"] for row in rows} == {event[0] for event in log.events}
    twice = log.sections.get("filters", {}).get("drop_duplicates") is False
    kinds: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for user, item, _, kind in log.events if twice else dict.fromkeys(log.events):
        kinds[user, item][kind] += 1
    for row in rows:
        if row["source"] == "trend":
            continue
        shares = dict(row["shares"])
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert [shares[expert] for expert in log.off] == [0] * len(log.off)
        had = re.match(r"in the history (?:(once)|([\d,]+) times)(?: \((.*?)\))?, ", row["because"])
        if had:
            own = kinds[row["user"], row["item"]]
            assert own.total() == (1 if had[1] else int(had[2].replace(",", ""))), row
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(own.items(), key=lambda each: (-each[1], each[0])))
            assert had[3] == (None if not log.has_kinds else next(iter(own)) if had[1] else told), row


REFUSED = {
    "one event a user": Log([(f"u{n}", f"i{n % 9}", START + n * 900, "view") for n in range(90)]),
    "one basket a user": Log([(f"u{n}", f"i{m}", START + n * 900, "view") for n in range(30) for m in range(3)]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_log_that_teaches_nothing_is_refused_before_the_first_step(name, attnrec, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    prepared = attnrec("prepare", write_log(tmp_path, REFUSED[name].events, {}), "--output", data)
    assert prepared.code == 0
    for told in (prepared.err, attnrec("inspect", data).out):
        worst = told.partition("findings, worst first:\n")[2].splitlines()[0]
        assert "attnrec train refuses it (nothing to train on)" in worst
        assert ("--data.basket none" in worst) == (name == "one basket a user")
    refused = attnrec("train", FLAGSHIP, "--data", data, "--run_dir", run, *QUICK)
    assert refused.code == 2
    (line,) = [line for line in refused.err.splitlines() if line]
    assert "nothing to train on" in line
    assert "is columns.user the customer's column" in line
    assert ("--data.basket none" in line) == (name == "one basket a user")
    assert not (run / "metrics.jsonl").exists()
    if name == "one basket a user":
        assert attnrec("train", FLAGSHIP, "--data", data, "--run_dir", run, *QUICK, "--data.basket", "none").code == 0


def test_events_of_one_second_are_refused_and_what_is_advised_works(attnrec, tmp_path):
    events = [(user, item, START, kind) for user, item, _, kind in clicks()]
    refused = attnrec("prepare", write_log(tmp_path, events, {}), "--output", tmp_path / "data")
    assert refused.code == 2
    assert "no cut in time parts them" in refused.err
    assert "type --split.kind leave_one_out --split.ties keep" in refused.err
    apart = ["--split.kind", "leave_one_out", "--split.ties", "keep", "--output", tmp_path / "data"]
    assert attnrec("prepare", tmp_path / "prepare.yaml", *apart).code == 0
    advised = attnrec("train", FLAGSHIP, "--data", tmp_path / "data", "--run_dir", tmp_path / "run", *QUICK)
    assert (advised.code, "--data.basket none" in advised.err) == (2, True)
    options = ["--data", tmp_path / "data", "--run_dir", tmp_path / "run", *QUICK, "--data.basket", "none"]
    assert attnrec("train", FLAGSHIP, *options).code == 0
    assert attnrec("evaluate", tmp_path / "run").code == 0


def test_a_click_log_goes_the_whole_way_of_make_train(attnrec, tmp_path):
    yaml_file = write_log(tmp_path, clicks(), {})
    held_back = ["--split.train", 0.9, "--split.validation", 0, "--split.test", 0.1]
    assert attnrec("prepare", yaml_file, "--output", tmp_path / "data").code == 0
    assert attnrec("prepare", yaml_file, "--output", tmp_path / "all", *held_back).code == 0
    run, refit = tmp_path / "run", tmp_path / "refit"
    assert attnrec("train", FLAGSHIP, "--data", tmp_path / "data", "--run_dir", run, *QUICK).code == 0
    for command in (
        ("plot", run),
        ("refit", run, "--data", tmp_path / "all", "--output", refit),
        ("evaluate", refit, "--output", tmp_path / "test.json"),
        ("recommend", refit, "--output", tmp_path / "lists.parquet", "--show", 3),
        ("explain", refit, "--output", tmp_path / "explained"),
    ):
        done = attnrec(*command)
        assert done.code == 0, done.err
        assert not UNTRUE.search(done.out), done.out
    assert json.loads((tmp_path / "test.json").read_text())["split"] == "test"


def test_last_baskets_are_trained_before_and_judged_as_next_baskets(attnrec, tmp_path):
    """Each customer's last basket is asked for as a whole; the figures say so, in the table and in the file."""
    log = write_log(tmp_path, baskets(), {"split": {"kind": "leave_last_basket"}})
    assert attnrec("prepare", log, "--output", tmp_path / "data").code == 0
    trained = attnrec("train", FLAGSHIP, "--data", tmp_path / "data", "--run_dir", tmp_path / "run", *QUICK)
    assert trained.code == 0, trained.err
    assert "next_basket/all/ndcg@10" in trained.err
    judged = attnrec("evaluate", tmp_path / "run", "--output", tmp_path / "test.json")
    assert judged.code == 0, judged.err
    (customers,) = [line.split()[1:] for line in judged.out.splitlines() if line.startswith("customers")]
    (relevant,) = [line.split()[2:] for line in judged.out.splitlines() if line.startswith("relevant items")]
    assert (judged.out.split()[2:4], customers[0], relevant[0]) == (["next", "basket"], "8", "32")  # 8 baskets of 4
    figures = json.loads((tmp_path / "test.json").read_text())["customers"]["values"]["mixture"]
    for name, value in figures.items():  # the whole test part is one basket a customer
        assert value == figures[name.replace("next_basket", "period")]
    assert 32 * figures["next_basket/all/recall@10"] in range(33)


def test_baskets_taken_apart_are_told(attnrec, tmp_path):
    assert attnrec("prepare", write_log(tmp_path, baskets(), {}), "--output", tmp_path / "data").code == 0
    apart = ["--data", tmp_path / "data", "--run_dir", tmp_path / "run", *QUICK, "--data.basket", "none"]
    told = attnrec("train", FLAGSHIP, *apart)
    assert told.code == 0
    assert "note: data.basket is none, but 128 of 128 training events share their time" in told.err


@pytest.mark.parametrize("kind", ["leave_one_out", "leave_last_basket"])
def test_a_refit_on_a_split_by_user_is_refused_with_what_to_do(kind, attnrec, tmp_path):
    assert attnrec("prepare", write_log(tmp_path, clicks(), {"split": {"kind": kind}}), "--output", tmp_path / "data").code == 0
    assert attnrec("train", FLAGSHIP, "--data", tmp_path / "data", "--run_dir", tmp_path / "run", *QUICK).code == 0
    refused = attnrec("refit", tmp_path / "run", "--data", tmp_path / "data")
    assert refused.code == 2
    assert f"{kind} keeps events of every customer for validation, so there is nothing to refit on; use" in refused.err
    assert "--split.validation" not in refused.err


def test_what_python_made_up_is_not_told_as_time(attnrec, tmp_path):
    """Without times the history is given some; no reason may speak of days then."""
    from attnrec_dist import load

    assert attnrec("prepare", write_log(tmp_path, clicks(), {}), "--output", tmp_path / "data").code == 0
    assert attnrec("train", FLAGSHIP, "--data", tmp_path / "data", "--run_dir", tmp_path / "run", *QUICK).code == 0
    recommender = load(tmp_path / "run")
    items = ["i3", "i1", "i1", "i2"]
    timed = {
        each.item: each.because for each in recommender.recommend(items, 15, times=[START, START + DAY, START + DAY, START + DAY])
    }
    untimed = {each.item: each.because for each in recommender.recommend(items, 15)}
    told = [because for because in untimed.values() if because.startswith("in the history")]
    assert told
    assert all("before the newest" in because or "the newest event" in because for because in told)
    assert any(re.search(r"last \d+ days ago", because) for because in timed.values())
