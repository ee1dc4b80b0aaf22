"""Text that fits a terminal: paragraphs, tables that go on below where they are too wide, texts shortened at a word.

A letter of Chinese, Japanese or Korean takes two places. Numbers are never cut.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Sequence

USUAL, LEAST, MOST = 80, 40, 120  # places of a line
ELLIPSIS = "..."
GAP = 2  # places between two columns
HEADS = (18, 12, 8)  # places from which a column's head is broken into lines: the fewest breaks that make it fit
NAME = 20  # places that the first column has at least, where all others fit beside it
SEAMS = re.compile(r"(?<=[\s/_.:+-])(?=[^\s])")  # where a name may be broken


def columns() -> int:
    """Places of a line of the terminal; 80 where there is none."""
    return min(max(shutil.get_terminal_size((USUAL, 24)).columns, LEAST), MOST)


def places(text: str) -> int:
    """How many places a text takes in a terminal.

    >>> places("tea"), places("茶"), places("e\\u0301")
    (3, 2, 1)
    """
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.category(letter) in ("Mn", "Me", "Cf") for letter in text)


def counted(count: int, what: str, plural: str = "") -> str:
    """
    >>> counted(1, "item"), counted(1200, "item"), counted(2, "process", "processes")
    ('1 item', '1,200 items', '2 processes')
    """
    return f"{count:,} {what if count == 1 else plural or f'{what}s'}"


def shortened(text: str, most: int) -> str:
    """At most so many places: whole words and an ellipsis; a word that does not fit alone is cut.

    >>> shortened("SET OF 36 MUSHROOM DOILIES", 16), shortened("SET OF 36", 9), shortened("Donaudampfschiff", 10)
    ('SET OF 36...', 'SET OF 36', 'Donauda...')
    """
    if places(text) <= most:
        return text
    room = most - len(ELLIPSIS)
    kept = _first(text, room)
    at_word, _, _ = kept.rpartition(" ")
    whole = kept if text[len(kept)].isspace() else at_word
    return (whole if places(whole) > room // 2 else kept).rstrip(" ,;:-") + ELLIPSIS


def paragraph(text: str, indent: str = "", first: str | None = None, width: int | None = None) -> str:
    """The text in lines, broken between words; `indent` stands before each line, `first` instead of it before the first.

    >>> print(paragraph("one two three", indent="  ", first="- ", width=9))
    - one two
      three
    """
    room = width or columns()
    lines, empty = [indent if first is None else first], True
    for word in text.split():
        if not empty and places(lines[-1]) + 1 + places(word) > room:
            lines.append(indent)
            empty = True
        left = word
        while places(lines[-1]) + places(left) > room and places(left) > len(left):  # wide letters stand without spaces
            part = _first(left, max(2, room - places(lines[-1])))
            lines[-1], left = lines[-1] + part, left[len(part) :]
            lines.append(indent)
        lines[-1] += left if empty else f" {left}"
        empty = False
    return "\n".join(line.rstrip() for line in lines)


def named(lines: Sequence[tuple[str, str]]) -> str:
    """Lines "name  text", the texts below one another; a long one goes on under itself.

    >>> print(named([("data", "shop"), ("writes to", "runs/a")]))
    data       shop
    writes to  runs/a
    """
    room = max(places(name) for name, _ in lines) + GAP
    return "\n".join(paragraph(text, " " * room, filled(name, room)) for name, text in lines)


def table(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns as wide as their longest cell, the first to the left, the others to the right; the first row is the head.

    What is too wide goes on below, with the first column again. Long names of the first column and of the head are broken.

    >>> print(table([["item", "events", "share"], ["tea", "1,046", "0.69%"]]))
    item  events  share
    tea    1,046  0.69%
    """
    room = width or columns()
    body = [max([0, *(places(row[column]) for row in rows[1:])]) for column in range(len(rows[0]))]
    for most in HEADS:
        heads = [max(map(places, broken(cell, max(most, wide, _longest(cell))))) for cell, wide in zip(rows[0], body)]
        heads[0] = max(map(places, broken(rows[0][0], max(HEADS[0], body[0]))))
        widths = [max(pair) for pair in zip(heads, body, strict=True)]
        left = room - sum(widths[1:]) - GAP * (len(widths) - 1)  # for the first column
        if left >= widths[0]:
            break
    if widths[0] > left:
        beside_one = room - GAP - max([0, *widths[1:]])
        widths[0] = min(widths[0], left if left >= NAME else max(8, min(room // 3, beside_one)))
    parts: list[list[int]] = [[]]
    left = room - widths[0]
    for column in range(1, len(widths)):
        if parts[-1] and left < widths[column] + GAP:
            parts.append([])
            left = room - widths[0]
        parts[-1].append(column)
        left -= widths[column] + GAP
    return "\n\n".join(_laid_out([[row[0], *(row[column] for column in part)] for row in rows], widths, part) for part in parts)


def _longest(text: str) -> int:
    """Places of the longest part that a name may be broken into."""
    return max([0, *(places(piece.rstrip()) for piece in SEAMS.split(text))])


def _laid_out(rows: list[list[str]], widths: list[int], part: list[int]) -> str:
    """The first column beside some others, all of which fit."""
    lines = []
    for number, row in enumerate(rows):
        cells = [broken(cell, widths[column]) for cell, column in zip(row, [0, *part], strict=True)]
        height = max(map(len, cells))
        for place in range(height):
            shown = []
            for cell, column in zip(cells, [0, *part], strict=True):
                above = height - len(cell) if number == 0 else 0  # heads stand on their columns
                text = cell[place - above] if 0 <= place - above < len(cell) else ""
                shown.append(filled(text, widths[column]) if column == 0 else " " * (widths[column] - places(text)) + text)
            lines.append((" " * GAP).join(shown).rstrip())
    return "\n".join(lines)


def filled(text: str, width: int) -> str:
    """With spaces behind it, so that it takes that many places."""
    return text + " " * (width - places(text))


def broken(text: str, width: int) -> list[str]:
    """A name in lines of at most so many places: broken at spaces and after / _ . : + -, else anywhere.

    >>> broken("2026-05-01_mixture/seed-1", 12)
    ['2026-05-01_', 'mixture/', 'seed-1']
    """
    lines = [""]
    for piece in SEAMS.split(text):
        if lines[-1] and places(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        left = piece
        while places(left.rstrip()) > width:
            lines[-1] = _first(left, width)
            left = left[len(lines[-1]) :]
            lines.append("")
        lines[-1] += left
    return [line.rstrip() for line in lines]


def _first(text: str, room: int) -> str:
    """As many letters as fit, one at least."""
    end = 1
    while end < len(text) and places(text[: end + 1]) <= room:
        end += 1
    return text[:end]
