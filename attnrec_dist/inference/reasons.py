"""Why an item is in a customer's list, in words: what the expert that gave it most of its probability has to say."""

from __future__ import annotations

import numpy as np

from attnrec_dist.data.shards import DataSet
from attnrec_dist.inference.histories import CustomerHistories

DAY = 86_400


def reason(shares: dict[str, float], item: int, history: CustomerHistories, data: DataSet) -> str:
    """The words of the expert with the largest share; for one without words of its own, its name."""
    expert = max(shares, key=lambda name: shares[name])
    if expert == "copy":
        return bought_before(item, history, data.manifest.end_time)
    if expert == "graph":
        return goes_with(item, history, data)
    return {"trend": "trending", "sequence": "like your recent ones"}.get(expert, expert)


def bought_before(item: int, history: CustomerHistories, now: int) -> str:
    times = history.times[history.items == item]
    if not len(times):
        return "like what you had before"
    ago = max(0, (max(now, int(history.times.max())) - int(times.max())) // DAY)
    often = f"bought {len(times)} times, last" if len(times) > 1 else "bought"
    return f"{often} {ago} days ago" if ago != 1 else f"{often} yesterday"


def goes_with(item: int, history: CustomerHistories, data: DataSet) -> str:
    """Names the item of the history with the strongest edge to this one."""
    graph = data.graph()
    if graph is None:
        return "goes with your basket"
    best, strongest = -1, 0.0
    for own in np.unique(history.items):
        edges = slice(graph.offsets[own], graph.offsets[own + 1])
        weights = graph.weights[edges][graph.neighbours[edges] == item]
        if len(weights) and own != item and weights[0] > strongest:
            best, strongest = int(own), float(weights[0])
    if best < 0:
        return "goes with your basket"
    told = data.titles(np.array([best]))[0] or data.item_ids(np.array([best]))[0]
    return f"goes with {told.strip()}"
