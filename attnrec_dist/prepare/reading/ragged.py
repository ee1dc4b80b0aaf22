"""csv files with rows of too many or too few values: a copy without them for the engine, which refuses the whole file.

One more step of text_files.py's kind, taken where the engine has met such a row; its own line numbers count rows. Memory: one
chunk, and a number a ragged row.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.reading.text_files import LONGEST_ROW, TextFormat, lines

SHOWN = 3
_ONE_SIGN = "\x1f"  # in place of a delimiter of several, which Python's csv does not know


class RaggedRow(InputError):
    """A row of a csv file has too many or too few values."""


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
    left_out, row = Ragged(), 0 if layout.header else 1
    with target.open("wb") as file:
        for line, text, values in _records(path, layout, separator):
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
    if not left_out.rows:
        target.unlink()
    return left_out


def require_whole(path: Path, layout: TextFormat, separator: str, width: int) -> None:
    """Raises RaggedRow for the first row with another number of values than `width`, InputError where quotes do not fit."""
    for line, text, values in _records(path, layout, separator):
        if values and len(values) != width:
            shown = text[:60].decode(errors="replace").rstrip("\r\n")
            raise RaggedRow(f"{path}: line {line:,} {shown!r} has {len(values)} values, not {width}; mend it, or take it out")


def _records(path: Path, layout: TextFormat, separator: str) -> Iterator[tuple[int, bytes, list[str]]]:
    """(line at which it begins, text, values) of each row. Raises InputError where quotes do not fit."""
    one = len(separator) == 1
    taken: list[bytes] = []

    def texts() -> Iterator[str]:
        for line in lines(path, layout):
            taken.append(line)
            yield line.decode() if one else line.decode().replace(separator, _ONE_SIGN)

    sign = separator if one else _ONE_SIGN
    csv.field_size_limit(LONGEST_ROW)
    if layout.quote:
        reader = csv.reader(texts(), delimiter=sign, quotechar=layout.quote, strict=True)
    else:
        reader = csv.reader(texts(), delimiter=sign, quoting=csv.QUOTE_NONE, quotechar=None, strict=True)
    begins = 1
    try:
        for values in reader:
            yield begins, b"".join(taken), values
            taken.clear()
            begins = reader.line_num + 1
    except csv.Error as error:
        text = b"".join(taken)
        if len(text) > LONGEST_ROW:
            raise InputError(
                f"{path}: line {begins:,} is longer than {LONGEST_ROW:,} bytes; is a quote left open before it?"
            ) from None
        cut = "" if text.endswith((b"\n", b"\r")) else ". It does not end with a line end: it may be cut off, then fetch it again"
        raise InputError(
            f"{path}: cannot be read: the row that begins {text[:40].decode(errors='replace')!r} on line {begins:,}: a quote is "
            f"left open or followed by text ({error}); is {layout.where}.quote right?{cut}"
        ) from None
