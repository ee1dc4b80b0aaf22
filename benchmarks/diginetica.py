"""Diginetica's click sessions, in the split of SR-GNN (Wu et al. 2019), as a log that `attnrec prepare` reads.

    python benchmarks/diginetica.py TRAIN_SESSIONS TEST_PREFIX_LABEL data/diginetica.tsv.zst [--share 0.25] [--validation_days 7]

TRAIN_SESSIONS has a line a session, items separated by blanks; TEST_PREFIX_LABEL a line a question, "prefix TAB label". Both may
be compressed. The split came without dates, in order of time: items are numbered as they first appear, which is checked. So
the training sessions are spread evenly over DAYS made-up days in file order, their clicks SECONDS apart; the last days are the
validation part, of which each session's last click is asked; and all test questions stand on the day after. What is asked is a
`click`, what is only known when it is asked (the rest of a validation session, a test prefix) is `seen`.
With --share only the newest part of the training sessions is written, on the days that they have in the whole.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

DAYS = 150  # of the training sessions; so 1,244 sessions a day
FIRST_DAY = np.datetime64("2016-01-01T00:00:00", "s").astype(np.int64)
DAY, SECONDS = 86_400, 10
TARGET, INPUT = "click", "seen"

Session = tuple[str, int, list[str], list[str]]  # id, unix second of the first click, items, type of each click


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("output", type=Path, help="TSV: session, item, type, ts; compressed where its name ends in .zst")
    parser.add_argument("--share", type=float, default=1.0, help="of the training sessions, the newest")
    parser.add_argument("--validation_days", type=int, default=7, help="0: all sessions train")
    arguments = parser.parse_args()
    sessions = [line.split() for line in lines(arguments.train)]
    questions = [line.split("\t") for line in lines(arguments.test)]
    if not numbered_by_appearance(sessions):
        sys.exit(f"{arguments.train}: items are not numbered as they appear, so its order may not be that of time")
    rows = log(sessions, [(prefix.split(), label) for prefix, label in questions], arguments.share, arguments.validation_days)
    written = write(rows, arguments.output)
    print(f"{len(sessions):,} sessions, {len(questions):,} questions; wrote {written:,} clicks to {arguments.output}")


def lines(path: Path) -> list[str]:
    with pa.input_stream(path, compression="detect") as file:
        return file.read().decode().splitlines()


def numbered_by_appearance(sessions: Iterable[Sequence[str]]) -> bool:
    """Whether item n + 1 never appears before item n, numbers from 1."""
    highest = 0
    for session in sessions:
        for item in session:
            if int(item) > highest + 1:
                return False
            highest = max(highest, int(item))
    return True


def log(
    sessions: list[list[str]], questions: list[tuple[list[str], str]], share: float, validation_days: int
) -> Iterator[Session]:
    """Training sessions, validation sessions, then the questions of the test part, whose labels come last."""
    first = round(len(sessions) * (1 - share))
    for number, items in enumerate(sessions[first:], first):
        day, place = divmod(number * DAYS, len(sessions))
        start = FIRST_DAY + day * DAY + (DAY - 3_600) * place // len(sessions)  # ends before midnight
        asked = [INPUT] * (len(items) - 1) + [TARGET]
        yield f"s{number}", int(start), items, asked if day >= DAYS - validation_days else [TARGET] * len(items)
    for number, (prefix, label) in enumerate(questions):
        yield f"t{number}", int(FIRST_DAY + DAYS * DAY), [*prefix, label], [INPUT] * len(prefix) + [TARGET]


def write(rows: Iterable[Session], path: Path) -> int:
    """One line a click; returns how many."""
    columns: dict[str, list] = {"session": [], "item": [], "type": [], "ts": []}
    for session, start, items, types in rows:
        columns["session"] += [session] * len(items)
        columns["item"] += items
        columns["type"] += types
        columns["ts"] += [start + SECONDS * place for place in range(len(items))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.output_stream(path, compression="detect") as file:
        file.write(("\t".join(columns) + "\n").encode())
        csv.write_csv(pa.table(columns), file, csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none"))
    return len(columns["ts"])


if __name__ == "__main__":
    main()
