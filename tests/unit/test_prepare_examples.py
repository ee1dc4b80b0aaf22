"""Labelled examples against plain Python, with the future and the same second planted, and bad input."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from example_oracle import drawn, events_of, expected, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_helpers import config_of, contents, run, write_csv
from scipy import stats

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import EXAMPLE_PARTS
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.examples import files as example_files
from attnrec_dist.prepare.examples.as_of import seconds
from attnrec_dist.prepare.examples.features import FEATURES
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.settings import build, parse_yaml, read_yaml, to_yaml

ROOT = Path(__file__).parents[2]
START = 1_600_000_000
LOG = {
    "columns": {"event": {"name": "event", "types": ["view", "cart", "buy"]}, "numeric": ["quantity"], "missing_numeric": -1.0},
    "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
}
FEATURES_OF_ALL_KINDS = {
    "user_all": {"kind": "count", "of": "user"},
    "user_views_20": {"kind": "count", "of": "user", "events": ["view"], "within": "20s"},
    "item_buys": {"kind": "count", "of": "item", "events": ["buy", "cart"]},
    "pair_30": {"kind": "count", "of": "user_item", "within": "30s"},
    "since_user": {"kind": "recency", "of": "user"},
    "since_item_buy": {"kind": "recency", "of": "item", "events": ["buy"], "within": "40s"},
    "since_pair": {"kind": "recency", "of": "user_item"},
    "user_mean": {"kind": "mean", "of": "user", "column": "quantity", "events": ["view", "buy"]},
    "item_mean": {"kind": "mean", "of": "item", "column": "quantity", "within": "50s"},
    "price": {"kind": "ratio", "column": "quantity"},
    "price_30": {"kind": "ratio", "column": "quantity", "events": ["buy"], "within": "30s"},
    "hour": {"kind": "hour"},
    "day": {"kind": "weekday"},
    "colour": {"kind": "item", "column": "colour"},
    "year": {"kind": "item", "column": "name", "type": "numeric", "pattern": r"\((\d{4})\)$"},
    "town": {"kind": "user", "column": "town", "pattern": "^[A-Z]+"},
}
LABELS = {
    "follow_up": {
        "kind": "follow_up",
        "on": ["view", "cart"],
        "events": ["buy"],
        "within": "25s",
        "tasks": {
            "soon": {"kind": "follow_up", "events": ["cart", "buy"], "within": "8s"},
            "many": {"kind": "column", "column": "quantity", "at_least": 4},
        },
    },
    "column": {"kind": "column", "column": "quantity", "at_least": 3.5, "on": ["buy", "view"]},
    "sampled": {
        "kind": "sampled",
        "events": ["buy", "cart"],
        "negatives": 3,
        "exponent": 0.6,
        "seed": 5,
        "tasks": {
            "again": {"kind": "follow_up", "events": ["buy"], "within": "20s"},
            "many": {"kind": "column", "column": "quantity", "at_least": 4},
        },
    },
}


def random_log(seed: int, size: int = 220, span: int = 120, users: int = 6, items: int = 7) -> list[dict[str, str]]:
    """Few seconds, so that many events share one; jumps of hours, so that hours and days differ; empty numbers."""
    draw = random.Random(seed)
    rows = []
    for _ in range(size):
        second = START + draw.randrange(span) + draw.choice([0, 0, 5 * 3600, 29 * 3600])
        rows.append(
            {
                "user": f"u{draw.randrange(users)}",
                "item": f"i{min(draw.randrange(items), draw.randrange(items))}",
                "time": str(second),
                "event": draw.choice(["view", "view", "cart", "buy"]),
                "quantity": draw.choice(["", "0", "1", "2.5", "3", "4", "7.125"]),
            }
        )
    return rows


def files_of(directory):
    items = {
        f"i{n}": {"colour": ["red", "green", ""][n % 3], "name": f"thing {n} (19{70 + n})" if n % 4 else "thing"}
        for n in range(6)
    }
    users = {f"u{n}": {"town": f"{'AB'[n % 2]}{n}" if n % 3 else "7"} for n in range(5)}
    (directory / "items.txt").write_bytes(
        b"".join(f"{name}::{row['name']}::{row['colour']}\n".encode("latin-1") for name, row in items.items())
    )
    write_csv(directory / "users.csv", [{"id": name, **row} for name, row in users.items()], columns=["id", "town"])
    sections = {
        "items": {
            "file": str(directory / "items.txt"),
            "id": "id",
            "columns": {"name": "name", "colour": "colour"},
            "format": "csv",
            "delimiter": "::",
            "header": False,
            "names": ["id", "name", "colour"],
            "encoding": "latin-1",
            "quote": "",
        },
        "users": {"file": str(directory / "users.csv"), "id": "id", "columns": {"town": "town"}},
    }
    return sections, {"item": items, "user": users}


def ends_of(data, end=None):
    split = data.manifest.split
    return split.train_end, split.valid_end, data.manifest.end_time + 1 if end is None else end


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_kind_of_label_and_feature_as_plain_python_has_it(tmp_path, kind, seed, monkeypatch):
    monkeypatch.setattr(example_files, "ROWS_PER_BATCH", 50)
    sections, files = files_of(tmp_path)
    features = dict(FEATURES_OF_ALL_KINDS)
    if kind != "sampled":
        features["own"] = {"kind": "column", "column": "quantity"}
        assert {asked["kind"] for asked in features.values()} == set(FEATURES)
    log = write_csv(tmp_path / "log.csv", random_log(seed))
    data = run([log], tmp_path / "data", **LOG, **sections, label=LABELS[kind], features=features)
    wanted = expected(data, LABELS[kind], features, files, ends_of(data))
    found = stored(data)
    words = {row["value"] for row in data.vocabulary().to_pylist()}
    for part in EXAMPLE_PARTS:
        assert len(wanted[part]) > 5
        seen = [
            tuple("UNSEEN" if isinstance(v, str) and place > 3 and v not in words else v for place, v in enumerate(row))
            for row in wanted[part]
        ]
        assert found[part] == sorted(seen, key=repr)
    spec = data.manifest.examples
    left_out = sum(spec.left_out.values())
    if kind == "sampled":
        assert spec.left_out["item without an earlier training event"] == drawn(events_of(data), LABELS[kind])[1] > 0
    elif kind == "follow_up":
        assert left_out > 0


def test_draws_follow_the_popularity_up_to_the_moment_to_the_power(tmp_path):
    """3,000 draws at one moment; the popular item of later training events and of the moment itself must not count."""
    draw = random.Random(3)
    counts = {f"i{n}": 2 * (n + 1) ** 2 for n in range(8)}
    rows = [_row(f"a{k}", item, START + draw.randrange(1000)) for item, count in counts.items() for k in range(count)]
    rows += [_row(f"b{k}", "i7", START + 2000) for k in range(300)]
    rows += [_row(f"c{k}", "i0", START + 2001) for k in range(200)]
    log = write_csv(tmp_path / "log.csv", rows)
    for exponent in (0, 0.5, 1):
        label = {"kind": "sampled", "negatives": 10, "exponent": exponent}
        data = run([log], tmp_path / f"data{exponent}", label=label, split={"train": 1, "validation": 0, "test": 0})
        train = ExampleSet.open(data, "train")
        found = train.take(np.flatnonzero((train.column("time") == START + 2000) & (train.column("label.label") == 0)))
        items = Counter(data.item_ids(found.candidates))
        assert items["i7"] == 0
        assert sum(items.values()) == 3000
        weights = np.array([counts[item] ** exponent for item in sorted(counts) if item != "i7"])
        observed = [items[item] for item in sorted(counts) if item != "i7"]
        assert stats.chisquare(observed, weights / weights.sum() * 3000).pvalue > 1e-3


def _row(user, item, second, event="buy", quantity="1"):
    return {"user": user, "item": item, "time": str(second), "event": event, "quantity": quantity}


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), place=st.floats(0.2, 0.9))
def test_nothing_of_the_same_second_or_later_is_known(tmp_path_factory, seed, place):
    """Events planted at and after a moment change no feature of an example at or before it."""
    directory = tmp_path_factory.mktemp("leak")
    rows = random_log(seed, size=300)
    times = sorted(int(row["time"]) for row in rows)
    moment = times[int(place * len(times))]
    draw = random.Random(seed)
    planted = [
        _row(f"u{draw.randrange(6)}", f"i{draw.randrange(7)}", when, draw.choice(["view", "cart"]), "1000")
        for when in [moment] * 30 + [draw.choice([t for t in times if t >= moment]) for _ in range(30)]
    ]
    cuts = {"validation_from": _iso(times[180]), "test_from": _iso(times[240])}
    sections = {**LOG, "split": cuts, "label": {"kind": "column", "column": "quantity", "at_least": 3, "on": ["buy"]}}
    rare = ("price_30",)  # may be missing throughout, which is refused
    features = {
        name: each for name, each in FEATURES_OF_ALL_KINDS.items() if each["kind"] not in ("item", "user") and name not in rare
    }
    found = []
    for name, log in (("without", rows), ("with", rows + planted)):
        data = run([write_csv(directory / f"{name}.csv", log)], directory / name, **sections, features=features)
        found.append([row for part in stored(data).values() for row in part if row[1] <= moment])
    assert len(found[0]) > 0
    assert found[0] == found[1]


def _iso(second):
    return str(np.datetime64(second, "s"))


def test_threads_files_and_their_order_leave_no_trace(tmp_path):
    rows = random_log(4)
    sections, _ = files_of(tmp_path)
    sections |= {**LOG, "label": LABELS["sampled"], "features": FEATURES_OF_ALL_KINDS}
    one = run([write_csv(tmp_path / "all.csv", rows)], tmp_path / "one", **sections)
    halves = [write_csv(tmp_path / "b.csv", rows[100:][::-1]), write_csv(tmp_path / "a.csv", rows[:100])]
    two = run(halves, tmp_path / "two", **sections, engine={"threads": 2}, output={"events_per_shard": 50})
    assert one.manifest.fingerprint == two.manifest.fingerprint
    assert one.manifest.examples.fields == two.manifest.examples.fields
    page = (ROOT / "docs" / "data-format.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    assert names["fingerprint"](one.path) == one.manifest.fingerprint
    other = run(halves, tmp_path / "three", **{**sections, "label": {**LABELS["sampled"], "seed": 6}})
    assert other.manifest.fingerprint != one.manifest.fingerprint


def test_events_after_the_end_are_left_out_and_no_window_looks_beyond_it(tmp_path):
    rows = random_log(5)
    times = sorted(int(row["time"]) for row in rows)
    end = times[200]
    late = sum(time >= end for time in times)
    log = write_csv(tmp_path / "log.csv", rows)
    label = LABELS["follow_up"]
    data = run(
        [log], tmp_path / "data", **LOG, input={"end": _iso(end)}, label=label, features={"n": {"kind": "count", "of": "user"}}
    )
    assert data.manifest.cleaning["after input.end"] == late > 0
    assert data.manifest.end_time < end
    test = ExampleSet.open(data, "test")
    assert len(test) > 0
    assert test.column("time").max() + 25 < end
    assert expected(data, label, {"n": {"kind": "count", "of": "user"}}, {}, ends_of(data, end)) == stored(data)


def test_codes_and_statistics_come_from_the_training_part(tmp_path):
    sections, _ = files_of(tmp_path)
    features = {
        "user": {"kind": "user", "column": "town", "min_count": 8},
        "count": {"kind": "count", "of": "user"},
        "own": {"kind": "column", "column": "quantity"},
    }
    label = {"kind": "column", "column": "quantity", "at_least": 3}
    data = run(
        [write_csv(tmp_path / "log.csv", random_log(6))], tmp_path / "data", **LOG, **sections, label=label, features=features
    )
    spec = data.manifest.examples
    train = ExampleSet.open(data, "train").take(np.arange(spec.counts["train"]))
    for name in ("count", "own"):
        values = np.sort(train.fields[name][~np.isnan(train.fields[name])].astype(np.float64))
        field = spec.field(name)
        picked = np.unique(values[np.arange(1, 64) * len(values) // 64])
        assert field.quantiles == picked[picked > values[0]].tolist()
        used = np.sign(values) * np.log1p(np.abs(values))
        assert (field.mean, field.std) == (pytest.approx(used.mean()), pytest.approx(used.std()))
    assert spec.field("count").log1p
    codes = Counter(train.fields["user"].tolist())
    frequencies = [codes[code] for code in range(2, spec.field("user").size)]
    assert frequencies == sorted(frequencies, reverse=True)
    assert min(frequencies) >= 8


def test_leave_one_out_knows_items_by_the_training_part_alone(tmp_path):
    """Another user's test event may be earlier than a training moment, and stays unknown."""
    rows = [
        _row(user, f"i{n}", START + n * 10 + place, quantity=str(n % 3)) for place, user in enumerate("abcd") for n in range(8)
    ]
    rows += [_row("z", f"i{n}", START - 100 + n, quantity="2") for n in range(4)]  # its last two are test and validation
    label = {"kind": "column", "column": "quantity", "at_least": 2}
    features = {"item": {"kind": "count", "of": "item"}, "user": {"kind": "count", "of": "user"}}
    log = write_csv(tmp_path / "log.csv", rows)
    data = run(
        [log],
        tmp_path / "data",
        columns={"numeric": ["quantity"]},
        split={"kind": "leave_one_out"},
        label=label,
        features=features,
    )
    found = {(row[0], row[2]): row[-2:] for part in stored(data).values() for row in part}
    assert found["a", "i0"] == (1, 0)
    assert found["a", "i3"] == (0, 3)
    assert found["b", "i3"] == (1, 3)
    assert found["z", "i3"] == (0, 3)


def test_the_last_events_of_each_user_are_held_out(tmp_path):
    rows = [_row(user, f"i{n}", n) for user, count in (("a", 7), ("b", 4), ("c", 5)) for n in range(count)]
    sections = {"columns": {"timestamp": {"name": "time", "unit": "place"}}, "statistics": {"graph": {"kind": "next"}}}
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", **sections, split={"kind": "leave_one_out", "last": 2})
    assert {user: (train, valid, len(tokens)) for user, train, valid, tokens in contents(data)} == {
        "a": (3, 5, 7),
        "b": (4, 4, 4),
        "c": (1, 3, 5),
    }
    assert data.manifest.times_are_places
    with pytest.raises(ConfigError, match="last is of kind leave_one_out"):
        config_of([tmp_path / "log.csv"], split={"kind": "time", "last": 2})
    with pytest.raises(
        ConfigError, match=r"split\.kind: time needs times that users share, columns\.timestamp\.unit place has places only"
    ):
        config_of([tmp_path / "log.csv"], columns=sections["columns"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": {"within": "-7d"}}, r"label\.within: a window must have a length above 0, as in 7d or 12h \(got '-7d'\)"),
        ({"label": {"within": "7"}}, r"label\.within: write a whole number and a unit, as in 45s"),
        ({"label": {"kind": "folow_up"}}, "label.kind: input should be 'follow_up', 'column' or 'sampled'"),
        ({"label": {"at_least": 3}}, "label: at_least means nothing for kind follow_up; leave it out"),
        ({"label": {"kind": "column"}}, "label: kind column needs column and at_least"),
        (
            {"label": {"events": ["by"]}},
            r"label\.events: no event is of kind 'by'; did you mean buy\? The kinds are view, cart, buy",
        ),
        (
            {"label": {"tasks": {"label": {"kind": "column", "column": "quantity", "at_least": 1}}}},
            "'label' is the name of the label",
        ),
        ({"label": {"tasks": {"x": {"kind": "follow_up", "events": ["buy"]}}}}, r"label\.tasks\.x: kind follow_up needs within"),
        ({"split": {"kind": "leave_one_out"}}, "label: kind follow_up needs one cut in time"),
        (
            {"features": {"n": {"kind": "cuont", "of": "user"}}},
            r"features\.n\.kind: no such kind of feature; did you mean count\?",
        ),
        ({"features": {"n": {"kind": "count"}}}, r"features\.n: kind count needs of"),
        ({"features": {"n": {"kind": "hour", "of": "user"}}}, r"features\.n: of means nothing for kind hour"),
        (
            {"features": {"n": {"kind": "count", "of": "user", "within": "0d"}}},
            r"features\.n\.within: a window must have a length",
        ),
        ({"features": {"n": {"kind": "count", "of": "user", "event": ["buy"]}}}, r"features\.n\.event: unknown key"),
        ({"features": {"N": {"kind": "hour"}}}, "features: 'N' cannot be a name"),
        (
            {"features": {"n": {"kind": "column", "column": "quantty"}}},
            r"'quantty' is not in columns\.numeric \(did you mean quantity\?\)",
        ),
        ({"features": {"n": {"kind": "item", "column": "x"}}}, r"features\.n: kind item needs the section items"),
        ({"features": {"n": {"kind": "user", "column": "x", "pattern": "("}}}, r"features\.n\.pattern: not a regular expression"),
        ({"input": {"end": "soon"}}, "'soon' is not an ISO 8601 date"),
    ],
)
def test_mistakes_in_the_config_are_told_before_the_log_is_read(change, message, tmp_path):
    sections = {**LOG, "label": {key: value for key, value in LABELS["follow_up"].items() if key != "tasks"}}
    for name, section in change.items():
        replaced = (name == "label" and "kind" in section) or name == "features"
        sections[name] = section if replaced else {**sections.get(name, {}), **section}
    if change == {"split": {"kind": "leave_one_out"}}:
        sections["split"] = change["split"]
    with pytest.raises(ConfigError, match=message):
        config_of([tmp_path / "log.csv"], **sections)


@pytest.mark.parametrize("name", ["retailrocket", "online-retail", "quickstart", "ml-1m"])
def test_the_configs_in_the_repository_fit_and_read_back(name):
    path = ROOT / "configs" / "prepare" / f"{name}-ranking.yaml"
    config = build(PrepareConfig, read_yaml(path), str(path))
    assert build(PrepareConfig, parse_yaml(to_yaml(config), "copy"), "copy") == config


def test_the_bundled_log_gives_examples(tmp_path):
    """As shipped: the files are found, every draw succeeds, price and quantity are known of nearly all items."""
    path = ROOT / "configs" / "prepare" / "quickstart-ranking.yaml"
    prepare(build(PrepareConfig, read_yaml(path), str(path)), path.parent, tmp_path / "data")
    spec = DataSet.open(tmp_path / "data").manifest.examples
    assert spec.positives["buy"] == {"train": 148_960, "validation": 18_831, "test": 18_510}
    assert all(spec.counts[part] == 3 * spec.positives["buy"][part] for part in EXAMPLE_PARTS)


def test_features_without_a_label_and_drawn_columns_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="features: there is no label"):
        config_of([tmp_path / "log.csv"], features={"n": {"kind": "hour"}})
    with pytest.raises(ConfigError, match=r"features\.own: a drawn item has no event of its own"):
        config_of(
            [tmp_path / "x.csv"], **LOG, label={"kind": "sampled"}, features={"own": {"kind": "column", "column": "quantity"}}
        )
    users = {"file": "u.csv", "id": "id", "columns": {"town": "town"}}
    with pytest.raises(ConfigError, match=r"'twon' is not a name in users\.columns \(did you mean town\?\)"):
        config_of(
            [tmp_path / "x.csv"],
            **LOG,
            users=users,
            label={"kind": "sampled"},
            features={"n": {"kind": "user", "column": "twon"}},
        )


def failing(tmp_path, rows, match, **sections):
    with pytest.raises(InputError, match=match):
        run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", **{**LOG, **sections})
    assert not (tmp_path / "data").exists()


def test_a_label_with_one_class_is_refused(tmp_path):
    label = {"kind": "column", "column": "quantity", "at_least": 100}
    failing(
        tmp_path,
        random_log(7),
        r"label label: one class only: all \d+ training examples are labelled 0; check label.at_least",
        label=label,
    )


def test_no_training_examples_at_all_are_refused_with_the_reason(tmp_path):
    label = {"kind": "follow_up", "on": ["view"], "events": ["buy"], "within": "52w"}
    failing(
        tmp_path, random_log(7), r"there are no training examples of label\.label \(left out: \d+ window crosses", label=label
    )


def test_a_feature_that_training_lacks_is_refused(tmp_path):
    rows = [{**row, "quantity": ""} for row in random_log(8)]
    label = {"kind": "follow_up", "on": ["view"], "events": ["buy"], "within": "25s"}
    features = {"q": {"kind": "mean", "of": "user", "column": "quantity"}}
    failing(tmp_path, rows, r"features\.q: it is missing in all examples of the train part", label=label, features=features)


def test_a_feature_that_the_test_part_lacks_is_refused_or_told(tmp_path):
    rows = random_log(9)
    cut = sorted(int(row["time"]) for row in rows)[int(0.8 * len(rows))]
    label = {"kind": "follow_up", "on": ["view"], "events": ["buy"], "within": "25s"}
    emptied = [{**row, "quantity": "" if int(row["time"]) >= cut else row["quantity"]} for row in rows]
    features = {"own": {"kind": "column", "column": "quantity"}}
    failing(
        tmp_path,
        emptied,
        r"features\.own: it is missing in all examples of the test part, though",
        label=label,
        features=features,
    )


def test_a_later_part_with_one_class_is_told(tmp_path):
    rows = random_log(11)
    cut = sorted(int(row["time"]) for row in rows)[int(0.8 * len(rows))]
    rows = [{**row, "quantity": "1" if int(row["time"]) >= cut else row["quantity"]} for row in rows]
    told: list[str] = []
    log = write_csv(tmp_path / "log.csv", rows)
    config = config_of([log], **LOG, label={"kind": "column", "column": "quantity", "at_least": 3})
    prepare(config, tmp_path, tmp_path / "data", told.append)
    assert [line for line in told if "label label: the test part has not both classes" in line]


def test_a_file_with_ids_given_twice_is_refused_where_features_read_it(tmp_path):
    sections, _ = files_of(tmp_path)
    with (tmp_path / "items.txt").open("a") as file:
        file.write("i3::again::blue\n")
    label = {"kind": "column", "column": "quantity", "at_least": 3}
    colour = {"colour": {"kind": "item", "column": "colour"}}
    rows = random_log(10)
    failing(tmp_path, rows, r"items\.file .*items\.txt: id 'i3' stands in 2 rows", **sections, label=label, features=colour)
    only_texts = {"town": {"kind": "user", "column": "town"}}
    run([tmp_path / "log.csv"], tmp_path / "data", **LOG, **sections, label=label, features=only_texts)


def test_a_text_where_a_number_should_be_is_refused(tmp_path):
    sections, _ = files_of(tmp_path)
    label = {"kind": "column", "column": "quantity", "at_least": 3}
    features = {"colour": {"kind": "item", "column": "colour", "type": "numeric"}}
    failing(
        tmp_path,
        random_log(10),
        r"features\.colour is numeric, but id 'i0' has 'red' there",
        **sections,
        label=label,
        features=features,
    )


def test_durations():
    assert [seconds(text) for text in ("45s", "30m", "12h", "7d", "4w")] == [45, 1800, 43_200, 604_800, 2_419_200]
