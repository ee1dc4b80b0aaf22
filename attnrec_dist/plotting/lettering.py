"""Texts in pictures: fonts of this machine for letters that the usual one lacks, no boxes where there is none, no formulas.

The usual font, DejaVu Sans, has no Chinese, Japanese, Korean letters and few emoji. Those that no font here has are left out of
the picture, and a line at its foot says so: page, table and JSON hold them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

USUAL = "DejaVu Sans"
NO_FONTS = ("Last Resort", "LastResort", "Adobe Blank")  # that have boxes for every letter
LEFT_OUT = "[...]"
FOOT = f"{LEFT_OUT} stands for letters that no font on this machine has; install one, such as Noto Sans CJK"


def letter(figure: Any) -> None:
    """Gives every text of a figure a font that has its letters. Called once, when all is drawn."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator

    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    given = [axis for axis in axes if isinstance(axis.get_major_locator(), FixedLocator)]  # whose labels are names
    numbers = {text for axis in axes if axis not in given for text in axis.get_ticklabels(which="both")}
    labels = {text for axis in given for text in axis.get_ticklabels()}
    texts = labels | {text for text in figure.findobj(Text) if text not in numbers}
    foreign = {each for text in texts for each in text.get_text() if not each.isspace()} - _letters_of(_usual())
    families, drawable = fonts_with(frozenset(foreign))
    missing = foreign - drawable
    for axis in given if missing else ():
        axis.set_ticklabels([without(text.get_text(), missing) for text in axis.get_ticklabels()])
    for text in texts:
        text.set_text(without(text.get_text(), missing))
        text.set_parse_math(False)  # a $ is money
        text.set_fontfamily([USUAL, *families])
    if missing:
        foot = 0.2 / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, foot, 1, 1 - foot))
        figure.text(0.995, foot / 4, FOOT, ha="right", va="bottom", fontsize=7, color="0.4")


def without(text: str, missing: Iterable[str]) -> str:
    """
    >>> without("tea 茶壶 红色 pot", set("茶壶红色")), without("tea", set())
    ('tea [...] pot', 'tea')
    """
    gone = "".join(map(re.escape, missing))
    return re.sub(rf"[{gone}]([{gone}\s]*[{gone}])?(\.\.\.)?", LEFT_OUT, text) if gone else text


def fonts_with(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families of this machine that have these letters, the one with most of them first, and the letters that they have."""
    from matplotlib import font_manager

    files: dict[str, str] = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda each: (each.style != "normal", abs(_weight(each) - 400))):
        if entry.name != USUAL and not entry.name.startswith(NO_FONTS):
            files.setdefault(entry.name, entry.fname)
    left, families = set(letters), []
    has = {name: _has(file, letters) for name, file in files.items()} if letters else {}
    while left and has:
        best = max(has, key=lambda name: len(has[name] & left))
        if not has[best] & left:
            break
        families.append(best)
        left -= has.pop(best)
    return tuple(families), letters - left


def _weight(entry: Any) -> int:
    return entry.weight if isinstance(entry.weight, int) else 400


def _has(file: str, letters: frozenset[str]) -> set[str]:
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
    except (OSError, RuntimeError):  # a font that is there no more, or that FreeType does not read
        return set()
    return {each for each in letters if font.get_char_index(ord(each))}


def _usual() -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(USUAL))


@functools.lru_cache(maxsize=2)
def _letters_of(file: str) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    return frozenset(map(chr, get_font(file).get_charmap()))
