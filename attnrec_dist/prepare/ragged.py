"""csv files with rows of too many or too few values: a copy without them for the engine, which refuses the whole file.

One more step of text_files.py's kind, taken where the engine has met such a row. Memory: one chunk, and a number a ragged row.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.text_files import LONGEST_ROW, TextFormat, chunks

SHOWN = 3
_ONE_SIGN = "\x1f"  # in place of a delimiter of several, which Python's csv does not know


@dataclass
class Ragged:
    """Which rows of a file were left out."""

    rows: array[int] = field(default_factory=lambda: array("q"))  # numbers from 1 below the header, ascending
    first: list[tuple[int, str, int]] = field(default_factory=list)  # (line, text, values) of some

    def numbered(self, kept: int) -> int:
        """The number in the file of the row with this number among those that are kept."""
        for row in self.rows:
            if row > kept:
                break
            kept += 1
        return kept


def without_ragged(path: Path, target: Path, layout: TextFormat, separator: str, width: int) -> Ragged:
    """Copies the text but the rows with another number of values than `width`; no copy where there are none.

    Raises InputError where quotes do not fit: what follows may be misread.
    """
    csv.field_size_limit(LONGEST_ROW)
    left_out, row = Ragged(), 0 if layout.header else 1
    taken: list[bytes] = []
    with target.open("wb") as file:
        reader = _records(path, layout, separator, taken)
        try:
            for line, values in reader:
                text = b"".join(taken)
                taken.clear()
                if not values:  # a blank line, which is no row
                    file.write(text)
                    continue
                if len(values) == width:
                    file.write(text)
                else:
                    left_out.rows.append(row)
                    if len(left_out.first) < SHOWN:
                        left_out.first.append((line, text.decode().rstrip("\r\n"), len(values)))
                    if not text.endswith((b"\n", b"\r")):
                        shown = text[:60].decode(errors="replace")
                        raise InputError(
                            f"{path}: the last row, Line: {line} {shown!r}, has {len(values)} values, not {width}, and does not "
                            "end with a line end: it may be cut off, then fetch it again; else take it out"
                        )
                row += 1
        except csv.Error as error:
            begins = b"".join(taken)[:40].decode(errors="replace")
            raise InputError(
                f"{path}: cannot be read: the row that begins {begins!r}: a quote is left open or followed by text ({error}); is "
                f"{layout.where}.quote right?"
            ) from None
    if not left_out.rows:
        target.unlink()
    return left_out


def _records(path: Path, layout: TextFormat, separator: str, taken: list[bytes]) -> Iterator[tuple[int, list[str]]]:
    """(line at which it ends, values) of each row; `taken` holds its text."""
    one = len(separator) == 1

    def texts() -> Iterator[str]:
        for line in _lines(path, layout):
            taken.append(line)
            yield line.decode() if one else line.decode().replace(separator, _ONE_SIGN)

    sign = separator if one else _ONE_SIGN
    if layout.quote:
        reader = csv.reader(texts(), delimiter=sign, quotechar=layout.quote, strict=True)
    else:
        reader = csv.reader(texts(), delimiter=sign, quoting=csv.QUOTE_NONE, quotechar=None, strict=True)
    for values in reader:
        yield reader.line_num, values


def _lines(path: Path, layout: TextFormat) -> Iterator[bytes]:
    """With their ends. A CR at the end of a chunk may be half of one."""
    rest = b""
    for chunk in chunks(path, layout):
        rest += chunk
        end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, -1)) + 1
        if end:
            yield from rest[:end].splitlines(keepends=True)
            rest = rest[end:]
    yield from rest.splitlines(keepends=True)
