"""Why an item is in a customer's list, in words: what the expert that gave it most of its probability has to say.

Nothing is said that the log does not hold: events are called by the kinds that it names, days are counted back from the moment
that the list is for (the end of the log, or of a longer history), and places in a history are no days.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.inference.histories import EVENT, CustomerHistories
from attnrec_dist.inference.words import ago, names, places_ago
from attnrec_dist.terminal.layout import counted

DAY = 86_400
LATELY = (14, 60)  # days


def reason(shares: dict[str, float], item: int, history: CustomerHistories, data: DataSet) -> str:
    """The words of the expert with the largest share; for one without words of its own, its name."""
    expert = max(shares, key=lambda name: shares[name])
    if not shares[expert] > 0:
        return ""
    return SAYS[expert](item, history, data) if expert in SAYS else expert


def asked_at(history: CustomerHistories, data: DataSet) -> int:
    """Unix seconds of the moment that the list is for."""
    return int(max(data.manifest.end_time, history.times.max(initial=0)))


def had_before(item: int, history: CustomerHistories, data: DataSet) -> str:
    """How often the customer had the item, by kind of event, and when last.

    In the history 6 times (4 view, 2 buy), last 12 days ago.
    """
    own = np.flatnonzero(history.items == item)
    if not len(own):
        return "in the history"
    often = "once" if len(own) == 1 else f"{len(own):,} times"
    return f"in the history {often}{kinds(history.columns[EVENT][own], data)}, {last(history, own, data)}"


def kinds(events: np.ndarray, data: DataSet) -> str:
    """The kinds of some events, as the log names them, the most frequent first; "" where it names none."""
    types = data.manifest.event_types
    if not types:
        return ""
    count = np.bincount(events, minlength=len(types))
    found = [int(code) for code in np.argsort(-count, kind="stable") if count[code]]
    told = ", ".join(f"{count[code]:,} {types[code]}" if len(events) > 1 else types[code] for code in found)
    return f" ({told})"


def last(history: CustomerHistories, own: np.ndarray, data: DataSet) -> str:
    """When the newest of the customer's events [own] was."""
    newest = int(own[-1])
    if history.is_timed and data.manifest.time_unit == "order":
        later = history.times[history.times > history.times[newest]]
        when = places_ago(len(np.unique(later)), "order")
    elif data.manifest.times_are_places or not history.is_timed:
        when = places_ago(len(history.items) - 1 - newest, "event")
    else:
        seconds = asked_at(history, data) - int(history.times[newest])
        when = ago(seconds) if seconds >= DAY else "less than a day ago"
    return when if len(own) == 1 else f"last {when}"


def goes_with(item: int, history: CustomerHistories, data: DataSet) -> str:
    """Names the item of the history with the strongest edge to this one."""
    graph = data.graph()
    best, strongest = -1, 0.0
    for own in np.unique(history.items) if graph is not None else ():
        edges = slice(graph.offsets[own], graph.offsets[own + 1])  # type: ignore[union-attr]
        weights = graph.weights[edges][graph.neighbours[edges] == item]  # type: ignore[union-attr]
        if len(weights) and own != item and weights[0] > strongest:
            best, strongest = int(own), float(weights[0])
    if best < 0:
        return "goes with the history"
    return f"{'comes after' if graph.within else 'goes with'} {names(data, np.array([best]))[0]}"  # type: ignore[union-attr]


def of_late(item: int, history: CustomerHistories, data: DataSet) -> str:
    """How many events of all customers the item had on the days before the list's own, which is what the trend knows."""
    if data.manifest.times_are_places:
        return "as likely as any other item"
    daily = data.daily()
    of_item = slice(daily.offsets[item], daily.offsets[item + 1])
    days, counts = daily.days[of_item], daily.counts[of_item]
    today = (asked_at(history, data) + 1) // DAY
    called = "/".join(data.manifest.config.get("statistics", {}).get("events") or [])
    for span in (*LATELY, today - min(daily.days.min(initial=today), today)):
        known = int(counts[(days < today) & (days >= today - span)].sum())
        if known:
            within = f"the last {span} days" if span in LATELY else "the whole log"
            return f"{counted(known, f'{called} event'.strip())} of all customers in {within}"
    return "as likely as any other item"


SAYS: dict[str, Callable[[int, CustomerHistories, DataSet], str]] = {
    "copy": had_before,
    "graph": goes_with,
    "trend": of_late,
    "sequence": lambda *_: "expected after this history",
}
