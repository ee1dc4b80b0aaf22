"""Data that spoils a model is told, worst first, with a figure and what to set; honest logs are left in peace."""

from __future__ import annotations

import doctest
import itertools
import random
import re
import unicodedata
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_helpers import config_of, write_csv

from attnrec_dist.cli import main
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.config.sections import EngineSection
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.findings import find, ids, unnamed
from attnrec_dist.prepare.findings.find import MOST_SHOWN, Finding, told
from attnrec_dist.prepare.findings.suspects import of_data_set
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.settings import build

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
TYPED = {"columns": {"event": "event"}}
NUMBERED = {"columns": {"numeric": ["quantity"]}}
BOTH = {"columns": {"event": "event", "numeric": ["quantity"]}}
DAYS = 86_400


def honest() -> list[dict[str, str]]:
    """500 users, 60 items, 10 events each, over 60 days: nothing is to be said of it."""
    draw = random.Random(0)
    rows = []
    for user in range(500):
        for _ in range(10):
            item, second = 200 + int(60 * draw.random() ** 1.5), draw.randrange(60 * DAYS)
            rows.append(row(str(1000 + user), str(item), second, draw.choice(["view", "view", "buy"]), draw.randint(1, 9)))
    return rows


def row(user: str, item: str, second: int, event: str = "view", quantity: float = 1) -> dict[str, str]:
    when = FIRST + timedelta(seconds=second)
    return {"user": user, "item": item, "time": when.isoformat(), "event": event, "quantity": str(quantity)}


def every(rows: list[dict[str, str]], column: str, change, each: int = 1) -> list[dict[str, str]]:
    """The rows with every so manieth value of a column changed."""
    return [{**one, column: change(one[column])} if place % each == 0 else one for place, one in enumerate(rows)]


def tell(tmp_path: Path, rows: list[dict[str, str]], **sections) -> list[str]:
    """What prepare says at its end: a line a finding."""
    said: list[str] = []
    prepare(config_of([write_csv(tmp_path / "log.csv", rows)], **sections), tmp_path, tmp_path / "set", said.append)
    assert said[-1].startswith("findings")
    return said[-1].splitlines()[1:]


def inspected(tmp_path: Path) -> list[str]:
    """The same of its data set."""
    return told(of_data_set(DataSet.open(tmp_path / "set"))).splitlines()[1:]


def midnight(value: str) -> str:
    return value[:10]


PLANTED = {
    "one user": (
        lambda rows: rows + [row("9999", str(200 + second % 60), 50 * second) for second in range(95_000)][::4],
        {},
        ["1 of 501 users, '9999', has 23,750 of 28,750 events (82.6%)", "set filters.max_user_events: 10"],
    ),
    "one item": (
        lambda rows: every(rows, "item", lambda _: "POST", 3),
        {},
        ["1 of 61 items, 'POST', has 1,6", "if it is no product"],
    ),
    "a bot": (
        lambda rows: rows + [row("1003", str(200 + second % 60), 7 * second) for second in range(2000)],
        {},
        ["1 user with 1,000 events or more in a day, on 1 day; '1003' has 2,0", "bots"],
    ),
    "case of kinds": (
        lambda rows: every(rows, "event", str.capitalize, 50),
        TYPED,
        ["and 'View' differ only in case or blanks", "columns.event.rename: {View: view}"],
    ),
    "blanks of kinds": (
        lambda rows: every(rows, "event", lambda kind: kind + " ", 10),
        TYPED,
        ["differ only in case or blanks", "columns.event.rename: {'view ': view}"],
    ),
    "a kind without a name": (
        lambda rows: every(rows, "event", lambda _: "NULL", 10),
        TYPED,
        ["kind of event 'NULL': 500 of", "columns.event.types"],
    ),
    "a rare kind": (
        lambda rows: every(rows, "event", lambda _: "return", 2000),
        TYPED,
        ["kind of event 'return' is rare: 3 of", "columns.event.types"],
    ),
    "a kind that stops": (
        lambda rows: [{**one, "event": "buy" if one["time"] < "2026-02" else "view"} for one in rows],
        TYPED,
        ["no event of kind 'buy' in the validation and test part", "data.target_events"],
    ),
    "case of ids": (
        lambda rows: every(every(rows, "user", "u{}".format), "user", str.upper, 7),
        {},
        ["user ids are", "that differ only in case, such as", "write each id one way"],
    ),
    "blanks around ids": (
        lambda rows: every(rows, "user", " {}".format, 7),
        {},
        ["that differ only in blanks", "user ids hold blanks or unseen characters, such as ' 1", "set input.trim: true"],
    ),
    "no-break and zero-width": (
        lambda rows: every(every(rows, "item", "{}\u00a0".format, 7), "item", "\u200b{}".format, 5),
        {},
        ["item ids are", "that differ only in blanks, such as", "u200b", "set input.trim: true"],
    ),
    "padding": (
        lambda rows: every(rows, "item", "00{}".format, 9),
        {},
        ["that differ only in leading zeros, such as '20", "and '0020"],
    ),
    "pandas floats": (
        lambda rows: every(rows, "item", "{}.0".format, 9),
        {},
        ["that differ only in a trailing .0, such as '20", "item ids end in .0", "Int64"],
    ),
    "full-width digits": (
        lambda rows: every(rows, "item", lambda name: name.translate({48 + d: 0xFF10 + d for d in range(10)}), 9),
        {},
        ["that differ only in character codes", "\\uff1"],
    ),
    "composed and decomposed": (
        lambda rows: every(every(rows, "item", "caf\u00e9{}".format), "item", lambda name: unicodedata.normalize("NFD", name), 9),
        {},
        ["that differ only in character codes", "cafe\\u0301"],
    ),
    "a spreadsheet": (
        lambda rows: every(rows, "user", lambda _: "1.02E+11", 9),
        {},
        ["1 user ids look like 1.02E+05, such as '1.02E+11': 556 of", "digits are lost"],
    ),
    "only dates": (lambda rows: every(rows, "time", midnight), {}, [" events (100.0%) have one time of day", "basket"]),
    "the second of an export": (
        lambda rows: every(rows, "time", lambda _: "2026-02-20T03:14:15", 3),
        {},
        [" are at one second, 2026-02-20 03:14:15", "exported"],
    ),
    "lines that repeat": (
        lambda rows: rows + rows[::4],
        {},
        ["1,250 of 6,250 rows (20.0%) repeat", "filters.drop_duplicates: false"],
    ),
    "new items": (
        lambda rows: [{**one, "item": "new" + one["item"]} if one["time"] > "2026-02-23" else one for one in rows],
        {},
        ["events of the test part (100.0%) are on items without a training event", "split.test_from"],
    ),
    "orders for users": (
        lambda rows: [{**one, "user": f"order{place}"} for place, one in enumerate(sorted(rows, key=lambda one: one["time"]))],
        {},
        ["500 of 500 users of the test part (100.0%) have no earlier event", "session or an order"],
    ),
    "few users": (lambda rows: rows[:1000], {}, ["users: the 95% interval of a hit rate is up to 0.2", "longer"]),
    "few items": (lambda rows: every(rows, "item", lambda name: name[:2]), {}, ["only 6 items in the catalogue", "category"]),
    "a constant": (
        lambda rows: every(rows, "quantity", lambda _: "1"),
        NUMBERED,
        ["'quantity' is 1 throughout", "columns.numeric"],
    ),
    "a number that stands for none": (
        lambda rows: every(rows, "quantity", lambda _: "999999", 100),
        NUMBERED,
        ["'quantity' is 999999 in 50 events, 100% of the column's sum", "filters.where: {quantity: {max: ...}}"],
    ),
    "returns": (
        lambda rows: every(rows, "quantity", "-{}".format, 20),
        NUMBERED,
        ["'quantity' is below 0 in 250 of 5,000 events (5.0%), down to -9", "{quantity: {min: 1}}"],
    ),
    "2099": (
        lambda rows: [*rows, row("1000", "200", 73 * 365 * 86400)],
        {},
        ["1 of 5,001 events (<0.1%) lie 72.8 years after the others, which end on 2026-03-01", "set input.end: 2026-03-02"],
    ),
    "1970": (
        lambda rows: [*rows, {**row("1000", "200", 0), "time": "0"}],
        {},
        ["1 of 5,001 events (<0.1%) lie 56.0 years before the others, which begin on 2026-01-01", "set input.start: 2026-01-01"],
    ),
    "a missing file": (
        lambda rows: [{**one, "time": one["time"].replace("2026-02", "2027-02").replace("2026-03", "2027-03")} for one in rows],
        {},
        ["no event for 366 days, from 2026-01-31 to 2027-02-01, with 5", "input.end: 2026-02-01 or input.start: 2027-02-01"],
    ),
    "no test": (
        lambda rows: rows,
        {"split": {"validation_from": "2026-02-20", "test_from": "2027-01-01"}},
        ["no event is in the test part", "split.test_from"],
    ),
}


def test_an_honest_log_is_left_in_peace(tmp_path):
    assert tell(tmp_path, honest(), **BOTH) == inspected(tmp_path) == []


@pytest.mark.parametrize("name", PLANTED)
def test_what_spoils_a_model_is_told(tmp_path, name):
    plant, sections, phrases = PLANTED[name]
    lines = tell(tmp_path, plant(honest()), **sections)
    for phrase in phrases:
        assert any(phrase in line for line in lines), (phrase, lines)


def test_inspect_tells_the_same(tmp_path):
    """Of a log with a bit of everything."""
    rows = honest()
    plants = [
        "one item",
        "case of kinds",
        "blanks around ids",
        "padding",
        "a spreadsheet",
        "lines that repeat",
        "returns",
        "2099",
    ]
    for name in plants:
        rows = PLANTED[name][0](rows)
    lines = tell(tmp_path, rows, **BOTH)
    assert lines == inspected(tmp_path)
    assert len(lines) >= len(plants)


def test_an_id_that_says_there_is_none(tmp_path):
    names = ["NULL", "null", "NaN", "nan", "None", "unknown", "N/A", "-1", "0", " ", "Anonymous", "\u00a0", "<NA>"]
    rows = [{**one, "user": names[place // 10 % len(names)]} if place % 10 == 0 else one for place, one in enumerate(honest())]
    lines = tell(tmp_path, rows)
    assert "user ids that say there is none, such as" in lines[0]
    assert "500 of 5,000 events (10.0%)" in lines[0]


def test_an_item_that_is_none(tmp_path):
    lines = tell(tmp_path, every(honest(), "item", lambda _: "NaN", 100))
    assert "item ids that say there is none, such as 'NaN': 50 of 5,000 events (1.0%); list them in input.null_values" in lines[0]


@pytest.mark.parametrize(
    "change",
    [
        str,  # numbers from 0
        lambda place: ["aBc", "Abc", "abC", "aBC"][place % 4] + str(place // 4),  # case tells apart
        lambda place: f"Jos\u00e9 {place}" if place % 2 else f"\u5ba2{place:05}e5",
    ],
)
def test_ids_of_these_kinds_are_left_in_peace(tmp_path, change):
    assert tell(tmp_path, every(honest(), "user", lambda name: change(int(name) - 1000))) == []


def test_a_zero_that_is_no_number_among_others(tmp_path):
    rows = every(honest(), "user", lambda name: str(int(name) - 1000))
    assert "say there is none, such as '0'" in tell(tmp_path, every(rows, "user", lambda _: "0", 40))[0]


def test_times_that_are_honest_all_the_same(tmp_path):
    """With a month of holidays, all on whole hours."""
    seasons = every(honest(), "time", lambda time: time.replace("2026-03", "2026-04"))
    assert tell(tmp_path, every(seasons, "time", lambda time: time[:13] + ":00:00Z")) == []


def test_dates_of_a_zone_with_summer_time(tmp_path):
    rows = every(every(honest(), "time", lambda time: time.replace("-02-", "-07-")), "time", midnight)
    zone = {"columns": {"timestamp": {"name": "time", "time_zone": "Europe/Berlin"}}}
    assert any("one time of day" in line for line in tell(tmp_path, rows, **zone))


def test_the_dates_told_leave_out_the_strange_events_at_both_ends_and_no_others(tmp_path):
    zone = {"timestamp": {"name": "time", "time_zone": "America/Los_Angeles"}}
    rows = [*honest(), row("1000", "200", 73 * 365 * DAYS), {**row("1001", "200", 0), "time": "0"}]
    lines = "\n".join(tell(tmp_path, rows, columns=zone))
    end, start = (re.search(rf"set input.{key}: (\S+)", lines)[1] for key in ("end", "start"))
    said: list[str] = []
    config = config_of([tmp_path / "log.csv"], columns=zone, input={"start": start, "end": end})
    manifest = prepare(config, tmp_path, tmp_path / "set", said.append)
    assert (manifest.cleaning["before input.start"], manifest.cleaning["after input.end"]) == (1, 1)
    assert manifest.counts.events == len(rows) - 2
    assert said[-1] == "findings: none"


def test_start_and_end_are_checked(tmp_path):
    log = write_csv(tmp_path / "log.csv", honest()[:20])
    with pytest.raises(ConfigError, match=r"start 2026-02-01 is not before end 2026-01-01"):
        config_of([log], input={"start": "2026-02-01", "end": "2026-01-01"})
    with pytest.raises(ConfigError, match=r"'soon' is not an ISO 8601 date"):
        config_of([log], input={"start": "soon"})
    with pytest.raises(InputError, match=r"no row is left(.|\n)*Most are before input.start: check input.start"):
        prepare(config_of([log], input={"start": "2030-01-01"}), tmp_path, tmp_path / "set")


def test_kinds_left_out_for_their_case(tmp_path):
    kinds = {"columns": {"event": {"name": "event", "types": ["view", "buy"]}}}
    rows = every(every(honest(), "event", str.upper, 10), "event", lambda _: "scroll", 7)
    lines = tell(tmp_path, rows, **kinds)
    assert "428 of 5,000 rows (8.6%) are left out for the case or the blanks of their kind, such as 'VIEW'" in lines[0]
    assert "columns.event.rename: {VIEW: view, BUY: buy}" in lines[0]
    assert inspected(tmp_path) == lines[1:]  # only prepare sees what was left out


@pytest.mark.parametrize("column", ["Quantity", "QTY", "order_count", "Amount"])
def test_returns_in_a_column_that_nobody_named(tmp_path, column):
    """Only prepare sees it: the data set has named columns only."""
    rows = [{**one, column: -3 if place % 50 == 0 else one["quantity"]} for place, one in enumerate(honest())]
    rows[0] |= {"user": "", column: -80}  # left out, so it does not count
    columns = ["user", "item", "time", "event", column]
    log, said = write_csv(tmp_path / "log.csv", rows, columns=columns), []
    prepare(config_of([log]), tmp_path, tmp_path / "set", said.append)
    (line,) = said[-1].splitlines()[1:]
    assert f"column '{column}', which the YAML does not name, is below 0 in 99 of 4,999 rows (2.0%), down to -3" in line
    bounds = {column: {"min": 0 if column == "Amount" else 1}}
    assert line.endswith(f"if they are returns, set filters.where: {{{column}: {{min: {bounds[column]['min']}}}}}")
    assert inspected(tmp_path) == []
    for named in ({"filters": {"where": bounds}}, {"columns": {"numeric": [column]}, "filters": {"where": bounds}}):
        prepare(config_of([log], **named), tmp_path, tmp_path / "other", said.append)
        assert said[-1] == "findings: none"


@pytest.mark.parametrize(
    ("column", "value"), [("discount_amount", "-3"), ("country", "-3"), ("balance", "-3"), ("Quantity", "none"), ("qty", "")]
)
def test_a_column_that_tells_no_returns(tmp_path, column, value):
    rows = [{**one, column: value} for one in honest()]
    log, said = write_csv(tmp_path / "log.csv", rows, columns=["user", "item", "time", column]), []
    prepare(config_of([log]), tmp_path, tmp_path / "set", said.append)
    assert said[-1] == "findings: none"


def test_a_column_that_nobody_named_ends_no_preparation(tmp_path):
    """A page of it is damaged."""
    rows = honest()
    table = pa.table({name: [one[name] for one in rows] for name in ("user", "item", "time")} | {"qty": [7.5] * len(rows)})
    pq.write_table(table, tmp_path / "log.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    content, said = (tmp_path / "log.parquet").read_bytes(), []
    place = content.index(b"\0" * 6 + b"\x1e\x40")
    (tmp_path / "log.parquet").write_bytes(content[: place - 24] + b"\xff" * 24 + content[place:])
    prepare(config_of([tmp_path / "log.parquet"]), tmp_path, tmp_path / "set", said.append)
    assert said[-1] == "findings: none"


def test_a_kind_that_is_not_there(tmp_path):
    kinds = {"columns": {"event": {"name": "event", "types": ["view", "buy", "purchase"]}}}
    assert "no event of kind 'purchase' is left" in tell(tmp_path, honest(), **kinds)[0]


def test_leave_one_out_without_a_test(tmp_path):
    rows = [row(str(1000 + user), str(200 + 7 * user % 60), DAYS * user) for user in range(50)]
    lines = tell(tmp_path, rows, split={"kind": "leave_one_out"})
    assert any("no event is in the test part; a user needs 3 events" in line for line in lines)


def test_a_part_that_nobody_asked_for_is_not_missed(tmp_path):
    assert tell(tmp_path, honest(), split={"train": 0.9, "validation": 0, "test": 0.1}) == []


def test_lines_whose_order_is_the_time_have_no_times_to_speak_of(tmp_path):
    draw = random.Random(1)
    lines = [" ".join([str(user), *(str(draw.randrange(1, 60)) for _ in range(9))]) for user in range(1, 400)]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    said: list[str] = []
    tree = {"input": {"files": [str(tmp_path / "log.txt")], "format": "user_items"}, "output": {"dir": "x"}}
    prepare(build(PrepareConfig, tree, "t"), tmp_path, tmp_path / "set", said.append)
    assert said[-1] == "findings: none"


# Files about items and users


def texts(tmp_path: Path, change, name: str = "item {}") -> dict:
    rows = [{"id": change(str(item)), "name": name.format(item)} for item in range(200, 260)]
    file = write_csv(tmp_path / "items.csv", rows, columns=["id", "name"])
    return {"items": {"file": str(file), "id": "id", "columns": {"title": "name"}}}


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ("000{}".format, "the log has '200', items.file '000200'; write both the same way: without leading zeros they are 60"),
        (" {} ".format, "the log has '200', items.file ' 200 '; write both the same way: without blanks they are 60"),
        ("{}.0".format, "the log has '200', items.file '200.0'; write both the same way: without a trailing .0 they are 60"),
        ("00{}.0 ".format, "items.file '00200.0 '; write both the same way: without these differences they are 60"),
        ("sku-{}".format, "items.file 'sku-200', 'sku-201', 'sku-202'; check items.id"),
    ],
)
def test_an_items_file_whose_ids_do_not_match(tmp_path, change, phrase):
    lines = tell(tmp_path, honest(), **texts(tmp_path, change))
    assert len(lines) == 1
    assert "0 of 60 items have a title" in lines[0]
    assert phrase in lines[0]


def test_some_items_in_another_form(tmp_path):
    padded = texts(tmp_path, lambda name: name if name < "250" else "0" + name)
    assert "50 of 60 items (83.3%) have a title: the log has '25" in tell(tmp_path, honest(), **padded)[0]


def test_an_items_file_that_fits(tmp_path):
    assert tell(tmp_path, honest(), **texts(tmp_path, str)) == inspected(tmp_path) == []
    assert tell(tmp_path, honest(), **texts(tmp_path, lambda name: name if name < "235" else "x" + name)) == []


def test_a_column_without_texts(tmp_path):
    assert "0 of 60 items have a title" in tell(tmp_path, honest(), **texts(tmp_path, str, name=""))[0]
    assert inspected(tmp_path) == ["  - 0 of 60 items have a title; check items.id, items.file and items.columns"]


def users(tmp_path: Path, change) -> dict:
    rows = [{"id": change(str(user)), "city": "Rome" if user % 3 else "Oslo"} for user in range(1000, 1500)]
    file = write_csv(tmp_path / "users.csv", rows, columns=["id", "city"])
    return {
        "users": {"file": str(file), "id": "id", "columns": {"city": "city"}},
        "columns": {"event": "event"},
        "label": {"kind": "follow_up", "on": ["view"], "events": ["buy"], "within": "7d"},
        "features": {
            "city": {"kind": "user", "column": "city", "type": "categorical"},
            "views": {"kind": "count", "of": "user", "events": ["view"]},
        },
    }


def test_a_users_file_whose_ids_do_not_match(tmp_path):
    lines = tell(tmp_path, honest(), **users(tmp_path, lambda name: name if name < "1100" else "0" + name))
    assert "100 of 500 users (20.0%) have a row in users.file: the log has '1" in lines[0]
    assert "without leading zeros they are 500" in lines[0]
    assert tell(tmp_path, honest(), **users(tmp_path, str)) == []


def test_where_none_matches_the_error_says_which_form_would(tmp_path):
    with pytest.raises(InputError, match=r"0 of 500 users have a row in users.file(.|\n)*without leading zeros they are 500"):
        tell(tmp_path, honest(), **users(tmp_path, "0{}".format))


# Ids by themselves


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with DuckEngine(EngineSection(threads=1, memory_limit="200MB"), tmp_path_factory.mktemp("engine")) as engine:
        yield engine


def plain(name: str) -> str:
    """The oracle: what is left of an id without blanks, unseen characters, width, accents' coding, case, .0 and padding."""
    wide = {0xFF01 + place: 0x21 + place for place in range(94)}
    name = name.translate(dict.fromkeys(map(ord, ids.UNSEEN))).strip(ids.BLANKS).translate(wide)
    name = unicodedata.normalize("NFC", name).lower()
    whole, _, after = name.partition(".")
    if after and set(after) == {"0"} and whole.isascii() and whole.isdigit():
        name = whole
    return name.lstrip("0")


WRITTEN = (
    ["", " ", "\u00a0", "\u200b", "\t", "0", "00", "\u3000"],
    ["12", "u1", "U1", "7", "\uff17", "\uff35\uff11", "caf\u00e9", "cafe\u0301", "30", "a b", "x.0"],
    ["", ".0", ".00", " ", "\ufeff", "\u00ad"],
)


def names_of(engine: DuckEngine, counts: dict[str, int]) -> str:
    engine.run("DROP TABLE IF EXISTS names")
    table = pa.table({"id": pa.array(list(counts), pa.string()), "seen": pa.array(list(counts.values()), pa.int64())})
    engine.load("names", table.schema, table.to_batches())
    return "SELECT id, seen FROM names"


def test_ids_that_are_one_another_are_those_of_a_walk_over_them(engine):
    draw = random.Random(3)
    counts = {"".join(parts): draw.randint(1, 50) for parts in itertools.product(*WRITTEN)}
    groups = defaultdict(list)
    for name in counts:
        groups[plain(name)].append(name)
    several = [group for group in groups.values() if len(group) > 1]
    count, left, lost, _, pair = ids.twins(engine, names_of(engine, counts))
    assert (count, left) == (sum(map(len, several)), len(several))
    assert lost == sum(sum(counts[name] for name in group) - max(counts[name] for name in group) for group in several)
    assert plain(pair[0]) == plain(pair[1])
    assert pair[0] != pair[1]


LETTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00", max_codepoint=0xFFFF), max_size=8)


@settings(deadline=None, max_examples=8)
@given(st.lists(LETTERS | st.from_regex(r"0{0,2}[0-9]{0,3}(\.0{0,2})?", fullmatch=True), min_size=1, max_size=100, unique=True))
def test_an_id_without_its_form_can_be_looked_for_again(engine, names):
    """Case and accents differ between Python and the engine in letters that no shop uses; what must hold holds for all."""
    query = names_of(engine, dict.fromkeys(names, 1))
    forms = dict(engine.rows(f"SELECT id, {ids.form(list(ids.FORMS))} FROM ({query}) AS a"))
    assert {name: form for name, form in forms.items() if name.isascii()} == {
        name: plain(name) for name in names if name.isascii()
    }
    several = defaultdict(set)
    for name, form in forms.items():
        several[form].add(name)
    found = ids.twins(engine, query)
    expected = [group for group in several.values() if len(group) > 1]
    assert (found[:2] if found else (0, 0)) == (sum(map(len, expected)), len(expected))


def test_an_id_of_any_length_and_kind_is_looked_at(engine):
    names = ["x" * 100_000, "'; DROP TABLE names; --", "\x00", "\U0001f600", '"']
    query = names_of(engine, dict.fromkeys(names, 1))
    assert ids.twins(engine, query) is None
    assert ids.no_values(engine, query) == []
    assert "power" not in ids.odd(engine, query)


# How it is told


def test_the_worst_comes_first_and_not_more_than_ten():
    many = [Finding(place / 20, f"trouble {place}", "mend it") for place in range(12)]
    lines = told(many).splitlines()
    assert lines[:2] == ["findings, worst first:", "  - trouble 11; mend it"]
    assert len(lines) == MOST_SHOWN + 2
    assert lines[-1] == "  and 2 lesser ones"


def test_the_commands_end_with_them(tmp_path, capsys):
    write_csv(tmp_path / "log.csv", every(honest(), "user", lambda _: "NULL", 10))
    columns = "columns: {user: user, item: item, timestamp: time}"
    (tmp_path / "log.yaml").write_text(f"input: {{files: log.csv}}\n{columns}\noutput: {{dir: x}}\n")
    assert main(["prepare", str(tmp_path / "log.yaml"), "--output", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-3] == "findings, worst first:"
    assert said[-1].startswith("next: attnrec inspect ")
    assert said[-2].startswith("  - user ids that say there is none, such as 'NULL': 500 of 5,000 events (10.0%)")
    assert main(["inspect", str(tmp_path / "set")]) == 0
    assert said[-2] in capsys.readouterr().out


def test_examples_in_docstrings():
    for module in (find, ids, unnamed):
        assert doctest.testmod(module).failed == 0
