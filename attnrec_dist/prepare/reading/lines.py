"""Files whose order is the time: "user item item ..." (user_items) or "user item" (pairs) lines -> rows with a place.

Lines are numbered here, one after another, before the engine sees them: whatever its threads do with them afterwards, the order
is kept. An event's place in its user's history (0, 1, 2, ...) stands for its time. Memory: one block, or the longest line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.reading.text_files import TextFormat, chunks

LINES = "lines"  # the table that `numbered` fills
SCHEMA = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("number", pa.int64()), ("text", pa.string())])
COLUMNS = (("user", "string"), ("item", "string"), ("place", "int64"), ("words", "int64"), ("number", "int64"))  # of `events`
LONGEST = 2**27  # bytes of a line: a user with more than ten million items is a file of another kind
BLANKS = r" \t\r\v\f"  # in a regular expression; what bytes.strip takes off


def numbered(files: Sequence[Path], layout: TextFormat) -> Iterator[pa.RecordBatch]:
    """Batches of SCHEMA with every line that is not blank: its file's index, its line there (from 1), its number over all
    files, its text. Raises InputError, StorageError."""
    number = 0
    for index, path in enumerate(files):
        line = 1
        for raw in _blocks(path, layout):
            block = [text.strip() for text in raw]
            kept = [place for place, text in enumerate(block) if text]
            texts = pa.array([block[place] for place in kept], pa.binary()).cast(pa.string())
            count = len(kept)
            columns = [
                pa.array([index] * count, pa.int32()),
                pa.array([line + place for place in kept], pa.int64()),
                pa.array(range(number, number + count), pa.int64()),
                texts,
            ]
            yield pa.record_batch(columns, schema=SCHEMA)
            line += len(block)
            number += count


def events(kind: str) -> str:
    """SELECT of COLUMNS from the table of lines. A line without an item gives one row whose item is NULL.

    In pairs only good lines have a place, so that those left out leave no gap.
    """
    words = f"SELECT number, string_split_regex(text, '[{BLANKS}]+') AS words FROM {LINES}"
    if kind == "user_items":
        return f"""
            SELECT words[1] AS user, unnest(CASE WHEN len(words) = 1 THEN [NULL] ELSE words[2:] END) AS item,
                unnest(range(greatest(len(words) - 1, 1))) AS place, len(words) AS words, number
            FROM ({words}) AS w"""
    place = "row_number() OVER (PARTITION BY words[1], len(words) = 2 ORDER BY number) - 1"
    return f"""
        SELECT words[1] AS user, words[2] AS item, CASE WHEN len(words) = 2 THEN {place} END AS place, len(words) AS words, number
        FROM ({words}) AS w"""


def check_one_line_a_user(rows: Callable[[str], list], files: Sequence[Path]) -> None:
    """Raises InputError when a user has two lines of user_items: nothing tells which history comes first."""
    user = f"regexp_extract(text, '[^{BLANKS}]+')"
    twice = rows(f"""
        SELECT {user} AS user, min(number), max(number), count(*) FROM {LINES}
        GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 LIMIT 1""")
    for name, first, last, count in twice:
        (one, other) = located(rows, files, [first, last])
        raise InputError(
            f"{one[0]}: user {name!r} has {count:,} lines, the first {one[0]}:{one[1]}, the last {other[0]}:{other[1]}; "
            "user_items has one line a user: join them, or write 'user item' lines and set input.format: pairs"
        )


def located(rows: Callable[[str], list], files: Sequence[Path], numbers: Sequence[int]) -> list[tuple[Path, int, str]]:
    """(file, line there, text) of the lines with these numbers, in their order."""
    listed = ", ".join(map(str, numbers))
    found = rows(f"SELECT file, line, text FROM {LINES} WHERE number IN ({listed}) ORDER BY number")
    return [(files[file], line, text) for file, line, text in found]


def _blocks(path: Path, layout: TextFormat) -> Iterator[list[bytes]]:
    """All lines of a file, without their ends (LF, CR LF or CR, also mixed), some at a time."""
    rest, done = b"", 0
    for chunk in chunks(path, layout):
        rest += chunk
        end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, -1)) + 1  # a CR at the end may be half a line end
        if len(rest) - end > LONGEST:
            raise InputError(f"{path}: line {done + 1} is longer than {LONGEST:,} bytes; is input.format right?")
        if end:
            whole = rest[:end].splitlines()
            rest, done = rest[end:], done + len(whole)
            yield whole
    if not rest and not done:
        raise InputError(f"{path}: the file is empty; leave it out")
    if rest:
        yield rest.splitlines()
