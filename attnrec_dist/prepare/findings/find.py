"""What is told of a log that would spoil a model without an error: a line each, worst first, with a figure and what to set.

suspects.py, times.py and unnamed.py find them. ADVICE is the one place to change when a key comes for what is done by hand today.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from attnrec_dist.data.manifest import Split
from attnrec_dist.prepare.sql import text

MOST_SHOWN = 10

ADVICE = {
    "no value": "list them in input.null_values: rows without a {whose} are left out and counted",
    "busy user": "if it is a bot, a test, or an account that many share, set filters.max_user_events: {most}, or list it in "
    "filters.drop_users: FILE",
    "busy item": "if it is no product (postage, a fee, a bag), list it in filters.drop_items: FILE",
    "rate": "if they are bots, set filters.max_user_events, or list them in filters.drop_users: FILE",
    "twins": "write each id one way in the log before",
    "blanks": "set input.trim: true, or the ids of other files and of later histories will not match",
    ".0": "a table with gaps wrote whole numbers as floats: write them as text before (pandas: astype('Int64'))",
    "power": "a spreadsheet wrote long numbers so, and their digits are lost: export the log again with ids as text",
    "kinds": "set columns.event.rename: {{{pairs}}}",
    "kind no value": "set columns.event.types to the kinds that are meant, without it",
    "rare kind": "leave it out with columns.event.types, or join it to another with columns.event.rename",
    "absent kind": "check columns.event.types against the log",
    "untested kind": "with it in data.target_events there is nothing to measure: move split.validation_from and split.test_from",
    "later": "if that is a mistake, set input.end: {end}",
    "earlier": "if that is a mistake, set input.start: {start}",
    "inside": "is a file missing, or a time misread? Else set input.end: {end} or input.start: {start}",
    "dates": "events of one day are then one basket without order: read a column with the time of day, if there is one",
    "one second": "check columns.timestamp: is it when the event happened, or when it was exported?",
    "repeated": "if each line is one piece more, set filters.drop_duplicates: false",
    "nothing": "is columns.user the customer's column, and not a visit's or an order's?",
    "one basket": "train with --data.basket none, which predicts them one after another, or check columns.user",
    "cold": "such events count as misses: move split.test_from later, or lower filters.min_item_events",
    "strangers": "is columns.user a session or an order rather than a customer? If so, that is as it must be",
    "few": "take a longer log or a longer test part (split.test) before you trust a comparison",
    "few items": "a list of ten shows most of them: is columns.item the product, not a category?",
    "no part, time": "set split.validation_from and split.test_from within the log, or leave them out",
    "no part, leave_last_basket": "a user needs {least} baskets for that: take a longer log, or split.kind: time",
    "no part, leave_one_out": "a user needs {least} events for that: take a longer log, or split.kind: time",
    "constant": "leave it out of columns.numeric, it tells nothing",
    "heavy": "if it stands for something else, bound it: filters.where: {{{name}: {{max: ...}}}}",
    "negative": "if they are returns, set filters.where: {{{name}: {{min: {least}}}}}",
    "unknown kinds": "set columns.event.rename: {{{pairs}}}",
    "texts": "check {whose}s.id, {whose}s.file and {whose}s.columns",
    "texts form": "write both the same way: without {forms} they are {count:,}",
}


@dataclass(frozen=True)
class Finding:
    weight: float  # about which share of the data it touches: the order in which they are told
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}"


def finding(weight: float, what: str, advice: str, **words: object) -> Finding:
    return Finding(float(weight), what, ADVICE[advice].format(**words))


def told(findings: list[Finding]) -> str:
    """A line each, worst first, at most MOST_SHOWN.

    >>> told([])
    'findings: none'
    """
    if not findings:
        return "findings: none"
    ranked = sorted(findings, key=lambda each: (-each.weight, each.what))
    more = [f"  and {len(ranked) - MOST_SHOWN} lesser ones"] if len(ranked) > MOST_SHOWN else []
    return "\n".join(["findings, worst first:", *(f"  - {each}" for each in ranked[:MOST_SHOWN]), *more])


@dataclass(frozen=True)
class LogFacts:
    """What is known of the log beside its tables. `settings`: the preparation's, as the manifest has them."""

    types: list[str]
    numeric: list[str]
    split: Split
    cleaning: dict[str, int]
    settings: dict[str, Any]
    has_places: bool

    @property
    def zone(self) -> str:
        return str(self.settings.get("columns", {}).get("timestamp", {}).get("time_zone", "UTC"))


def share_of(count: int, total: int, what: str) -> str:
    """
    >>> share_of(0, 205, "items"), share_of(1, 3000, "events"), share_of(12, 12, "rows")
    ('0 of 205 items', '1 of 3,000 events (<0.1%)', '12 of 12 rows (100.0%)')
    """
    share = count / max(total, 1)
    shares = "" if not count else f" ({share:.1%})" if share >= 0.001 else " (<0.1%)"
    return f"{count:,} of {total:,} {what}{shares}"


def shown(value: str, escaped: bool = False) -> str:
    """A value from the log, cut and quoted; `escaped`: so that what looks alike can be told apart."""
    value = value if len(value) <= 40 else value[:37] + "..."
    return ascii(value) if escaped else repr(value)


def plain(kind: str) -> str:
    return kind.strip().lower()


def pairs_of(names: dict[str, str]) -> str:
    """As YAML has it in braces."""
    return ", ".join(f"{_word(name)}: {_word(to)}" for name, to in names.items())


def _word(name: str) -> str:
    return (
        name
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)
        and name.lower() not in ("null", "yes", "no", "on", "off", "true", "false", "y", "n")
        else text(name)
    )
