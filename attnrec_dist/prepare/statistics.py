"""What is counted over the catalogue: each item's events a day, and which items go together in the training part.

Pairs of items can be far more than events, so they are counted for a range of items at a time, chosen so that a range's pairs fit
in memory; only the nearest of each item leave the engine. Counts are integers until the last division: neither the ranges, nor
threads, nor spilling leave a trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from attnrec_dist.data.manifest import DAILY, GRAPH, IN_BASKETS
from attnrec_dist.prepare.config.sections import GraphSection, StatisticsSection
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.shard_writer import Fingerprint, ListFile
from attnrec_dist.prepare.statements import TRAIN, numbers

PIECE = 2**21  # pairs, or days of items, counted at a time: about 100 MB here, as much in the engine
DAY = 86_400_000_000  # microseconds
BASKETS_FROM = 0.5  # share of the training events in baskets of several items from which `auto` is basket


class Statistics:
    """Reads the tables `events` and `catalogue`; the files go where they are told. V catalogue."""

    def __init__(self, engine: DuckEngine, config: StatisticsSection, fingerprint: Fingerprint, scratch: Path, num_items: int):
        self.engine, self.config, self.fingerprint = engine, config, fingerprint
        self.scratch = scratch
        self.num_items = num_items
        self.report: dict[str, int] = {}

    def choose(self, types: list[str], numeric: int) -> None:
        """Views `counted` and `counted_train`: the events that count, by item number."""
        codes = [str(types.index(name)) for name in self.config.events or []]
        among = f" AND e IN ({', '.join(codes)})" if codes else ""
        columns = ", ".join(["u", "us", "item", "events.i", "e", *numbers(numeric)])
        counted = f"SELECT {columns}, part FROM events JOIN catalogue ON events.i = catalogue.i WHERE ranked{among}"
        self.engine.view("counted", counted)
        self.engine.view("counted_train", f"SELECT * FROM counted WHERE part = {TRAIN}")

    def daily(self, path: Path) -> None:
        """Writes daily.arrow."""
        day = f"CAST((us - (us % {DAY} + {DAY}) % {DAY}) // {DAY} AS INTEGER)"
        self.engine.table("days", f"SELECT item, {day} AS day, count(*) AS n FROM counted GROUP BY 1, 2")
        file = ListFile(self.scratch / DAILY, ["days", "counts"])
        for lo, hi in pieces(self._by_item("SELECT item, count(*) FROM days GROUP BY item")):
            query = f"SELECT item, day, n FROM days WHERE item BETWEEN {lo} AND {hi - 1} ORDER BY item, day"
            item, days, counts = self._columns(query)
            file.append(np.bincount(item - lo, minlength=hi - lo), [days.astype("<i4"), counts.astype("<i4")])
        self.engine.drop("days")
        self.report["days of items"] = file.finish(path, self.fingerprint, {})

    def graph_rule(self, has_no_baskets: bool) -> tuple[GraphSection, str]:
        """`statistics.graph` with its kind chosen from the log where it is auto, and why; "" where it was named."""
        rule = self.config.graph
        if rule.kind != "auto":
            return rule, ""
        if has_no_baskets:
            return rule.model_copy(update={"kind": "next"}), "each event has its own place, so no two are a basket"
        sizes = "(SELECT count(*) AS size FROM (SELECT DISTINCT u, us, item FROM counted_train) AS l GROUP BY u, us) AS b"
        query = f"SELECT coalesce(sum(size), 0), coalesce(sum(size) FILTER (WHERE size > 1), 0) FROM {sizes}"
        total, together = map(int, self.engine.row(f"{query} WHERE size <= {rule.max_basket}"))
        self.report[IN_BASKETS] = together
        kind = "basket" if together >= BASKETS_FROM * total else "next"
        share = f"{together:,} of {total:,} training events stand in a basket of several items; basket from {BASKETS_FROM:.0%} on"
        why = share if total else f"every basket holds more than max_basket ({rule.max_basket:,}) items"
        return rule.model_copy(update={"kind": kind}), why

    def graph(self, path: Path, rule: GraphSection, numeric: int) -> None:
        """Writes graph.arrow."""
        pairs = self._basket_pairs(rule) if rule.kind == "basket" else self._next_pairs(rule, numeric)
        held = self._by_item("SELECT item, n FROM held")
        file = ListFile(self.scratch / GRAPH, ["neighbours", "weights", "pairs"])
        for lo, hi in pieces(self._by_item("SELECT item, work FROM held")):
            item, other, together = self._columns(nearest(pairs, lo, hi, rule.neighbours))
            weights = together / np.sqrt((held[item] * held[other]).astype(np.float64))
            lists = [other.astype("<i4"), weights.astype("<f4"), together.astype("<i4")]
            file.append(np.bincount(item - lo, minlength=hi - lo), lists)
        self.engine.drop("held", "lines")
        self.report["edges of the graph"] = file.finish(path, self.fingerprint, {"baskets": held.astype("<i4")})

    def _basket_pairs(self, rule: GraphSection) -> str:
        """Tables `lines` (the items of each basket that is not too big) and `held`; the query of all pairs."""
        run = self.engine.table
        run("distinct_lines", "SELECT DISTINCT u, us, item FROM counted_train")
        run("baskets", "SELECT u, us, row_number() OVER () AS basket, count(*) AS size FROM distinct_lines GROUP BY u, us")
        run(
            "lines",
            f"""SELECT basket, item, size FROM distinct_lines AS a JOIN baskets AS b ON a.u = b.u AND a.us = b.us
            WHERE size BETWEEN 2 AND {rule.max_basket}""",
        )
        run(
            "held",
            """SELECT a.item, n, coalesce(work, 0) AS work
            FROM (SELECT item, count(*) AS n FROM distinct_lines GROUP BY item) AS a
            LEFT JOIN (SELECT item, sum(size) AS work FROM lines GROUP BY item) AS b ON a.item = b.item""",
        )
        big = f"count(*) FILTER (WHERE size > {rule.max_basket})"
        self.report["baskets"], self.report["baskets over max_basket"] = self.engine.row(f"SELECT count(*), {big} FROM baskets")
        self.engine.drop("distinct_lines", "baskets")
        return "SELECT a.item, b.item AS other FROM lines AS a JOIN lines AS b ON a.basket = b.basket"

    def _next_pairs(self, rule: GraphSection, numeric: int) -> str:
        """Tables `lines` (each event's item and those of the following events) and `held`; the query of all pairs."""
        order = ", ".join(["us", "i", "e", *numbers(numeric)])  # as in the rows of the data set
        places = range(1, rule.within + 1)
        following = ", ".join(f"lead(item, {place}) OVER own AS f{place}" for place in places)
        own = f"WINDOW own AS (PARTITION BY u ORDER BY {order})"
        self.engine.table("lines", f"SELECT item, {following} FROM counted_train {own}")
        self.engine.table("held", f"SELECT item, count(*) AS n, count(*) * {rule.within} AS work FROM lines GROUP BY item")
        self.report["events in the graph"] = self.engine.row("SELECT count(*) FROM lines")[0]
        return " UNION ALL ".join(f"SELECT item, f{place} AS other FROM lines WHERE f{place} IS NOT NULL" for place in places)

    def _by_item(self, query: str) -> np.ndarray:
        """int64 [V] of a query for (item, number); 0 for items without."""
        result = np.zeros(self.num_items, np.int64)
        for batch in self.engine.ordered_batches(f"SELECT * FROM ({query}) AS q ORDER BY 1"):
            result[batch.column(0).to_numpy()] = batch.column(1).cast(pa.int64()).to_numpy()
        return result

    def _columns(self, query: str) -> list[np.ndarray]:
        """The three columns of an ordered query, as int64."""
        batches = list(self.engine.ordered_batches(query))
        shape = pa.schema([(name, pa.int64()) for name in ("item", "a", "b")])
        named = [batch.rename_columns(shape.names).cast(shape) for batch in batches]
        table = pa.Table.from_batches(named, shape)
        return [table[name].to_numpy() for name in shape.names]


def nearest(pairs: str, lo: int, hi: int, neighbours: int) -> str:
    """(item, other, pairs) of the items lo..hi-1, each with its nearest others, in order.

    pairs^2 / n orders a row as the cosine does, and is exact as long as the integers are below 2^53: ties are ties.
    """
    counted = f"SELECT item, other, count(*) AS pairs FROM ({pairs}) AS p WHERE item BETWEEN {lo} AND {hi - 1} AND item <> other"
    closeness = "CAST(pairs * pairs AS DOUBLE) / CAST(n AS DOUBLE)"
    return f"""
        SELECT item, other, pairs FROM (
            SELECT c.item, other, pairs, row_number() OVER (PARTITION BY c.item ORDER BY {closeness} DESC, other) AS place
            FROM ({counted} GROUP BY item, other) AS c JOIN held ON c.other = held.item) AS ranked
        WHERE place <= {neighbours} ORDER BY item, place"""


def pieces(work: np.ndarray, size: int | None = None) -> Iterator[tuple[int, int]]:
    """Ranges [lo, hi) that cover the items, each of at most `size` work or of one item. work: int64 [V]."""
    up_to = np.cumsum(work)
    lo, done = 0, 0
    while lo < len(work):
        hi = max(lo + 1, int(np.searchsorted(up_to, done + (size or PIECE), side="right")))
        yield lo, hi
        lo, done = hi, int(up_to[hi - 1])
