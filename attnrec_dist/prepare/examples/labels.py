"""Which (user, item, moment) are examples, and their labels: statements over `log`, the events with `s`, their unix second.

An example is a distinct (user, item, second). Of several events in that second, the first one's numbers are its own.
`part` is the event's own part of the split; a drawn item has that of the positive it stands beside.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnrec_dist.data.example_format import SILENT
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.examples.as_of import AsOf, known
from attnrec_dist.prepare.examples.config import LabelSection, TaskSection
from attnrec_dist.prepare.examples.features import Log
from attnrec_dist.prepare.sql import identifier, text
from attnrec_dist.prepare.statements import SECOND, TEST, TRAIN, VALIDATION, numbers
from attnrec_dist.times.timestamps import seconds

MOST_ROUNDS = 32  # of drawing again where the drawn item was taken
STEPS = 1 << 24  # a weight's whole steps: n^exponent is cut to 1/16,777,216
UNKNOWN_MOMENT = "window crosses a cut or the end"
NO_NUMBER = "no number to judge by"
NEW_ITEM = "item without an earlier training event"
TAKEN = "drawn items were all taken"


@dataclass(frozen=True)
class Ends:
    """The first second after each part."""

    train: int
    validation: int
    test: int

    def of_part(self) -> str:
        """SQL."""
        return (
            f"CASE part WHEN {TRAIN} THEN {self.train} WHEN {VALIDATION} THEN {self.validation} WHEN {TEST} THEN {self.test} END"
        )


def log_view(numeric: int) -> str:
    return f"SELECT u, i, us, {SECOND} AS s, e, part{''.join(', ' + name for name in numbers(numeric))} FROM events"


def moments(among: str, numeric: int) -> str:
    """SELECT u, i, s, part, n0..: the distinct (user, item, second) of these events."""
    own = "".join(", " + name for name in numbers(numeric))
    order = ", ".join(["us", "e", *numbers(numeric)])
    place = f"row_number() OVER (PARTITION BY u, i, s ORDER BY {order})"
    return f"SELECT u, i, s, part{own} FROM (SELECT *, {place} AS place FROM log WHERE {among}) AS a WHERE place = 1"


class Labels:
    """Fills the table `examples`: u, i, s, part, n0.. (own numbers, NULL for a drawn item), and a column `label.TASK` a task."""

    def __init__(self, engine: DuckEngine, label: LabelSection, log: Log, ends: Ends):
        self.engine, self.label, self.log, self.ends = engine, label, log, ends
        self.left_out: dict[str, int] = {}

    def make(self) -> None:
        label, numeric = self.label, len(self.log.numeric)
        self.engine.view("log", log_view(numeric))
        if label.kind == "sampled":
            Draws(self.engine, label, self.log, self.left_out).make()
        else:
            self.engine.table(
                "candidates", f"SELECT *, NULL AS taken FROM ({moments(self.log.is_one_of(label.on), numeric)}) AS a"
            )
        tasks = label.all_tasks()
        following = {name: self._follow_up(task) for name, task in tasks.items() if task.kind == "follow_up"}
        source = "candidates"
        if following:
            self.engine.table("follows", known("user_item", following, "log", "candidates"))
            source += " JOIN follows USING (u, i, s)"
        labels = ", ".join(f"{self._value(name, task)} AS {identifier(f'label.{name}')}" for name, task in tasks.items())
        own = "".join(", " + name for name in numbers(numeric))
        self.engine.table("examples", f"SELECT u, i, s, part{own}, {labels} FROM {source}")
        self.engine.drop("candidates", *(["follows"] if following else []))
        self._leave_out_the_silent()

    def _follow_up(self, task: TaskSection) -> AsOf:
        return AsOf.count("user_item", self.log.is_one_of(task.events), task.within, later=True)

    def _value(self, name: str, task: TaskSection) -> str:
        """SQL of a task's label: 1, 0, or -1 where it cannot be told."""
        if task.kind == "follow_up":
            found = f"CASE WHEN s + {seconds(str(task.within))} < {self.ends.of_part()} THEN ({identifier(name)} > 0)::INT END"
        elif task.kind == "column":
            found = f"CAST({self.log.number(task.column)} >= CAST({task.at_least!r} AS FLOAT) AS INTEGER)"
        else:
            found = "CAST(taken AS INTEGER)"
        return f"CAST(coalesce({found}, {SILENT}) AS TINYINT)"

    def _leave_out_the_silent(self) -> None:
        main = identifier(f"label.{self.label.name}")
        silent = int(self.engine.row(f"SELECT count(*) FROM examples WHERE {main} = {SILENT}")[0])
        if self.label.kind != "sampled":
            self.left_out[UNKNOWN_MOMENT if self.label.kind == "follow_up" else NO_NUMBER] = silent
        if silent:
            self.engine.table("examples", f"SELECT * FROM examples WHERE {main} <> {SILENT}")


class Draws:
    """Fills `candidates` with the positives and, for each, items drawn at its moment, `taken` telling them apart.

    An item is drawn with probability n(t)^a / sum of them all, n(t) being its training events strictly before the moment. Each
    training event of an item adds a step, j^a - (j-1)^a for the item's j-th; laid end to end in time order (`ladder`) the steps
    before a moment are n(t)^a long for each item, so a point drawn uniformly below their sum falls on an item with that
    probability. A point is a hash of (seed, user, item, second, slot, round): no state, no order. Where it falls on an item that
    the user takes at that moment, another is drawn. With replacement: an item may be drawn twice.
    """

    def __init__(self, engine: DuckEngine, label: LabelSection, log: Log, left_out: dict[str, int]):
        self.engine, self.label, self.log, self.left_out = engine, label, log, left_out

    def make(self) -> None:
        run = self.engine.table
        numeric = len(self.log.numeric)
        run("taken", moments(self.log.is_one_of(self.label.events), numeric))
        run("ladder", self._ladder())
        run("tops", self._tops())
        run("first_seen", "SELECT i, min(s) AS first_s FROM ladder GROUP BY i")
        own = "".join(", " + name for name in numbers(numeric))
        run("positives", f"SELECT u, i, s, part{own} FROM taken JOIN first_seen USING (i) WHERE first_s < s")
        all_taken, positives = self.engine.row("SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM positives)")
        self.left_out[NEW_ITEM] = all_taken - positives
        self._draw()
        nothing = "".join(f", NULL AS {name}" for name in numbers(numeric))
        run(
            "candidates",
            f"""SELECT u, i, s, part{own}, true AS taken FROM positives
            UNION ALL SELECT u, drawn AS i, s, part{nothing}, false AS taken FROM drawn""",
        )
        self.engine.drop("taken", "ladder", "tops", "first_seen", "positives", "drawn", "slots")

    def _ladder(self) -> str:
        """SELECT i, s, lo, hi: the steps, one after another, in whole numbers, so that sums are exact."""
        power = repr(self.label.exponent)
        rise = f"CAST(floor(pow(j, {power}) * {STEPS}) AS BIGINT)"
        before = f"CASE WHEN j = 1 THEN 0 ELSE CAST(floor(pow(j - 1, {power}) * {STEPS}) AS BIGINT) END"
        return f"""
            SELECT i, s, hi - step AS lo, hi FROM (
                SELECT i, s, step, CAST(sum(step) OVER (ORDER BY s, i, u ROWS UNBOUNDED PRECEDING) AS BIGINT) AS hi FROM (
                    SELECT u, i, s, {rise} - {before} AS step FROM (
                        SELECT u, i, s, row_number() OVER (PARTITION BY i ORDER BY s, u) AS j
                        FROM taken WHERE part = {TRAIN}) AS a) AS b) AS c
            WHERE step > 0"""

    def _tops(self) -> str:
        """SELECT s, top: how high the ladder stands before each moment."""
        return """
            SELECT s, top FROM (
                SELECT s, moment, max(hi) OVER (ORDER BY s RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS top FROM (
                    SELECT s, false AS moment, max(hi) AS hi FROM ladder GROUP BY s
                    UNION ALL SELECT DISTINCT s, true, NULL FROM taken) AS a) AS b
            WHERE moment AND top IS NOT NULL"""

    def _draw(self) -> None:
        """Table `drawn`; `slots` holds what is still to be drawn."""
        run = self.engine.table
        slots = f"(SELECT unnest(range({self.label.negatives})) AS slot) AS slots"
        run("slots", f"SELECT u, i, s, part, slot FROM positives CROSS JOIN {slots}")
        run("drawn", "SELECT u, i, s, part, slot, i AS drawn FROM slots WHERE false")
        for attempt in range(MOST_ROUNDS):
            run("found", self._round(attempt))
            clash = "(u, drawn, s) IN (SELECT (u, i, s) FROM taken)"
            self.engine.run(f"INSERT INTO drawn SELECT * FROM found WHERE NOT {clash}")
            run("slots", f"SELECT u, i, s, part, slot FROM found WHERE {clash}")
            left = int(self.engine.row("SELECT count(*) FROM slots")[0])
            if not left:
                break
        self.left_out[TAKEN] = left
        self.engine.drop("found")

    def _round(self, attempt: int) -> str:
        parts = [str(self.label.seed), "user_id", "item_id", "s", "slot", str(attempt)]
        key = f"concat_ws({text(chr(31))}, {', '.join(parts)})"
        share = f"(md5_number_lower({key}) >> 12)::DOUBLE / {float(1 << 52)!r}"  # 52 bits: exact in a double
        point = f"least(CAST(floor({share} * top) AS BIGINT), top - 1)"
        points = f"""
            SELECT u, i, s, part, slot, {point} AS point
            FROM slots JOIN tops USING (s) JOIN user_codes USING (u) JOIN item_codes USING (i)"""
        return f"SELECT p.u, p.i, p.s, p.part, p.slot, l.i AS drawn FROM ({points}) AS p ASOF JOIN ladder AS l ON p.point >= l.lo"
