"""What a data set holds as numbers, for reading: items, moments, ages."""

from __future__ import annotations

import numpy as np

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.manifest import Manifest
from attnrec_dist.terminal.layout import counted


def names(data: DataSet, items: np.ndarray) -> list[str]:
    """Titles, ids where there is none."""
    return [(title or "").strip() or identity for title, identity in zip(data.titles(items), data.item_ids(items))]


def date(second: int, manifest: Manifest) -> str:
    """The day of a unix second, UTC; of a log without dates the number that it has of its own."""
    return manifest.own_number(second) or str(np.datetime64(second, "s").astype("datetime64[D]"))


def moment(time: int) -> str:
    """Weekday, hour and date of a unix second, UTC.

    >>> moment(1_322_666_000)
    'Wed 2011-11-30 15:13'
    """
    stamp = np.datetime64(time, "s").item()
    return str(stamp.strftime("%a %Y-%m-%d %H:%M"))


def ago(seconds: int) -> str:
    """
    >>> ago(30), ago(7_300), ago(86_400), ago(90 * 86_400)
    ('1 minute ago', '2 hours ago', '1 day ago', '90 days ago')
    """
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size or unit == "minute":
            break
    return f"{counted(max(1, seconds // size), unit)} ago"


def places_ago(places: int, what: str) -> str:
    """
    >>> places_ago(0, "order"), places_ago(1, "event"), places_ago(12, "event")
    ('the newest order', '1 event before the newest', '12 events before the newest')
    """
    return f"{counted(places, what)} before the newest" if places else f"the newest {what}"
