"""Changes to a log that damage it or mean something: read as an independent reader counts it, or refused."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from logs import Attempt, Expected, Layout
from neutral import EVERY, TABLES, Change
from odd import JUNK, ODD_IDS, ODD_NUMBERS, ODD_TIMES

HOSTILE: dict[str, tuple[Change, tuple[str, ...]]] = {}  # as NEUTRAL


def hostile(*bases: str) -> Callable[[Change], Change]:
    def register(change: Change) -> Change:
        def expecting(attempt: Attempt, draw: random.Random) -> None:
            attempt.expect(Expected.COUNTED)
            change(attempt, draw)

        HOSTILE[change.__name__.replace("_", " ")] = (expecting, bases or TABLES)
        return change

    return register


def _some_rows(attempt: Attempt, draw: random.Random) -> list[list[str]]:
    most = max(1, int(len(attempt.rows) * draw.choice([0.01, 0.1, 0.3, 1])))
    return draw.sample(attempt.rows, min(most, len(attempt.rows)))


def _spoil(attempt: Attempt, draw: random.Random, name: str, values: list[str]) -> None:
    if name not in attempt.names:
        return
    value = draw.choice(values)
    for row in _some_rows(attempt, draw):
        row[attempt.column(name)] = value
    attempt.said.append(f"{name} = {value[:40]!r}")


# values


@hostile()
def odd_ids(attempt: Attempt, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 3)):
        _spoil(attempt, draw, draw.choice(["user", "item"]), ODD_IDS)


@hostile("shop", "labelled")
def odd_kinds(attempt: Attempt, draw: random.Random) -> None:
    _spoil(attempt, draw, "kind", ["", "Buy", " buy", "BUY", "view\n", "x" * 1000, "é", "NULL", "buy,view"])


@hostile("shop")
def very_many_kinds(attempt: Attempt, draw: random.Random) -> None:
    count = draw.choice([100, 127, 128, 200])
    for place, row in enumerate(attempt.rows):
        row[-1 if attempt.names[-1] == "kind" else min(3, len(row) - 1)] = f"kind{place % count}"
    attempt.said.append(str(count))


@hostile("shop", "labelled")
def odd_numbers(attempt: Attempt, draw: random.Random) -> None:
    _spoil(attempt, draw, "quantity", ODD_NUMBERS)


@hostile()
def odd_times(attempt: Attempt, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 3)):
        _spoil(attempt, draw, "time", ODD_TIMES)


@hostile(*EVERY)
def odd_words(attempt: Attempt, draw: random.Random) -> None:
    """Anywhere, in the lines of the papers' formats too."""
    values = ODD_IDS + ODD_NUMBERS + ODD_TIMES
    for row in _some_rows(attempt, draw):
        row[draw.randrange(len(row))] = draw.choice(values)


@hostile()
def one_user_or_item(attempt: Attempt, draw: random.Random) -> None:
    for name in draw.choice([["user"], ["item"], ["user", "item"], ["time"], ["user", "time"]]):
        attempt.change(name, lambda _, name=name: "1300000000" if name == "time" else "7")
        attempt.said.append(f"one {name}")


@hostile(*EVERY)
def few_rows(attempt: Attempt, draw: random.Random) -> None:
    count = draw.choice([0, 1, 2, 3])
    attempt.rows = attempt.rows[:count]
    attempt.said.append(str(count))


@hostile()
def rows_doubled(attempt: Attempt, draw: random.Random) -> None:
    attempt.rows += [list(row) for row in _some_rows(attempt, draw)]


@hostile()
def one_customer_with_almost_all(attempt: Attempt, draw: random.Random) -> None:
    attempt.change("user", lambda user: "7" if draw.random() < 0.95 else user)


# columns


@hostile()
def a_column_lost(attempt: Attempt, draw: random.Random) -> None:
    """Without one that is read the log is refused."""
    place = draw.randrange(len(attempt.names))
    attempt.said.append(attempt.names[place])
    if attempt.layout.header or not attempt.is_text:
        attempt.names = attempt.names[:place] + attempt.names[place + 1 :]
        attempt.rows = [row[:place] + row[place + 1 :] for row in attempt.rows]
        if attempt.said[-1] in attempt.used:
            attempt.expect(Expected.REFUSED)


@hostile()
def a_header_in_another_case(attempt: Attempt, draw: random.Random) -> None:
    """No column has the name that is asked for, to the letter."""
    if not attempt.layout.header and attempt.is_text:
        return
    place = draw.randrange(len(attempt.names))
    old = attempt.names[place]
    attempt.names[place] = draw.choice(
        [old.upper(), old.capitalize(), f" {old}", f"{old} ", f"{old}\u200b", old.replace("i", "ı").replace("s", "ſ")]
    )
    if attempt.names[place] != old and old in attempt.used:
        attempt.layout.types.pop(old, None)
        attempt.expect(Expected.REFUSED)
    attempt.said.append(repr(attempt.names[place]))


@hostile()
def a_name_twice(attempt: Attempt, draw: random.Random) -> None:
    """Which of the two is meant nobody knows."""
    if not attempt.layout.header and attempt.is_text:
        return
    name = draw.choice(attempt.names)
    place = draw.randint(0, len(attempt.names))
    attempt.names = [*attempt.names[:place], name, *attempt.names[place:]]
    attempt.rows = [[*row[:place], "7", *row[place:]] for row in attempt.rows]
    attempt.said.append(name)
    if name in attempt.used:
        attempt.expect(Expected.REFUSED)


@hostile()
def odd_headers(attempt: Attempt, draw: random.Random) -> None:
    attempt.names[draw.randrange(len(attempt.names))] = draw.choice(
        ["", " ", "x" * 100_000, "\x00", "é", "a\nb", "😀", '"', "NULL", "1"]
    )


@hostile()
def very_many_columns(attempt: Attempt, draw: random.Random) -> None:
    count = draw.choice([500, 3000])
    attempt.names = attempt.names + [f"c{place}" for place in range(count)]
    attempt.rows = [row + ["1"] * count for row in attempt.rows[:40]]


@hostile()
def ragged_rows(attempt: Attempt, draw: random.Random) -> None:
    for row in _some_rows(attempt, draw):
        if draw.random() < 0.5:
            row.append(draw.choice(["", "more"]))
        else:
            row.pop()


# text and bytes


def _block(data: bytes, draw: random.Random) -> tuple[int, int]:
    first = draw.randrange(max(1, len(data)))
    return first, min(len(data), first + draw.randint(1, max(2, len(data) // 4)))


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([0, 1, len(data) // 2, max(0, len(data) - 1), draw.randrange(len(data) + 1)])]


def _without_block(data: bytes, draw: random.Random) -> bytes:
    first, stop = _block(data, draw)
    return data[:first] + data[stop:]


def _block_doubled(data: bytes, draw: random.Random) -> bytes:
    first, stop = _block(data, draw)
    return data[:stop] + data[first:stop] + data[stop:]


def _blocks_shuffled(data: bytes, draw: random.Random) -> bytes:
    size = draw.choice([16, 256, 1024])
    blocks = [data[place : place + size] for place in range(0, len(data), size)]
    draw.shuffle(blocks)
    return b"".join(blocks)


def _zeroed(data: bytes, draw: random.Random) -> bytes:
    first, stop = _block(data, draw)
    return data[:first] + bytes(stop - first) + data[stop:]


def _with_junk(data: bytes, draw: random.Random) -> bytes:
    place = draw.choice([0, len(data), draw.randrange(len(data) + 1)])
    return data[:place] + draw.choice(JUNK) + data[place:]


def _doubled(data: bytes, draw: random.Random) -> bytes:
    return data + data


BYTE_CHANGES = (_flip, _flip, _cut, _without_block, _block_doubled, _blocks_shuffled, _zeroed, _with_junk, _doubled)


def _later(change: Callable[[bytes, random.Random], bytes], draw: random.Random) -> Callable[[bytes], bytes]:
    seed = draw.random()
    return lambda data: change(data, random.Random(seed))


@hostile(*EVERY)
def text_damaged(attempt: Attempt, draw: random.Random) -> None:
    change = draw.choice(BYTE_CHANGES)
    attempt.text_changes.append(_later(change, draw))
    attempt.said.append(change.__name__)


@hostile(*EVERY)
def stored_bytes_damaged(attempt: Attempt, draw: random.Random) -> None:
    if attempt.is_text and not attempt.is_lines and draw.random() < 0.5:  # some 150 kB that hardly shrink
        attempt.names = [*attempt.names, "noise"]
        attempt.rows = [[*row, draw.randbytes(300).hex()] for row in attempt.rows]
        attempt.config["input"].pop("names", None)
        attempt.config["input"].pop("header", None)
        attempt.layout.header = True
    if attempt.is_text and not attempt.layout.pack:
        attempt.layout.pack = draw.choice(["gz", "zst", "zst checked", "zst checked", "gz members"])
    change = draw.choice(BYTE_CHANGES)
    attempt.byte_changes.append(_later(change, draw))
    attempt.said.append(f"{change.__name__} of {attempt.layout.pack or attempt.layout.suffix}")


@hostile()
def parquet_bytes_damaged(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout = Layout(suffix="parquet")
    attempt.config["input"] = {"files": []}
    attempt.layout.parquet = draw.choice(
        [{}, {"compression": "none"}, {"compression": "none", "use_dictionary": False}, {"row_group_size": 20}]
    )
    change = draw.choice(BYTE_CHANGES)
    attempt.byte_changes.append(_later(change, draw))
    attempt.said.append(change.__name__)


@hostile(*EVERY)
def another_encoding(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.encoding = draw.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift-jis", "utf-7", "cp037"])
    attempt.said.append(attempt.layout.encoding)
    name = draw.choice(["user", "item"])
    attempt.change(name, lambda text: f"é{text}")


@hostile(*EVERY)
def blank_lines(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout.ends = draw.choice([("\n\n",), ("\n", "\n\n\n"), ("\r\n\r\n",), ("\n", "\n \n"), ("\n", "\n,\n")])
    attempt.said.append(repr(attempt.layout.ends))


@hostile(*EVERY)
def nothing_but(attempt: Attempt, draw: random.Random) -> None:
    data = draw.choice(
        [
            b"",
            b"\n",
            b"\r",
            b"\r\n" * 3,
            b" ",
            b"\x00" * 4096,
            b"\xef\xbb\xbf",
            b'"',
            b"\t" * 100,
            b"user,item,time",
            b"," * 10_000,
            b"\n" * 9,
        ]
    )
    attempt.text_changes.append(lambda _: data)
    attempt.said.append(repr(data[:20]))


@hostile(*EVERY)
def a_huge_field(attempt: Attempt, draw: random.Random) -> None:
    size = draw.choice([10**5, 3 * 10**6, 2 * 10**7])
    if attempt.rows:
        row = draw.choice(attempt.rows)
        row[draw.randrange(len(row))] = draw.choice("x9,\n") * size
    attempt.said.append(str(size))


@hostile(*EVERY)
def another_suffix(attempt: Attempt, draw: random.Random) -> None:
    """The name says what the file is not."""
    suffix = draw.choice(
        [".gz", ".zst", ".parquet", ".csv", ".tsv", ".bz2", ".xz", ".zip", ".json", "", ".CSV", ".csv.csv", ".csv.gz.zst", ".txt"]
    )

    def rename(folder: Path) -> None:
        for path in folder.glob("log*.*"):
            path.rename(path.with_name("given" + suffix))

    attempt.folder_changes.append(rename)
    attempt.arguments += ["--input", "given" + suffix]
    attempt.said.append(suffix)


@hostile(*EVERY)
def a_file_beside_it(attempt: Attempt, draw: random.Random) -> None:
    data = draw.choice([b"", b"\n", b"a,b,c\n1,2,3\n", b"user,item,time\n", b"\xff\xfe\x00"])
    attempt.folder_changes.append(lambda folder: (folder / f"more.{attempt.layout.suffix}").write_bytes(data) and None)
    attempt.arguments += ["--input", "log*", f"more.{attempt.layout.suffix}"]
    attempt.said.append(repr(data))


# types of Parquet

DAY_ZERO = dt.date(1970, 1, 1)


def _lists(texts: list[Any]) -> pa.Array:
    return pa.array([[text, text] for text in texts], pa.list_(pa.string()))


def _nulls_between(kind: pa.DataType, function: Callable[[str], Any]) -> Callable[[list[Any]], pa.Array]:
    return lambda texts: pa.array([None if place % 3 == 0 else function(text) for place, text in enumerate(texts)], kind)


ODD_TYPES: dict[str, Callable[[list[Any]], pa.Array]] = {
    "list": _lists,
    "list of one": lambda texts: pa.array([[text] for text in texts], pa.list_(pa.string())),
    "struct": lambda texts: pa.array([{"id": text} for text in texts]),
    "map": lambda texts: pa.array([[("id", text)] for text in texts], pa.map_(pa.string(), pa.string())),
    "binary": lambda texts: pa.array([(text or "").encode() for text in texts], pa.binary()),
    "fixed binary": lambda texts: pa.array([(text or "").encode().ljust(16)[:16] for text in texts], pa.binary(16)),
    "bool": lambda texts: pa.array([place % 2 == 0 for place, _ in enumerate(texts)]),
    "null": lambda texts: pa.nulls(len(texts)),
    "date32": lambda texts: pa.array([DAY_ZERO + dt.timedelta(15_000 + place % 90) for place, _ in enumerate(texts)]),
    "time64": lambda texts: pa.array([place * 1000 for place, _ in enumerate(texts)], pa.time64("us")),
    "duration": lambda texts: pa.array(list(range(len(texts))), pa.duration("s")),
    "decimal256": lambda texts: pa.array(list(range(len(texts))), pa.decimal256(50, 0)),
    "half float": lambda texts: pa.array([float(place) for place, _ in enumerate(texts)], pa.float16()),
    "float with NaN": lambda texts: pa.array([float("nan") if place % 5 == 0 else place / 4 for place, _ in enumerate(texts)]),
    "float with infinity": lambda texts: pa.array(
        [float("inf") if place % 5 == 0 else 1e300 * place for place, _ in enumerate(texts)]
    ),
    "large uint64": lambda texts: pa.array([2**64 - 1 - place for place, _ in enumerate(texts)], pa.uint64()),
    "negative": lambda texts: pa.array([-place for place, _ in enumerate(texts)], pa.int64()),
    "text with nulls": _nulls_between(pa.string(), lambda text: text),
    "dictionary with nulls": lambda texts: _nulls_between(pa.string(), lambda text: text)(texts).dictionary_encode(),
    "timestamp far off": lambda texts: pa.array([2**62 + place for place, _ in enumerate(texts)], pa.timestamp("us")),
}


@hostile()
def parquet_with_odd_types(attempt: Attempt, draw: random.Random) -> None:
    attempt.layout = Layout(suffix="parquet")
    attempt.config["input"] = {"files": []}
    for name in draw.sample(attempt.names, draw.randint(1, 2)):
        kind = draw.choice(list(ODD_TYPES))
        attempt.layout.types[name] = ODD_TYPES[kind]
        attempt.said.append(f"{name}: {kind}")
