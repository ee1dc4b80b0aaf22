"""Text in any encoding -> UTF-8, and what a text that is not UTF-8 is likely to be."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator

UTF_8 = "utf-8"
_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Undecodable(Exception):
    """Bytes that are no text in the encoding; `before`: the line ends before them; `around`: bytes to guess from."""

    def __init__(self, before: int, around: bytes):
        self.before, self.around = before, around


def as_utf_8(parts: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The same text in UTF-8. Raises Undecodable."""
    decoder = codecs.getincrementaldecoder(encoding)()
    last, ends = "", 0
    for part in parts:
        if encoding == UTF_8 and part.isascii() and not decoder.getstate()[0]:
            ends, last = ends + _ends(part, last), chr(part[-1])
            yield part
            continue
        text = _decoded(decoder, part, False, ends)
        ends, last = ends + _ends(text.encode(), last), text[-1:] or last
        if text:
            yield text.encode()
    rest = _decoded(decoder, b"", True, ends)
    if rest:
        yield rest.encode()


def _decoded(decoder: codecs.IncrementalDecoder, part: bytes, final: bool, ends: int) -> str:
    try:
        return decoder.decode(part, final)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        before = (error.object if isinstance(error, UnicodeDecodeError) else part)[:start]
        raise Undecodable(ends + _ends(before, ""), part) from None


def _ends(text: bytes, last: str) -> int:
    """Line ends in a text; one of two bytes that `last` began was counted with it."""
    if b"\r" not in text and last != "\r":
        return text.count(b"\n")
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n") - (last == "\r" and text[:1] == b"\n")


def likely(text: bytes) -> str:
    """The encoding that bytes which are no UTF-8 look like; "" where they look like no text.

    >>> likely("Käse;Größe".encode("latin-1")), likely("商品,类别".encode("gbk")), likely("Preis: 5 €".encode("cp1252"))
    ('latin-1', 'gb18030', 'cp1252')
    """
    for mark, encoding in _MARKS.items():
        if text.startswith(mark):
            return encoding
    if b"\0" in text:
        by_order = "utf-16-le" if text[1:2] == b"\0" else "utf-16-be"
        return by_order if 4 * text.count(b"\0") >= len(text) else ""
    text = text[: 2**20]
    runs = re.findall(rb"[\x80-\xff]+", text)
    if 2 * sum(len(run) > 1 for run in runs) > len(runs):
        if _share(text, "shift-jis", "[\u3040-\u30ff]") > 0.2:  # kana
            return "shift-jis"
        if _share(text, "gb18030", "[\u4e00-\u9fff]", lambda letter: b"\xb0" <= letter.encode("gb18030") < b"\xd8") > 0.5:
            return "gb18030"  # its frequent signs
        if _share(text, "cp1251", "[\u0400-\u04ff]") > 0.8:
            return "cp1251"
    return "cp1252" if re.search(rb"[\x80-\x9f]", text) else "latin-1"


def _share(text: bytes, encoding: str, letters: str, is_one: Callable[[str], bool] = lambda _: True) -> float:
    """Of what is not ASCII in a text, read in an encoding."""
    other = re.findall(r"[^\x00-\x7f]", text.decode(encoding, "replace"))
    return sum(is_one(letter) for letter in re.findall(letters, "".join(other))) / max(len(other), 1)
