"""Changes to how times are written: those that prepare promises to read, and others, which it may refuse."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from logs import Attempt, Expected
from neutral import TABLES, neutral


def _time_column(attempt: Attempt, function: Callable[[int], str], **keys: Any) -> None:
    """Writes seconds otherwise; nothing where another change has done so."""
    name = attempt.config["columns"].get("timestamp")
    if not isinstance(name, str) or name not in attempt.names:
        return
    if not all(row[attempt.column(name)].isdigit() for row in attempt.rows):
        return

    def written(text: str) -> str:
        try:
            return function(int(text))
        except (OSError, OverflowError, ValueError):  # of an odd time
            return text

    attempt.config["columns"]["timestamp"] = {"name": name} | keys
    attempt.change(name, written)


def _in_zone(zone: str, shape: str) -> Callable[[int], str]:
    return lambda second: dt.datetime.fromtimestamp(second, ZoneInfo(zone)).strftime(shape)


def _iso(zone: str, **keys: str) -> Callable[[int], str]:
    return lambda second: dt.datetime.fromtimestamp(second, ZoneInfo(zone)).isoformat(**keys)


PROMISED_TIMES: list[tuple[str, Callable[[int], str], dict[str, str]]] = [
    ("ms", lambda second: f"{second}000", {}),
    ("us", lambda second: f"{second}000000", {}),
    ("ms named", lambda second: f"{second}000", {"unit": "ms"}),
    ("s named", str, {"unit": "s"}),
    ("with a fraction", lambda second: f"{second}.0", {}),
    ("ISO in UTC", _iso("UTC"), {}),
    ("ISO with Z", _in_zone("UTC", "%Y-%m-%dT%H:%M:%SZ"), {}),
    ("ISO with a blank", _in_zone("UTC", "%Y-%m-%d %H:%M:%S"), {}),
    ("ISO with ms", _iso("UTC", timespec="milliseconds"), {}),
    ("ISO elsewhere", _iso("Asia/Kolkata"), {}),
    ("ISO west", _iso("America/St_Johns"), {"time_zone": "Europe/London"}),
    ("ISO named", _iso("Asia/Tokyo"), {"unit": "iso"}),
    ("local", _in_zone("Asia/Tokyo", "%Y-%m-%d %H:%M:%S"), {"time_zone": "Asia/Tokyo"}),
    ("a format", _in_zone("UTC", "%d/%m/%Y %H:%M:%S"), {"format": "%d/%m/%Y %H:%M:%S"}),
    ("a format, local", _in_zone("Asia/Tokyo", "%d.%m.%Y %H:%M:%S"), {"format": "%d.%m.%Y %H:%M:%S", "time_zone": "Asia/Tokyo"}),
]
OTHER_TIMES: list[tuple[str, Callable[[int], str], dict[str, str]]] = [
    ("ns", lambda second: f"{second}000000000", {}),
    ("with an exponent", lambda second: f"{second / 1e9:.9f}E9", {}),
    ("with UTC", _in_zone("UTC", "%Y-%m-%d %H:%M:%S UTC"), {}),
    ("with +0000 UTC", _in_zone("UTC", "%Y-%m-%d %H:%M:%S +0000 UTC"), {}),
    ("with slashes", _in_zone("UTC", "%Y/%m/%d %H:%M:%S"), {}),
    ("digits in a row", _in_zone("UTC", "%Y%m%d%H%M%S"), {}),
    ("American", _in_zone("UTC", "%m/%d/%Y %I:%M:%S %p"), {}),
    ("RFC 2822", _in_zone("UTC", "%a, %d %b %Y %H:%M:%S +0000"), {}),
    (
        "%z and a zone",
        _in_zone("Asia/Tokyo", "%Y-%m-%d %H:%M:%S %z"),
        {"format": "%Y-%m-%d %H:%M:%S %z", "time_zone": "Europe/London"},
    ),
    ("%Z", _in_zone("UTC", "%Y-%m-%d %H:%M:%S %Z"), {"format": "%Y-%m-%d %H:%M:%S %Z"}),
    ("ISO week", _in_zone("UTC", "%G-W%V-%uT%H:%M:%S"), {}),
    ("blanks around", lambda second: f" {second} ", {}),
    ("a sign", lambda second: f"+{second}", {}),
    ("the wrong unit named", lambda second: f"{second}000", {"unit": "s"}),
    ("ms, s and ISO in turn", lambda second: [f"{second}000", str(second), _iso("UTC")(second)][second % 3], {}),
    ("negative zero offset", _in_zone("UTC", "%Y-%m-%dT%H:%M:%S-00:00"), {}),
    ("commas", lambda second: f"{second},0", {}),
    ("Arabic digits", lambda second: "".join(chr(0x660 + int(digit)) for digit in str(second)), {}),
]


def register() -> None:
    for times, expected in ((PROMISED_TIMES, Expected.SAME), (OTHER_TIMES, Expected.SAME_OR_REFUSED)):
        for name, function, keys in times:

            def change(
                attempt: Attempt,
                draw: random.Random,
                function: Callable[[int], str] = function,
                keys: dict[str, str] = keys,
                expected: Expected = expected,
            ) -> None:
                _time_column(attempt, function, **keys)
                attempt.expect(expected)

            # features such as the weekday are told in the zone
            neutral(*(("shop", "clicks") if "time_zone" in keys else TABLES), name=f"time: {name}")(change)


register()
