"""Text files looked over before the engine reads them: whole, text, one kind of line end; what the engine cannot read, rewritten.

One pass over all bytes (`survey`), then, where a file mixes its line ends, a copy with one kind of them (`with_one_line_end`).
A further dialect that the engine does not know is one more step of this kind: bytes in, bytes out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.files import really, unpacked

CHUNK = 2**22  # bytes looked at in one go
LONGEST_ROW = 2_000_000  # bytes; the engine's own limit
BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13


@dataclass(frozen=True)
class TextFormat:
    """How csv and tsv files are written. `names` stands in for a header that is not there; `where` is the config's section."""

    delimiter: str | None = None
    quote: str = '"'
    header: bool = True
    names: tuple[str, ...] = ()
    encoding: str = "utf-8"
    where: str = "input"

    def separator(self, kind: str) -> str:
        return self.delimiter or ("\t" if kind == "tsv" else ",")


@dataclass(frozen=True)
class Survey:
    """What the pass over a text file found."""

    mixes_line_ends: bool
    ends_in_line_end: bool


def chunks(path: Path) -> Iterator[bytes]:
    """A text file's bytes, unpacked, without the byte order mark before them.

    Raises InputError where they are no text, or two files were joined so that a byte order mark begins a line.
    """
    before, tail = 0, b"\n"
    with unpacked(path) as stream:
        while chunk := stream.read(CHUNK):
            start = len(BOM) if before == 0 and chunk.startswith(BOM) else 0
            if before == 0 and (what := really(chunk)):
                raise InputError(f"{path}: is not what its name says, it is {what}")
            if (place := chunk.find(b"\0")) >= 0:
                raise InputError(
                    f"{path}: line {_line_at(path, before + place):,} holds a NUL byte: it is damaged, or no "
                    "text, or UTF-16; convert that with iconv -f UTF-16 -t UTF-8"
                )
            if (place := _joined(tail, chunk[start:])) is not None:
                raise InputError(
                    f"{path}: line {_line_at(path, before + start + place):,} begins with a byte order mark, as where files were "
                    "joined; take it out, and a second header with it, or name the files one by one"
                )
            yield chunk[start:]
            before += len(chunk)
            tail = (tail + chunk)[-len(BOM) :]


def _joined(tail: bytes, chunk: bytes) -> int | None:
    """Where in the chunk, whose last bytes before it are `tail`, a line begins with a byte order mark."""
    if BOM[-1:] not in chunk:  # much faster than to look for all three
        return None
    text = tail + chunk
    place = text.find(BOM)
    while place >= 0:
        if text[place - 1 : place] in (b"\n", b"\r"):
            return place - len(tail)
        place = text.find(BOM, place + 1)
    return None


def _line_at(path: Path, offset: int) -> int:
    """The number, from 1, of the line with this byte of the file, unpacked."""
    ends, last = 0, b""
    with unpacked(path) as stream:
        while offset > 0 and (part := stream.read(min(CHUNK, offset))):
            ends += part.count(b"\n") + part.count(b"\r") - (last + part).count(b"\r\n")
            offset, last = offset - len(part), part[-1:]
    return ends + 1


def survey(path: Path) -> Survey:
    """Reads the file once, to its end. Raises InputError for one that is damaged, empty or no text, StorageError."""
    line_ends: set[str] = set()
    last = 0
    for chunk in chunks(path):
        if len(line_ends) < 2:
            _count_line_ends(chunk, last, line_ends)
        last = chunk[-1]
    if last == _CR:
        line_ends.add("CR")
    if not last:
        raise InputError(f"{path}: the file is empty; leave it out, or write its header line")
    return Survey(len(line_ends) > 1, last in (_LF, _CR))


def _count_line_ends(chunk: bytes, last: int, found: set[str]) -> None:
    """Adds the kinds of line ends in a chunk. A CR at its end waits for the next one, whose `last` it is."""
    if b"\r" not in chunk and last != _CR:
        found |= {"LF"} if b"\n" in chunk else set()
        return
    data = np.frombuffer(bytes([last]) + chunk, np.uint8)
    cr, lf = data[:-1] == _CR, data[1:] == _LF
    both = np.count_nonzero(cr & lf)
    kinds = {"CRLF": both, "CR": np.count_nonzero(cr) - both, "LF": np.count_nonzero(lf) - both}
    found |= {kind for kind, count in kinds.items() if count}


def header(path: Path, kind: str, layout: TextFormat) -> list[str]:
    """The names in the first row, as they are written. Raises InputError where it cannot be read as one."""
    head = _head(path).decode(layout.encoding, "surrogateescape")
    if head[0] in "\r\n":
        what = "holds nothing but line ends" if not head.strip("\r\n") else "begins with an empty line where its header should be"
        raise InputError(f"{path}: {what}; mend it, or set {layout.where}.header: false and {layout.where}.names")
    separator = layout.separator(kind)
    if len(separator) > 1 or not layout.quote:
        names = re.split("[\r\n]", head, maxsplit=1)[0].split(separator)
    else:
        lines = csv.reader(io.StringIO(head, newline=""), delimiter=separator, quotechar=layout.quote, strict=True)
        try:
            names = next(lines)
        except csv.Error as error:
            raise InputError(
                f"{path}: the first row cannot be read ({error}); are {layout.where}.delimiter and {layout.where}.quote right?"
            ) from None
    if not "".join(names).isascii() and any(0xDC80 <= ord(letter) <= 0xDCFF for letter in "".join(names)):
        raise InputError(
            f"{path}: the first line is not UTF-8 text; is {layout.where}.format right? Convert other encodings with iconv"
        )
    return names


def _head(path: Path) -> bytes:
    """Text from the start, whole lines, the first row in it. Raises InputError when no line ends within LONGEST_ROW."""
    head = b""
    for chunk in chunks(path):
        head += chunk
        if len(head) > LONGEST_ROW:
            end = max(head.rfind(b"\n", 0, LONGEST_ROW), head.rfind(b"\r", 0, LONGEST_ROW))
            if end < 0:
                raise InputError(f"{path}: line 1 is longer than {LONGEST_ROW:,} bytes; is this a text file with one row a line?")
            return head[: end + 1]
    if not head:
        raise InputError(f"{path}: the file is empty; leave it out, or write its header line")
    return head


def with_one_line_end(path: Path, target: Path, layout: TextFormat, separator: str) -> None:
    """Writes the text, unpacked, with LF for each of its line ends, but not for those inside quotes. Raises InputError."""
    pattern = _quoted(separator.encode(layout.encoding), layout.quote.encode(layout.encoding))
    waiting = b""
    with target.open("wb") as file:
        for chunk in chunks(path):
            text, waiting = _with_lf(waiting + chunk, pattern, is_last=False)
            if len(waiting) > LONGEST_ROW + CHUNK:
                raise InputError(
                    f"{path}: a row is longer than {LONGEST_ROW:,} bytes, {_starting(waiting)}; is a quote left open?"
                )
            file.write(text)
        file.write(_with_lf(waiting, pattern, is_last=True)[0])


def _starting(row: bytes) -> str:
    return f"it starts with {row[:40].decode('utf-8', 'replace')!r}"


def _quoted(separator: bytes, quote: bytes) -> re.Pattern[bytes]:
    """Matches a line end, or a value in quotes, whose closing one may be still to come."""
    line_end = rb"(?P<end>\r\n|\r|\n)"
    if not quote:
        return re.compile(line_end)
    q = re.escape(quote)
    value = rb"(?:(?<=%s)|(?<=[\r\n])|\A) *%s[^%s]*(?:%s%s[^%s]*)*(?:%s|\Z)" % (re.escape(separator), q, q, q, q, q, q)
    return re.compile(value + b"|" + line_end)


def _with_lf(text: bytes, pattern: re.Pattern[bytes], is_last: bool) -> tuple[bytes, bytes]:
    """(text with its line ends replaced, what has to wait for the bytes that follow).

    It is cut at its last line end; where that is inside a quote that is still open, at the quote.
    """
    cut = len(text) if is_last else max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
    parts, place = [], 0
    for match in pattern.finditer(text, 0, cut):
        if match["end"] is None and match.end() == cut and not is_last:
            cut = match.start()
            break
        parts += [text[place : match.start()], match[0] if match["end"] is None else b"\n"]
        place = match.end()
    return b"".join([*parts, text[place:cut]]), text[cut:]
