"""Logs whose order is the time: user_items and pairs give the data set that the same histories with written times give."""

from __future__ import annotations

import collections
import gzip
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_helpers import contents, run, write_csv

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import AttnrecError, ConfigError, InputError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.prepare.reading import lines, text_files
from attnrec_dist.prepare.reading.text_files import TextFormat
from attnrec_dist.prepare.report import summary
from attnrec_dist.settings import build, parse_yaml, to_yaml

ROOT = Path(__file__).parents[2]
Histories = dict[str, list[str]]

words = st.sampled_from(["1", "2", "3", "01", "ä", '"x"', "a,b", "\U0001f600", "it's", "#5", "NULL", "v", "f", "t", "\\t", "r"])
histories_of_anybody = st.dictionaries(words, st.lists(words, min_size=1, max_size=8), min_size=1, max_size=8)


def config_of(files: list[Path], kind: str, **sections: Any) -> PrepareConfig:
    tree = {
        "input": {"files": [str(file) for file in files], "format": kind},
        "output": {"dir": "unused"},
        "engine": {"memory_limit": "300MB", "threads": 2},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return build(PrepareConfig, tree, "test")


def run_lines(files: list[Path], kind: str, directory: Path, **sections: Any) -> DataSet:
    prepare(config_of(files, kind, **sections), Path("/"), directory)
    return DataSet.open(directory)


def write_user_items(path: Path, histories: Histories) -> Path:
    path.write_text("".join(f"{user} {' '.join(items)}\n" for user, items in histories.items()), encoding="utf-8")
    return path


def mixed(histories: Histories, draw: random.Random) -> list[str]:
    """'user item' lines, users interleaved, each user's own in order."""
    left = {user: iter(items) for user, items in histories.items()}
    turns = [user for user, items in histories.items() for _ in items]
    draw.shuffle(turns)
    return [f"{user} {next(left[user])}\n" for user in turns]


def found(data: DataSet) -> Histories:
    """The histories in the data set, after checking that each event's time is its place."""
    result = {}
    for user, _, _, tokens in contents(data):
        assert [second for _, second, *_ in tokens] == list(range(len(tokens)))
        result[user] = [item for item, *_ in tokens]
    return result


@settings(deadline=None, max_examples=8)
@given(histories_of_anybody, st.randoms(use_true_random=False), st.integers(1, 2))
def test_both_formats_and_written_times_give_one_data_set(histories, draw, min_item_events):
    """The oracle is the csv reader with the places written out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = {"filters": {"min_item_events": min_item_events}, "output": {"events_per_shard": 7}}
        user_items = write_user_items(folder / "a.txt", histories)
        pairs = folder / "b.txt"
        pairs.write_text("".join(mixed(histories, draw)), encoding="utf-8")
        rows = [{"user": u, "item": i, "time": str(k)} for u, items in histories.items() for k, i in enumerate(items)]
        written = write_csv(folder / "c.csv", rows)
        unit = {"timestamp": {"name": "time", "unit": "s"}}
        same = {"split": {"kind": "leave_one_out"}, "statistics": {"graph": {"kind": "next"}}, "columns": unit}
        try:
            expected = run([written], folder / "written", **sections, **same)
        except InputError:
            expected = None
        for file, kind in ((user_items, "user_items"), (pairs, "pairs")):
            if expected is None:
                with pytest.raises(InputError, match="no event is left"):
                    run_lines([file], kind, folder / kind, **sections)
                continue
            data = run_lines([file], kind, folder / kind, **sections)
            assert contents(data) == contents(expected)
            assert data.manifest.fingerprint == expected.manifest.fingerprint
            assert data.manifest.times_are_places
            if min_item_events == 1:
                assert found(data) == histories


def test_a_large_log_keeps_its_order_whatever_the_threads(tmp_path):
    """More lines than the engine reads in one go, blocks of which it would hand to several threads; users interleaved."""
    draw = random.Random(2)
    turns = [f"u{int(draw.paretovariate(0.6)) % 700}" for _ in range(130_000)]
    histories: Histories = collections.defaultdict(list)
    for user in turns:
        histories[user].append(f"i{draw.randrange(3000)}")
    left = {user: iter(items) for user, items in histories.items()}
    pairs = [f"{user} {next(left[user])}\n" for user in turns]
    cut = 70_000
    late_name_first = [tmp_path / "z.txt", tmp_path / "a.txt.gz"]  # in the order listed, not by name
    late_name_first[0].write_text("".join(pairs[:cut]))
    late_name_first[1].write_bytes(gzip.compress("".join(pairs[cut:]).encode()))
    whole = write_user_items(tmp_path / "whole.txt", histories)
    fingerprints = set()
    for files, kind, threads in ((late_name_first, "pairs", 1), (late_name_first, "pairs", 4), ([whole], "user_items", 4)):
        data = run_lines(files, kind, tmp_path / "data", engine={"threads": threads})
        assert found(data) == histories
        fingerprints.add(data.manifest.fingerprint)
    assert len(fingerprints) == 1
    other_way = run_lines(late_name_first[::-1], "pairs", tmp_path / "data")
    assert found(other_way) != histories


@pytest.mark.parametrize("block", [1, 3, 50])
def test_blocks_leave_no_trace(tmp_path, monkeypatch, block):
    file = tmp_path / "log.txt"
    file.write_bytes(b"\xef\xbb\xbf\n \t \r\nu1\ta  b\r\n\nu2 c \n  u3 d\xc3\xa4 e f")
    monkeypatch.setattr(text_files, "CHUNK", max(block, 3))  # a byte order mark is never cut
    rows = [row for batch in lines.numbered([file, file], TextFormat()) for row in batch.to_pylist()]
    texts = ["u1\ta  b", "u2 c", "u3 dä e f"]
    assert [(row["file"], row["line"], row["text"]) for row in rows] == [
        (index, line, text) for index in (0, 1) for line, text in zip((3, 5, 6), texts)
    ]
    assert [row["number"] for row in rows] == list(range(6))
    monkeypatch.undo()
    assert found(run_lines([file], "user_items", tmp_path / "data")) == {"u1": ["a", "b"], "u2": ["c"], "u3": ["dä", "e", "f"]}


def test_an_item_bought_again_is_no_duplicate(tmp_path):
    histories = {"u": ["a", "a", "b", "a"], "v": ["b", "b"]}
    data = run_lines([write_user_items(tmp_path / "log.txt", histories)], "user_items", tmp_path / "data")
    assert found(data) == histories
    assert data.manifest.cleaning["duplicate"] == 0
    assert "histories of at most 4 events" in summary(data.manifest)
    assert "warning" not in summary(data.manifest)


def test_what_is_not_an_event_is_counted_and_leaves_no_gap(tmp_path):
    file = tmp_path / "log.txt"
    file.write_text("u a\nu\n\nu b extra\nu c\nv d\n  \n")
    data = run_lines([file], "pairs", tmp_path / "data")
    cleaning = {name: count for name, count in data.manifest.cleaning.items() if count}
    assert cleaning == {"rows read": 5, "missing item": 1, "more than two words": 1, "events kept": 3}
    assert found(data) == {"u": ["a", "c"], "v": ["d"]}
    file.write_text("u a b\nw\n\nv c\n")
    data = run_lines([file], "user_items", tmp_path / "data")
    assert {name: count for name, count in data.manifest.cleaning.items() if count} == {
        "rows read": 4,
        "missing item": 1,
        "events kept": 3,
    }
    assert found(data) == {"u": ["a", "b"], "v": ["c"]}


def refused(tmp_path: Path, files: list[Path], kind: str, error: type[AttnrecError] = InputError) -> str:
    with pytest.raises(error) as caught:
        run_lines(files, kind, tmp_path / "data")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".*preparing"))
    return str(caught.value)


def has(message: str, *parts: str) -> None:
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in: {message}"


@pytest.mark.parametrize("kind", ["user_items", "pairs"])
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty"]),
        (b"\n \n\r\n", ["no line that is not blank"]),
        (b"u a\nv \xff\n", ["line 2", "UTF-8", "input.format"]),
        (b"\nu\nv\nw a\n", ["2 of 3", "missing item", "line 2 of", "'u'", "line 3 of"]),
    ],
)
def test_bad_lines_are_told_with_their_place(tmp_path, kind, content, parts):
    (tmp_path / "log.txt").write_bytes(content)
    has(refused(tmp_path, [tmp_path / "log.txt"], kind), "log.txt", *parts)


def test_pairs_of_more_than_two_words(tmp_path):
    (tmp_path / "ratings.txt").write_text("1 5 4 978300760\n1 6 3 978302109\n")
    message = refused(tmp_path, [tmp_path / "ratings.txt"], "pairs")
    has(message, "more than two words", "line 1 of", "'1 5 4 978300760'", "is input.format right")


def test_a_user_with_two_lines_of_user_items(tmp_path):
    (tmp_path / "a.txt").write_text("u a b\n\nv c\n")
    (tmp_path / "b.txt").write_text("w a\n\tv\td\n")
    message = refused(tmp_path, [tmp_path / "a.txt", tmp_path / "b.txt"], "user_items")
    has(message, "'v' has 2 lines", "a.txt:3", "b.txt:2", "input.format: pairs")


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 1000)
    monkeypatch.setattr(text_files, "CHUNK", 500)
    (tmp_path / "log.bin").write_bytes(b"u a\n" + b"x" * 5000)
    has(refused(tmp_path, [tmp_path / "log.bin"], "pairs"), "line 2 is longer than 1,000 bytes", "input.format")


def test_a_pattern_does_not_tell_the_order_of_pairs(tmp_path):
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_text(f"u{name} a\n")
    has(refused(tmp_path, [tmp_path / "*.txt"], "pairs"), "*.txt", "list them one by one")
    assert len(found(run_lines([tmp_path / "*.txt"], "user_items", tmp_path / "data"))) == 2
    (tmp_path / "[1]*.txt").write_text("u a\n")  # the name of a file
    assert found(run_lines([tmp_path / "[1]*.txt"], "pairs", tmp_path / "other")) == {"u": ["a"]}


def test_files_that_are_not_there_or_damaged(tmp_path):
    (tmp_path / "log.txt").write_text("u a\n")
    for kind in ("pairs", "user_items"):
        has(refused(tmp_path, [tmp_path / "lag.txt"], kind), "no such file", "did you mean log.txt?", "--input.files")
    draw = random.Random(0)
    content = "".join(f"u{draw.random()} i{draw.random()}\n" for _ in range(20_000)).encode()
    (tmp_path / "log.txt.gz").write_bytes(gzip.compress(content)[:200_000])
    has(refused(tmp_path, [tmp_path / "log.txt.gz"], "pairs"), "log.txt.gz", "cannot be unpacked")
    (tmp_path / "log.txt.bz2").write_bytes(b"anything")
    has(refused(tmp_path, [tmp_path / "log.txt.bz2"], "pairs"), "compression cannot be read")
    with pa.output_stream(str(tmp_path / "log.txt.zst"), compression="zstd") as stream:
        stream.write(b"u a b\n")
    assert found(run_lines([tmp_path / "log.txt.zst"], "user_items", tmp_path / "data")) == {"u": ["a", "b"]}


@pytest.mark.parametrize("kind", ["user_items", "pairs"])
@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"columns": {"user": "u"}}, ["columns", "has none to name", "leave it out"]),
        ({"input": {"delimiter": " "}}, ["input", "delimiter is of csv and tsv files"]),
        ({"input": {"header": False}}, ["header is of csv and tsv files"]),
        ({"split": {"kind": "time"}}, ["split.kind", "set it to leave_one_out"]),
        ({"split": {"validation_from": "2020-01-01", "test_from": "2020-02-01"}}, ["no cuts in time"]),
        ({"statistics": {"graph": {"kind": "basket"}}}, ["statistics.graph.kind", "set it to next or none"]),
        ({"filters": {"where": {"price": {"min": 1}}}}, ["filters.where", "no numbers"]),
    ],
)
def test_keys_that_make_no_sense_are_refused(kind, sections, parts):
    with pytest.raises(ConfigError) as caught:
        config_of([Path("log.txt")], kind, **sections)
    has(str(caught.value), *parts)


def test_columns_is_required_elsewhere():
    with pytest.raises(ConfigError, match="columns: this key is required"):
        config_of([Path("log.csv")], "csv")


@pytest.mark.parametrize("kind", ["user_items", "pairs"])
def test_the_complete_configuration_can_be_read_back(kind):
    config = config_of([Path("log.txt")], kind, statistics={"graph": {"within": 2}})
    assert (config.split.kind, config.statistics.graph.kind) == ("leave_one_out", "next")
    assert build(PrepareConfig, parse_yaml(to_yaml(config), "t"), "t") == config


REAL = {
    "beauty": (22_363, 12_101, 198_502),
    "sports": (35_598, 18_357, 296_337),
    "ml-1m": (6_040, 3_416, 999_611),
}


@pytest.mark.parametrize("name", REAL)
def test_the_published_benchmarks_come_out_whole(name, tmp_path):
    file = ROOT / "configs" / "prepare" / f"{name}.yaml"
    config = build(PrepareConfig, parse_yaml(file.read_text(), name), name)
    if not (file.parent / config.input.files[0]).exists():
        pytest.skip("the file is not bundled")
    manifest = prepare(config, file.parent, tmp_path / "data")
    users, items, events = REAL[name]
    assert (manifest.counts.rows, manifest.num_items, manifest.num_all_items, manifest.counts.events) == (
        users,
        items,
        items,
        events,
    )
    assert manifest.counts.validation_events == manifest.counts.test_events == users
