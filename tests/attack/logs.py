"""A log before it is written: rows and columns, how the files shall look, its YAML and its options.

An attempt starts from one of BASES, small logs that prepare reads, and says what may come of it (Expected).
"""

from __future__ import annotations

import copy
import csv
import enum
import gzip
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from zstd_frame import zstd_frame

DAY = 86_400
START = 1_300_000_000


class Expected(enum.IntEnum):
    """What may come out; of two changes the larger one counts."""

    SAME = 0  # the unchanged log's data set: this is promised
    SAME_OR_REFUSED = 1
    COUNTED = 2  # what the independent reader counts, or refused
    REFUSED = 3


@dataclass
class Layout:
    """How the files are written."""

    suffix: str = "csv"  # csv, tsv, parquet, txt
    delimiter: str = ","
    quote: str = '"'
    quoting: int = csv.QUOTE_MINIMAL
    ends: tuple[str, ...] = ("\n",)  # of lines, taken in turn
    last_end: bool = True
    header: bool = True
    encoding: str = "utf-8"
    bom: bool = False
    pack: str = ""  # "", gz, gz members, zst, zst frames, zst checked
    files: int = 1
    name: str = "log"
    types: dict[str, Any] = field(default_factory=dict)  # of Parquet: column -> function of its texts to an Arrow array
    parquet: dict[str, Any] = field(default_factory=dict)  # further arguments of pyarrow's writer


@dataclass
class Attempt:
    base: str
    names: list[str]
    rows: list[list[str]]
    config: dict[str, Any]
    layout: Layout = field(default_factory=Layout)
    text_changes: list[Callable[[bytes], bytes]] = field(default_factory=list)  # of a file's text, before it is packed
    byte_changes: list[Callable[[bytes], bytes]] = field(default_factory=list)  # of the file as it is stored
    yaml_changes: list[Callable[[str], str]] = field(default_factory=list)
    folder_changes: list[Callable[[Path], None]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    expected: Expected = Expected.SAME
    said: list[str] = field(default_factory=list)  # what was done to it

    def expect(self, expected: Expected) -> None:
        self.expected = max(self.expected, expected)

    def column(self, name: str) -> int:
        return self.names.index(name)

    def change(self, name: str, function: Callable[[str], str]) -> None:
        """Every value of a column; nothing where another change has taken it away."""
        if name in self.names:
            place = self.column(name)
            for row in self.rows:
                row[place] = function(row[place])

    @property
    def used(self) -> set[str]:
        """The columns that the config names."""
        columns = self.config.get("columns", {})
        plain = [each["name"] if isinstance(each, dict) else each for key, each in columns.items() if key != "numeric"]
        return {*plain, *columns.get("numeric", [])}

    @property
    def is_lines(self) -> bool:
        return self.base in ("user_items", "pairs")

    @property
    def is_text(self) -> bool:
        return self.layout.suffix != "parquet"


def shop(draw: random.Random) -> Attempt:
    """Baskets of views and purchases, with a number."""
    rows = []
    for user in range(24):
        for day in sorted(draw.sample(range(100), draw.randint(2, 6))):
            time = START + day * DAY + draw.randrange(DAY)
            for item in draw.sample(range(20), draw.randint(1, 4)):
                rows.append([f"u{user}", f"item-{item}", str(time), draw.choice(["view", "buy"]), str(draw.randint(1, 9))])
    columns = {"user": "user", "item": "item", "timestamp": "time", "event": "kind", "numeric": ["quantity"]}
    return Attempt("shop", ["user", "item", "time", "kind", "quantity"], rows, _config(columns))


def labelled(draw: random.Random) -> Attempt:
    """The same with labelled examples."""
    made = shop(draw)
    made.base = "labelled"
    made.config |= {
        "label": {"kind": "follow_up", "on": ["view"], "events": ["buy"], "within": "20d"},
        "features": {"buys": {"kind": "count", "of": "user", "events": ["buy"]}, "weekday": {"kind": "weekday"}},
    }
    return made


def clicks(draw: random.Random) -> Attempt:
    """Ids that are numbers, distinct times, no kinds of events."""
    rows = []
    for user in range(20):
        time = START + draw.randrange(DAY)
        for _ in range(draw.randint(2, 15)):
            time += draw.randint(10, 5 * DAY)
            rows.append([str(1000 + user), str(draw.randrange(1, 30)), str(time)])
    return Attempt("clicks", ["user", "item", "time"], rows, _config({"user": "user", "item": "item", "timestamp": "time"}))


def user_items(draw: random.Random) -> Attempt:
    """A line a user; a row here is its words."""
    rows = [[str(user + 1), *(str(draw.randrange(1, 25)) for _ in range(draw.randint(3, 9)))] for user in range(20)]
    return _lines("user_items", rows)


def pairs(draw: random.Random) -> Attempt:
    rows = [[f"u{draw.randrange(15)}", f"i{draw.randrange(20)}"] for _ in range(120)]
    return _lines("pairs", rows)


BASES = {"shop": shop, "labelled": labelled, "clicks": clicks, "user_items": user_items, "pairs": pairs}


def made(base: str) -> Attempt:
    """Always the same log."""
    return BASES[base](random.Random(base))


def _config(columns: dict[str, Any]) -> dict[str, Any]:
    return {
        "input": {"files": ["log.csv"]},
        "columns": columns,
        "split": {"kind": "time", "train": 0.7, "validation": 0.15, "test": 0.15},
        "output": {"dir": "data"},
        "engine": {"memory_limit": "200MB", "threads": 1},
    }


def _lines(kind: str, rows: list[list[str]]) -> Attempt:
    config = {
        "input": {"files": ["log.txt"], "format": kind},
        "output": {"dir": "data"},
        "engine": {"memory_limit": "200MB", "threads": 1},
    }
    layout = Layout(suffix="txt", delimiter=" ", header=False, quoting=csv.QUOTE_NONE)
    return Attempt(kind, [], rows, config, layout)


def write(attempt: Attempt, folder: Path) -> list[Path]:
    """Writes the log, prepare.yaml and, where the config has them, further files; returns the log's files."""
    files = []
    tree = copy.deepcopy(attempt.config)
    for index, rows in enumerate(_parts(attempt)):
        path = folder / _file_name(attempt.layout, index)
        data = packed(parquet_bytes(attempt, rows), "") if not attempt.is_text else _text_file(attempt, rows)
        for change in attempt.byte_changes:
            data = change(data)
        path.write_bytes(data)
        files.append(path)
    if isinstance(tree.get("input"), dict) and "files" in tree["input"]:
        tree["input"]["files"] = [path.name.replace("[", "[[]") for path in files]
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    for change in attempt.yaml_changes:
        text = change(text)
    (folder / "prepare.yaml").write_bytes(_encoded(text))
    for change in attempt.folder_changes:
        change(folder)
    return files


def _encoded(text: str) -> bytes:
    """Bytes that are no UTF-8 come as surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _parts(attempt: Attempt) -> list[list[list[str]]]:
    count = attempt.layout.files
    size = -(-len(attempt.rows) // count)
    return [attempt.rows[place * size : (place + 1) * size] for place in range(count)] if count > 1 else [attempt.rows]


def _file_name(layout: Layout, index: int) -> str:
    number = f"-{index:02}" if layout.files > 1 else ""
    pack = f".{layout.pack.split()[0]}" if layout.pack and layout.suffix != "parquet" else ""
    return f"{layout.name}{number}.{layout.suffix}{pack}"


def _text_file(attempt: Attempt, rows: list[list[str]]) -> bytes:
    data = text_bytes(attempt, rows)
    for change in attempt.text_changes:
        data = change(data)
    return packed(data, attempt.layout.pack)


def text_bytes(attempt: Attempt, rows: list[list[str]]) -> bytes:
    layout = attempt.layout
    lines = []
    for row in ([attempt.names] if layout.header else []) + rows:
        if layout.quoting == csv.QUOTE_NONE:
            lines.append(layout.delimiter.join(row))
            continue
        text = io.StringIO()
        writer = csv.writer(
            text, delimiter=layout.delimiter, lineterminator="\r\n", quotechar=layout.quote, quoting=layout.quoting
        )
        writer.writerow(row)
        lines.append(text.getvalue().removesuffix("\r\n"))  # which tells the writer what to quote
    ends = [layout.ends[place % len(layout.ends)] for place in range(len(lines))]
    whole = "".join(line + end for line, end in zip(lines, ends, strict=True))
    if not layout.last_end and ends:
        whole = whole.removesuffix(ends[-1])
    return (b"\xef\xbb\xbf" if layout.bom else b"") + whole.encode(layout.encoding, "replace")


def packed(data: bytes, pack: str) -> bytes:
    half = len(data) // 2
    match pack:
        case "gz":
            return gzip.compress(data, mtime=0)
        case "gz members":
            return gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)
        case "zst":
            return pa.compress(data, "zstd", asbytes=True)
        case "zst frames":
            return pa.compress(data[:half], "zstd", asbytes=True) + pa.compress(data[half:], "zstd", asbytes=True)
        case "zst checked":
            return zstd_frame(data)
    return data


def parquet_bytes(attempt: Attempt, rows: list[list[str]]) -> bytes:
    arrays = []
    for place, name in enumerate(attempt.names):
        texts = [row[place] if place < len(row) else None for row in rows]
        make = attempt.layout.types.get(name, pa.array)
        arrays.append(make(texts))
    sink = io.BytesIO()
    table = pa.Table.from_arrays(arrays, names=attempt.names)
    pq.write_table(table, sink, **{"write_page_checksum": True, "compression": "zstd"} | attempt.layout.parquet)
    return sink.getvalue()
