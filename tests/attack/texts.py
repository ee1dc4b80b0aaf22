"""Changes to the YAML and to the command line of prepare."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile import _block_doubled, _cut, _flip, _with_junk, _without_block
from logs import Attempt, Expected
from neutral import EVERY, Change

TEXTS: dict[str, tuple[Change, tuple[str, ...]]] = {}  # as NEUTRAL
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 10**18, 10**400, 0.5, 1e308, float("inf"), float("nan"), "", " ", "é", "x" * 100_000, "\x00", "a\x00b", [], [[]], {},
    {"a": 1}, ["a", "b"], [None], "null", "~", "1e3", "0o17", "1:30", "2011-01-01", "no", "/", "/dev/null", "/dev/full", "..", "*", "[", "-", "--", "'", '"',
    "\t", ",,", "UTC", "Mars/Base", "../../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x", "s3://bucket/x", "~root", "$HOME", "%Y", "%", "100GB",
    "-1GB", "0MB", "1e3MB", "99999999TB", 1_000_000,
]  # fmt: skip
ODD_YAML = [
    "? [a]\n: 1\n", "? {a: b}\n: 1\n", "[" * 1000 + "]" * 1000, "{a: " * 500 + "}" * 500, "- " * 2000, "x: " + "9" * 4301, "x: -" + "9" * 5000, "x: 1e" + "9" * 100,
    "a: &a [1, 2]\nb: *a\n", "a: *unknown\n", "<<: {input: 1}\n", "a: &a {<<: *a}\n", "&a [*a]\n", "a: !!python/object/apply:os.system ['id']\n",
    "a: !!binary '#'\n", "a: !!timestamp x\n", "a: !!int x\n", "a: !!float x\n", "a: !!set {a}\n", "a: !!omap [1]\n", "a: !unknown 1\n", "\tinput: 1\n", "a: 'unclosed\n",
    'a: "\\x"\n', "a: |\n  text\n b\n", "%YAML 9.9\n---\n", "a: b: c\n", "---\na: 1\n---\nb: 2\n", "\x00", "\x07", "\ud800", "﻿﻿a: 1\n", "a:\n- b\n c: d\n", "input\n", "42\n", "", "\n",
    "~\n", "[]\n", "...\n", "a: 2011-01-01T00:00:00\n", ": 1\n", "null: 1\n", "1: 2\n", "true: 1\n", "[a]: 1\n", "!!map {}\n", "'': 1\n", "a: 0b1_\n", "a: .\n", "=: 1\n",
    "a: &x [z,z,z,z,z,z,z,z,z]\nb: &y [*x,*x,*x,*x,*x,*x,*x,*x,*x]\nc: &w [*y,*y,*y,*y,*y,*y,*y,*y,*y]\nd: &v [*w,*w,*w,*w,*w,*w,*w,*w,*w]\ne: &u [*v,*v,*v,*v,*v,*v,*v,*v,*v]\n"
    "f: &t [*u,*u,*u,*u,*u,*u,*u,*u,*u]\ng: &s [*t,*t,*t,*t,*t,*t,*t,*t,*t]\n",
]  # fmt: skip
ODD_OPTIONS = [
    ["--nonsense"], ["--nonsense", "1"], ["--input"], ["--output"], ["--output", ""], ["--output", "prepare.yaml"], ["--output", "full"], ["--output", "/dev/null"],
    ["--output", "."], ["--output", ".."], ["--output", "a/b/c/d"], ["--output", "x" * 300], ["--output", "/proc/x"], ["--output", "log.csv"], ["--output", "fifo"],
    ["--input", "nowhere.csv"], ["--input", "."], ["--input", "*"], ["--input", "fifo"], ["--input", "full"], ["--input", "/dev/zero"], ["--input", "/dev/null"], ["--input", "prepare.yaml"],
    ["--input", "log.csv", "log.csv"], ["--input", ""], ["--engine.threads", "1000000"], ["--engine.threads", "-1"], ["--engine.threads", "9" * 4301], ["--engine.threads"],
    ["--engine.memory_limit", "1KB"], ["--engine.memory_limit", "0MB"], ["--engine.memory_limit", "9999999TB"], ["--engine.memory_limit=200MB"],
    ["--filters.min_item_events", "1000000000"], ["--filters.min_item_events", "9" * 30], ["--filters.min_user_events=-5"], ["--columns.user", "Item"], ["--columns.user", ""],
    ["--columns.user", "[a]"], ["--columns.user", "item"], ["--columns.timestamp.unit", "ns"], ["--columns.timestamp.unit", "parsec"], ["--columns.timestamp.format", "%"],
    ["--columns.timestamp.format", "%q"], ["--columns.timestamp.time_zone", "../../etc/passwd"], ["--columns.timestamp.time_zone", "Europe/London"], ["--split.train", "nan"],
    ["--split.train", "1", "--split.validation", "0", "--split.test", "0"], ["--split.train", "1e-9", "--split.validation", "0.9", "--split.test", "0.099999999"],
    ["--split.kind", "leave_one_out"], ["--split.kind", "leave_one_out", "--split.last", "1000000000"], ["--split.validation_from", "2011-01-01"], ["--input.quote", ","], ["--input.quote", "xx"],
    ["--split.validation_from", "2011-05-01", "--split.test_from", "2011-04-01"], ["--split.validation_from", "2011-05-01", "--split.test_from", "2011-06-01"],
    ["--input.delimiter", '"'], ["--input.delimiter", "\n"], ["--input.delimiter", "\\r"], ["--input.delimiter", "é"], ["--input.delimiter", "\0"], ["--input.max_bad_share", "2"], ["--input.end", "2011-04-01"],
    ["--input.end", "1011-04-01"], ["--input.end", "99999-01-01"], ["--input.format", "parquet"], ["--input.format", "pairs"], ["--input.format", "json"], ["--input.header", "false"], ["--statistics.graph.kind", "none"],
    ["--statistics.graph.kind", "next", "--statistics.graph.within", "100"], ["--statistics.graph.neighbours", "1000000000"], ["--statistics.graph.max_basket", "2"], ["--statistics.events", "[nothing]"], ["--output.events_per_shard", "1"],
    ["--a.b.c.d.e.f", "1"], ["--.", "1"], ["--input..files", "1"], ["--input.files.0", "x"], ["--input", "log.csv", "--input", "log.csv"], ["-x"], ["--"], ["extra"], ["--help"], ["--print_config"], ["--print_config", "--nonsense"],
    ["--items.file", "nowhere.csv"], ["--items.file", "log.csv"], ["--items.file", "log.csv", "--items.id", "item", "--items.columns.title", "user"], ["--users.file", "log.csv", "--users.id", "nothing", "--users.columns.x", "item"],
    ["--items.file", "log.csv", "--items.id", "time", "--items.columns.title", "user"], ["--filters.where", "{time: {min: 2, max: 1}}"], ["--filters.where", "{user: {min: 2}}"], ["--filters.where", "{'a\"b': {min: 2}}"],
]  # fmt: skip


def text_change(change: Change) -> Change:
    def expecting(attempt: Attempt, draw: random.Random) -> None:
        attempt.expect(Expected.COUNTED)
        change(attempt, draw)

    TEXTS[change.__name__.replace("_", " ")] = (expecting, EVERY)
    return change


def _nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything below the root."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from _nodes(value, (*path, key))


def _parent(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


@text_change
def a_key_misspelt(attempt: Attempt, draw: random.Random) -> None:
    keys = [path for path in _nodes(attempt.config) if isinstance(path[-1], str) and not {"rename", "features"} & set(path[:-1])]
    path = draw.choice(keys)
    node = _parent(attempt.config, path)
    key = path[-1]
    place = draw.randrange(len(key))
    other = draw.choice([key[:place] + key[place + 1 :], key + "s", key.upper(), key.replace("_", "-") + "_", key[:place] + "x" + key[place:], f" {key}", ""])
    node[other] = node.pop(key)
    attempt.said.append(f"{'.'.join(map(str, path))} -> {other!r}")
    attempt.expect(Expected.REFUSED)


@text_change
def a_value_of_another_kind(attempt: Attempt, draw: random.Random) -> None:
    path = draw.choice(list(_nodes(attempt.config)))
    value = draw.choice(ODD_VALUES)
    _parent(attempt.config, path)[path[-1]] = value
    attempt.said.append(f"{'.'.join(map(str, path))} = {str(value)[:40]!r}")


@text_change
def a_key_lost(attempt: Attempt, draw: random.Random) -> None:
    path = draw.choice([path for path in _nodes(attempt.config) if isinstance(path[-1], str)])
    del _parent(attempt.config, path)[path[-1]]
    attempt.said.append(".".join(map(str, path)))


@text_change
def a_key_more(attempt: Attempt, draw: random.Random) -> None:
    path = draw.choice([path for path in _nodes(attempt.config) if isinstance(path[-1], str)])
    node = _parent(attempt.config, path)
    node[draw.choice(["nothing", "", "null", "x" * 1000, "file", "user", "a.b", "__class__", "model_fields"])] = draw.choice(ODD_VALUES)
    attempt.said.append(f"{'.'.join(map(str, path[:-1]))} has {list(node)[-1][:30]!r}")


@text_change
def yaml_damaged(attempt: Attempt, draw: random.Random) -> None:
    change = draw.choice([_flip, _flip, _cut, _without_block, _block_doubled, _with_junk])
    seed = draw.random()
    attempt.yaml_changes.append(lambda text: change(text.encode(), random.Random(seed)).decode("utf-8", "surrogateescape"))
    attempt.said.append(change.__name__)


@text_change
def odd_yaml(attempt: Attempt, draw: random.Random) -> None:
    odd = draw.choice(ODD_YAML)
    forms: list[Callable[[str], str]] = [lambda _: odd, lambda text: text + odd, lambda text: odd + text]
    attempt.yaml_changes.append(draw.choice(forms))
    attempt.said.append(repr(odd[:40]))


@text_change
def odd_options(attempt: Attempt, draw: random.Random) -> None:
    for options in draw.sample(ODD_OPTIONS, draw.choice([1, 1, 1, 2])):
        attempt.arguments += options
        attempt.said.append(" ".join(options)[:60])

    def prepare(folder: Path) -> None:
        import os

        (folder / "full").mkdir()
        (folder / "full" / "diary.txt").write_text("mine")
        os.mkfifo(folder / "fifo")

    attempt.folder_changes.append(prepare)
