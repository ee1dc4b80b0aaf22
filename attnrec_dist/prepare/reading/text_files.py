"""Text files looked over before the engine reads them: whole, text, one kind of line end; what the engine cannot read, rewritten.

One pass over all bytes (`survey`), then, where a file is not in UTF-8 or mixes its line ends, a copy in UTF-8 with one kind of
them (`with_one_line_end`). A further dialect that the engine does not know is one more step of this kind: bytes in, bytes out.
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
from attnrec_dist.prepare.reading.encodings import UTF_8, Undecodable, as_utf_8, likely
from attnrec_dist.prepare.reading.files import really, unpacked

CHUNK = 2**22  # bytes looked at in one go
LONGEST_ROW = 2_000_000  # bytes; the engine's own limit
BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13


@dataclass(frozen=True)
class TextFormat:
    """How files are written. `names` stands in for a header that is not there; `where` is the config's section.

    Delimiter, quote, header and names are of csv and tsv; `encoding`, as codecs.lookup names it, is of all text.
    """

    delimiter: str | None = None
    quote: str = '"'
    header: bool = True
    names: tuple[str, ...] = ()
    encoding: str = UTF_8
    where: str = "input"
    null_values: tuple[str, ...] = ()
    trim: bool = False
    unnest: str | None = None  # of jsonl: a row for each value of this list

    def separator(self, kind: str) -> str:
        return self.delimiter or ("\t" if kind == "tsv" else ",")


@dataclass(frozen=True)
class Survey:
    """What the pass over a text file found."""

    line_ends: frozenset[str]  # LF, CR, CRLF
    ends_in_line_end: bool

    def needs_copy(self, kind: str, layout: TextFormat) -> bool:
        """Whether the engine cannot read the file as it is: csv may have any one kind of line end, JSON none but LF and CRLF."""
        return len(self.line_ends) > 1 or layout.encoding != UTF_8 or (kind == "jsonl" and "CR" in self.line_ends)


def chunks(path: Path, layout: TextFormat) -> Iterator[bytes]:
    """A text file's text, unpacked, in UTF-8, without the byte order mark before it.

    Raises InputError where it is no text, or two files were joined so that a byte order mark begins a line.
    """
    before, tail = 0, b"\n"
    for chunk in _in_utf_8(path, layout):
        start = len(BOM) if before == 0 and chunk.startswith(BOM) else 0
        if (place := chunk.find(b"\0")) >= 0:
            raise InputError(
                f"{path}: line {_line_at(path, layout, before + place):,} holds a NUL byte: it is damaged, or no "
                f"text, or UTF-16; then set {layout.where}.encoding: {(before == 0 and likely(chunk[:64])) or 'utf-16'}"
            )
        if (mark := _joined(tail, chunk[start:])) is not None:
            raise InputError(
                f"{path}: line {_line_at(path, layout, before + start + mark):,} begins with a byte order mark, as where files "
                "were joined; take it out, and a second header with it, or name the files one by one"
            )
        if chunk[start:]:
            yield chunk[start:]
        before += len(chunk)
        tail = (tail + chunk)[-len(BOM) :]


def lines(path: Path, layout: TextFormat) -> Iterator[bytes]:
    """The text of `chunks`, line by line, with their ends. A CR at the end of a chunk may be half of one."""
    rest = b""
    for chunk in chunks(path, layout):
        rest += chunk
        end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, -1)) + 1
        if end:
            yield from rest[:end].splitlines(keepends=True)
            rest = rest[end:]
    yield from rest.splitlines(keepends=True)


def _in_utf_8(path: Path, layout: TextFormat) -> Iterator[bytes]:
    try:
        yield from as_utf_8(_raw(path, layout), layout.encoding)
    except Undecodable as fault:
        line, guess = f"{path}: line {fault.before + 1:,} is not {layout.encoding.upper()} text", likely(fault.around)
        if not guess:
            raise InputError(f"{line} and holds a NUL byte, as no text does; is it damaged? Fetch it again") from None
        other = f"; if it is {guess}, set {layout.where}.encoding: {guess}" if guess != layout.encoding else ""
        raise InputError(
            f"{line}{other}, else to its own (latin-1, cp1252, gb18030, ...); or is {layout.where}.format right?"
            if other
            else f"{line}; set {layout.where}.encoding to its own"
        ) from None


def _raw(path: Path, layout: TextFormat) -> Iterator[bytes]:
    """A file's bytes, unpacked. Raises InputError where the first tell that it is something else."""
    is_first = True
    with unpacked(path) as stream:
        while chunk := stream.read(CHUNK):
            if is_first and chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
                if layout.encoding == UTF_8:
                    code = likely(chunk[:64])
                    raise InputError(f"{path}: is {code.upper()} text; set {layout.where}.encoding: {code}")
            elif is_first and (what := really(chunk)):
                raise InputError(f"{path}: is not what its name says, it is {what}")
            is_first = False
            yield chunk


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


def _line_at(path: Path, layout: TextFormat, offset: int) -> int:
    """The number, from 1, of the line with this byte of the text in UTF-8."""
    ends, last = 0, b""
    for chunk in _in_utf_8(path, layout):
        part = chunk[:offset]
        ends += part.count(b"\n") + part.count(b"\r") - (last + part).count(b"\r\n")
        offset, last = offset - len(part), part[-1:]
        if offset <= 0:
            break
    return ends + 1


def survey(path: Path, layout: TextFormat) -> Survey:
    """Reads the file once, to its end. Raises InputError for one that is damaged, empty or no text, StorageError."""
    line_ends: set[str] = set()
    last = 0
    for chunk in chunks(path, layout):
        if len(line_ends) < 2:
            _count_line_ends(chunk, last, line_ends)
        last = chunk[-1]
    if last == _CR:
        line_ends.add("CR")
    if not last:
        raise InputError(f"{path}: the file is empty; leave it out, or write its header line")
    return Survey(frozenset(line_ends), last in (_LF, _CR))


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
    head = head_of(path, layout).decode()
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
    return [name.strip() for name in names] if layout.trim else names


def head_of(path: Path, layout: TextFormat) -> bytes:
    """Text from the start, whole lines, the first row in it. Raises InputError when no line ends within LONGEST_ROW."""
    head = b""
    for chunk in chunks(path, layout):
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
    """Writes the text, unpacked, in UTF-8, with LF for each line end that is not inside quotes. Raises InputError."""
    pattern = _quoted(separator.encode(), layout.quote.encode())
    waiting = b""
    with target.open("wb") as file:
        for chunk in chunks(path, layout):
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
