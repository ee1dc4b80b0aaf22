"""Changes to a log after which prepare must give the same data set: how it is written is not what it says."""

from __future__ import annotations

import csv
import decimal
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from logs import Attempt, Expected, Layout
from odd import ODD_COLUMNS, ODD_NAMES

Change = Callable[[Attempt, random.Random], None]
TABLES = ("shop", "labelled", "clicks")
EVERY = (*TABLES, "user_items", "pairs")
NEUTRAL: dict[str, tuple[Change, tuple[str, ...]]] = {}  # name -> the change, and the logs that it fits


def neutral(*bases: str, name: str = "") -> Callable[[Change], Change]:
    def register(change: Change) -> Change:
        NEUTRAL[name or change.__name__.replace("_", " ")] = (change, bases or TABLES)
        return change

    return register


@neutral()
def rows_in_another_order(attempt: Attempt, draw: random.Random) -> None:
    draw.shuffle(attempt.rows)


@neutral()
def columns_in_another_order(attempt: Attempt, draw: random.Random) -> None:
    order = draw.sample(range(len(attempt.names)), len(attempt.names))
    attempt.names = [attempt.names[place] for place in order]
    attempt.rows = [[row[place] for place in order] for row in attempt.rows]


@neutral()
def a_column_more(attempt: Attempt, draw: random.Random) -> None:
    """Nobody asked for it, whatever it is called and holds; a name of its own to the letter."""
    if draw.random() < 0.5:
        _to_parquet(attempt, draw)
    name = draw.choice([odd for odd in ODD_COLUMNS if odd not in attempt.names])
    place = draw.randint(0, len(attempt.names))
    values = draw.choice(
        [["wrong"], ["1", "2"], ["x, y", "z"], ['say "so"'], ["two\nlines", "one"], [""], ["ü\u202e😀"], ["u1", "u2"]]
    )
    attempt.names = [*attempt.names[:place], name, *attempt.names[place:]]
    attempt.rows = [[*row[:place], draw.choice(values), *row[place:]] for row in attempt.rows]
    attempt.said.append(f"{name!r} holding {values[0]!r} at {place}")


@neutral(*EVERY)
def line_ends(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.ends = draw.choice([("\r\n",), ("\r\n", "\n"), ("\n", "\n", "\r\n")])
    attempt.said.append(repr(attempt.layout.ends))


@neutral()
def carriage_returns_alone(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.ends = ("\r",)


@neutral(*EVERY)
def no_end_of_the_last_line(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.last_end = False


@neutral()
def everything_quoted(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.quoting = csv.QUOTE_ALL


@neutral()
def another_quote(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.quote, attempt.layout.quoting = "'", csv.QUOTE_ALL
    attempt.config["input"]["quote"] = "'"


@neutral()
def another_delimiter(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.delimiter = draw.choice([";", "|", "\t", ":", "^", " ", "\x01", "~"])
    attempt.config["input"]["delimiter"] = attempt.layout.delimiter
    attempt.said.append(repr(attempt.layout.delimiter))


@neutral()
def tabs(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.suffix, attempt.layout.delimiter = draw.choice(["tsv", "tab"]), "\t"


@neutral(*EVERY)
def compressed(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.pack = draw.choice(["gz", "gz members", "zst", "zst frames", "zst checked"])
    attempt.said.append(attempt.layout.pack)


@neutral()
def several_files(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.files = draw.randint(2, 5)


@neutral()
def a_byte_order_mark(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.bom = True


@neutral()
def no_header(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.header = False
    attempt.config["input"] |= {"header": False, "names": list(attempt.names)}


@neutral(*EVERY)
def another_file_name(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.name = draw.choice(ODD_NAMES)
    attempt.said.append(repr(attempt.layout.name))
    if "\n" in attempt.layout.name:
        attempt.expect(Expected.SAME_OR_REFUSED)


@neutral(*EVERY)
def behind_a_link(attempt: Attempt, draw: random.Random) -> None:
    def link(folder: Path) -> None:
        for path in list(folder.glob(f"{attempt.layout.name.replace('[', '[[]')}*")):
            (folder / "elsewhere").mkdir(exist_ok=True)
            moved = folder / "elsewhere" / path.name
            path.rename(moved)
            path.symlink_to(moved)

    attempt.folder_changes.append(link)


@neutral(*EVERY)
def the_engine(attempt: Attempt, draw: random.Random) -> None:
    attempt.config["engine"] = draw.choice([{"threads": 2}, {"threads": 3, "memory_limit": "0.3GB"}, {"memory_limit": "190 MiB"}])
    attempt.config["output"]["events_per_shard"] = draw.choice([1, 7, 100, 10**12])


@neutral(*TABLES)
def columns_of_other_names(attempt: Attempt, draw: random.Random) -> None:
    """But for the numeric ones, whose names are the data set's."""
    for key, whole in list(attempt.config["columns"].items()):
        old = whole["name"] if isinstance(whole, dict) else whole
        if key == "numeric" or old not in attempt.names:
            continue
        new = draw.choice(
            [
                old.upper(),
                f"{old} ",
                f"the {old}",
                f"{old},1",
                f'"{old}"',
                f"{old}'s",
                f"{old}\n2",
                old * 300,
                f"é{old}",
                f"{old}😀",
            ]
        )
        attempt.names[attempt.column(old)] = new
        attempt.config["columns"][key] = whole | {"name": new} if isinstance(whole, dict) else new
        if old in attempt.layout.types:
            attempt.layout.types[new] = attempt.layout.types.pop(old)
        attempt.said.append(repr(new[:40]))
        if "\n" in new:
            attempt.expect(Expected.SAME_OR_REFUSED)


# Parquet


def _to_parquet(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout = Layout(suffix="parquet", name=attempt.layout.name, files=attempt.layout.files)
    attempt.config["input"] = {"files": []}
    attempt.layout.parquet = draw.choice(
        [
            {},
            {"compression": "snappy"},
            {"compression": "none"},
            {"row_group_size": 7},
            {"use_dictionary": False},
            {"version": "1.0"},
        ]
    )


@neutral()
def parquet(attempt: Attempt, draw: random.Random) -> None:
    _to_parquet(attempt, draw)


def _as(kind: pa.DataType, function: Callable[[str], Any] = lambda text: text) -> Callable[[list[Any]], pa.Array]:
    return lambda texts: pa.array([None if text is None else function(text) for text in texts], kind)


def _timestamps(unit: str, zone: str | None = None) -> Callable[[list[Any]], pa.Array]:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return lambda texts: pa.array([int(text) * factor for text in texts], pa.int64()).cast(pa.timestamp(unit, zone))


PARQUET_IDS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
PARQUET_TIMES: dict[str, tuple[Expected, Callable[[list[Any]], pa.Array]]] = {
    "int64": (Expected.SAME, _as(pa.int64(), int)),
    "int32": (Expected.SAME, _as(pa.int32(), int)),
    "uint64": (Expected.SAME, _as(pa.uint64(), int)),
    "double": (Expected.SAME, _as(pa.float64(), float)),
    "timestamp s": (Expected.SAME, _timestamps("s")),
    "timestamp ms": (Expected.SAME, _timestamps("ms")),
    "timestamp us": (Expected.SAME, _timestamps("us")),
    "timestamp ns": (Expected.SAME_OR_REFUSED, _timestamps("ns")),
    "timestamp UTC": (Expected.SAME, _timestamps("us", "UTC")),
    "timestamp elsewhere": (Expected.SAME_OR_REFUSED, _timestamps("ms", "Asia/Tokyo")),
    "decimal": (Expected.SAME_OR_REFUSED, _as(pa.decimal128(20, 2), decimal.Decimal)),
}
PARQUET_NUMBERS: dict[str, Callable[[list[Any]], pa.Array]] = {
    "int8": _as(pa.int8(), int),
    "uint16": _as(pa.uint16(), int),
    "float": _as(pa.float32(), float),
    "double": _as(pa.float64(), float),
    "decimal": _as(pa.decimal128(10, 3), decimal.Decimal),
    "text": _as(pa.string()),
}


@neutral()
def parquet_with_types(attempt: Attempt, draw: random.Random) -> None:
    _to_parquet(attempt, draw)
    plain = attempt.config["columns"]["timestamp"] == "time" and "time" in attempt.names
    if not plain or not all(row[attempt.column("time")].isdigit() for row in attempt.rows):
        return
    if attempt.rows:
        time = draw.choice(list(PARQUET_TIMES))
        expected, attempt.layout.types["time"] = PARQUET_TIMES[time]
        attempt.expect(expected)
        number = draw.choice(list(PARQUET_NUMBERS))
        attempt.layout.types["quantity"] = PARQUET_NUMBERS[number]
        attempt.said.append(f"time {time}, quantity {number}")
    if attempt.base == "clicks" and draw.random() < 0.7:
        ids = draw.choice([pa.int64(), pa.int32(), pa.uint32(), pa.float64()])
        for name in ("user", "item"):
            attempt.layout.types[name] = _as(ids, float if ids == pa.float64() else int)
    else:
        ids = draw.choice(PARQUET_IDS)
        for name in ("user", "item", "kind"):
            attempt.layout.types[name] = _as(ids)
    attempt.said.append(f"ids {ids}")


# numbers, kinds, YAML


@neutral("shop", "labelled")
def numbers_written_otherwise(attempt: Attempt, draw: random.Random) -> None:
    shape = draw.choice(["{}.0", "{}.", "+{}", "{}e0", "0{}", "{}.000000000000001"])
    attempt.change("quantity", shape.format)
    attempt.said.append(shape)
    attempt.expect(Expected.SAME if shape == "{}.0" else Expected.SAME_OR_REFUSED)


@neutral("shop", "labelled")
def kinds_renamed_back(attempt: Attempt, draw: random.Random) -> None:
    other = {"view": draw.choice(["VIEW", "see", "null", "it's", ""]), "buy": draw.choice(["Buy", "kaufen", "no", "1"])}
    attempt.change("kind", lambda kind: other.get(kind, kind))
    column = attempt.config["columns"]["event"]
    name = column["name"] if isinstance(column, dict) else column
    attempt.config["columns"]["event"] = {"name": name, "rename": {new: old for old, new in other.items()}}
    if "" in other.values():
        attempt.expect(Expected.COUNTED)


def _yaml_change(attempt: Attempt, change: Callable[[str], str]) -> None:
    attempt.yaml_changes.append(change)


YAML_FORMS: dict[str, Callable[[str], str]] = {
    "Windows lines": lambda text: text.replace("\n", "\r\n"),
    "comments": lambda text: "# é comment\n" + text.replace("\n", "   # so\n", 3) + "\n# end",
    "document marks": lambda text: f"---\n{text}...\n",
    "a byte order mark": lambda text: "\ufeff" + text,
    "blank lines": lambda text: text.replace("\n", "\n\n") if "- " not in text else text + "\n\n\n",
    "no last newline": lambda text: text.rstrip("\n"),
}


@neutral(*EVERY)
def yaml_written_otherwise(attempt: Attempt, draw: random.Random) -> None:
    form = draw.choice(list(YAML_FORMS))
    attempt.yaml_changes.append(YAML_FORMS[form])
    attempt.said.append(form)


@neutral(*EVERY)
def output_by_option(attempt: Attempt, draw: random.Random) -> None:
    attempt.config["output"]["dir"] = "elsewhere"
    attempt.arguments += draw.choice(
        [["--output", "data"], ["--output=data"], ["--output.dir", "data"], ["--output", "./x/../data"]]
    )
    attempt.folder_changes.append(lambda folder: os.makedirs(folder / "x", exist_ok=True))
