"""The attack on what `recommend` reads: fresh histories written otherwise, damaged or odd."""

from __future__ import annotations

import random
from pathlib import Path

import forked
import pyarrow.parquet as pq
from hostile import HOSTILE
from logs import DAY, START, Attempt, Expected, made, parquet_bytes, text_bytes
from neutral import NEUTRAL
from oracle import Fault, Verdict, how_it_ended

# changes that need no word in a YAML
PROMISED = (
    *("rows in another order", "columns in another order", "line ends", "no end of the last line", "everything quoted"),
    *("a byte order mark", "tabs", "parquet"),
)
OTHERWISE = (
    *("carriage returns alone", "a column more", "parquet with types", "time: ms", "time: us", "time: with a fraction"),
    *("time: ISO in UTC", "time: ISO with Z", "time: ISO with a blank", "time: ISO elsewhere", "time: ns", "time: with UTC"),
    *("time: with slashes", "time: digits in a row"),
)
ODD = (
    *("odd ids", "odd kinds", "odd times", "odd words", "one user or item", "few rows", "rows doubled", "a column lost"),
    *("a name twice", "a header in another case", "odd headers", "very many columns", "ragged rows", "text damaged"),
    *("stored bytes damaged", "parquet bytes damaged", "another encoding", "blank lines", "nothing but", "a huge field"),
    "parquet with odd types",
)
OWN_NAMES = {"time": "timestamp", "kind": "event"}  # which this file's columns have, and no YAML tells
CHANGES = [
    (name, expected) for names, expected in ((PROMISED, Expected.SAME), (OTHERWISE, Expected.SAME_OR_REFUSED)) for name in names
]
CHANGES += [(name, Expected.COUNTED) for name in ODD]


def histories() -> Attempt:
    """Of customers known and unknown, by their columns' fixed names."""
    draw = random.Random("histories")
    rows = [
        [f"u{user}", f"item-{draw.randrange(30)}", str(START + (90 + day) * DAY + user), draw.choice(["view", "buy"])]
        for user in (3, 5, 8, 70, 71)
        for day in sorted(draw.sample(range(12), draw.randint(2, 5)))
    ]
    attempt = made("shop")
    attempt.names, attempt.rows = ["user", "item", "time", "kind"], rows
    attempt.config["columns"].pop("numeric")
    return attempt


def attack(place: int, folder: Path, seed: int, right: list[object]) -> tuple[str, Verdict]:
    """What was done, and the verdict, in a copy of the store with its lists of the unchanged histories."""
    passed, index = divmod(place, len(CHANGES))
    name, expected = random.Random(f"{seed} histories {passed}").sample(CHANGES, len(CHANGES))[index]
    draw = random.Random(f"{seed} history {place}")
    attempt = histories()
    attempt.said.append(name)
    (NEUTRAL.get(name) or HOSTILE[name])[0](attempt, draw)
    attempt.expect(expected)
    ended = ask(attempt, folder)
    verdict = how_it_ended(ended)
    if verdict.faults:
        return " + ".join(attempt.said), verdict
    if ended.code != 0:
        if attempt.expected == Expected.SAME:
            verdict.fail(Fault.WRONGLY, ended.err.strip()[-300:])
        if (folder / "lists.parquet").exists():
            verdict.fail(Fault.LOST, "refused, yet there are lists")
        return " + ".join(attempt.said), verdict
    found = lists(folder)
    if attempt.expected == Expected.REFUSED and "event" in attempt.names:  # the one that may be left out
        verdict.fail(Fault.SILENT, "read, though it cannot be meant")
    elif attempt.expected < Expected.COUNTED and found != right:
        verdict.fail(Fault.SILENT, "other lists than of the unchanged histories")
    return " + ".join(attempt.said), verdict


def ask(attempt: Attempt, folder: Path) -> forked.Ended:
    """`recommend` for these histories."""
    attempt.names = [OWN_NAMES.get(name, name) for name in attempt.names]
    attempt.layout.types = {OWN_NAMES.get(name, name): kind for name, kind in attempt.layout.types.items()}
    data = text_bytes(attempt, attempt.rows) if attempt.is_text else parquet_bytes(attempt, attempt.rows)
    for change in (attempt.text_changes if attempt.is_text else []) + attempt.byte_changes:
        data = change(data)
    path = folder / f"fresh.{attempt.layout.suffix.replace('tab', 'tsv')}"
    path.write_bytes(data)
    return forked.attnrec(["recommend", "mixture", "--histories", path.name, "--output", "lists.parquet"], folder)


def lists(folder: Path) -> list[object]:
    return pq.read_table(folder / "lists.parquet").to_pylist()
