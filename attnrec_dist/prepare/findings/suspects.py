"""What in a log would spoil a model without an error, found by counting; find.py tells it. Thresholds are where the honest
logs that we have seen end.

`find` reads the tables `events`, `catalogue` and `row_codes`, which prepare has. `of_data_set` makes them of a data set, so that
`attnrec inspect` tells the same; nothing of it is stored.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import StorageError
from attnrec_dist.prepare import statements
from attnrec_dist.prepare.config.sections import EngineSection, EventColumn
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.findings import ids
from attnrec_dist.prepare.findings import times as suspect_times
from attnrec_dist.prepare.findings.find import Finding, LogFacts, finding, pairs_of, plain, share_of, shown
from attnrec_dist.prepare.sql import text
from attnrec_dist.terminal.layout import counted

REFUSED = 10.0  # the weight of what ends a training before it begins
BUSY_USER, BUSY_ITEM, BUSIEST_ITEM = 0.05, 0.1, 0.25  # shares of the events that one should not have
MOST_BUSY = 20  # so many may have the share of a busy user
REPEATED = 0.1  # of the rows
FEW_TESTED, FEW_ITEMS = 300, 20
COLD, ENOUGH = 0.5, 20  # of the test part: a share, and how much of it says something
RARE = 0.0001  # share of a kind of event
HEAVY = 0.2  # share of a column's sum that one value should not have
MISMATCHED = 0.05  # of the items or users, that are in their file in another form
UNKNOWN = 0.5  # of the items or users, without a row in their file
_QUANTITY = re.compile(r"quantit|qty|amount|units|count|price|menge|anzahl|cantidad|total", re.IGNORECASE)


def find(engine: DuckEngine, log: LogFacts) -> list[Finding]:
    """Reads `events` a few times and the other tables some ten times; makes small ones."""
    even = f"us % {suspect_times.QUARTER} = 0"
    columns = f"{suspect_times.day()} AS day, e, part, count(*) AS n, count(*) FILTER (WHERE {even}) AS even"
    engine.table("moments", f"SELECT {columns} FROM events GROUP BY 1, 2, 3")
    rules: list[Callable[[DuckEngine, LogFacts], Iterator[Finding]]] = [_taught, _ids, _kinds, _parts, _numbers, _repeated]
    rules += [] if log.has_places else suspect_times.RULES
    return [each for rule in rules for each in rule(engine, log)]


def of_data_set(data: DataSet) -> list[Finding]:
    """The same of a data set, but for what only prepare sees: rows that it left out, and ids of items' and users' files."""
    manifest = data.manifest
    facts = (manifest.event_types, manifest.numeric, manifest.split, manifest.cleaning)
    log = LogFacts(*facts, manifest.config, manifest.times_are_places)
    try:
        with tempfile.TemporaryDirectory() as scratch, DuckEngine(EngineSection(), Path(scratch)) as engine:
            engine.load("events", _shape(data), _events(data))
            for name, table, code in (("user", data.users(), "u"), ("item", data.items(), "i")):
                named = table.select(["index", "id"]).rename_columns([code, f"{name}_id"])
                engine.load(f"{name}_codes", named.schema, named.to_batches())
            engine.table("catalogue", statements.catalogue(whole=manifest.split.is_by_user))
            engine.table("row_codes", statements.rows())
            return find(engine, log) + _untitled(data)
    except OSError as error:
        raise StorageError.of(error, "looking for findings") from None


def _shape(data: DataSet) -> pa.Schema:
    columns = [("u", pa.int64()), ("i", pa.int32()), ("us", pa.int64()), ("e", pa.int8()), ("part", pa.int8())]
    return pa.schema(columns + [(name, pa.float32()) for name in statements.numbers(len(data.manifest.numeric))])


def _events(data: DataSet) -> Iterator[pa.RecordBatch]:
    """The table `events` as prepare has it, but for the order of items and for fractions of seconds."""
    for rows in data.scan(1 << 16):
        row = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))  # [T]
        place = np.arange(len(row)) - rows.offsets[row]
        part = (place >= rows.train_end[row]).astype(np.int8) + (place >= rows.valid_end[row])
        columns = [rows.users[row], rows.items, rows.times * 1_000_000, rows.events, part, *rows.numeric.values()]
        yield pa.record_batch([pa.array(column) for column in columns], _shape(data))


def _untitled(data: DataSet) -> list[Finding]:
    """Where there are titles, but most items have none."""
    items = data.items()
    if "title" not in items.column_names:
        return []
    titled = len(items) - items["title"].null_count
    what = f"{share_of(titled, len(items), 'items')} have a title"
    return [finding(0.25, what, "texts", whose="item")] if titled < UNKNOWN * len(items) else []


def unmatched(engine: DuckEngine, whose: Literal["item", "user"], known: str, have: str) -> list[Finding]:
    """Of a file about the items or the users: few of the log's ids are in it, or more would be in another form.

    known: a query for the file's `id`s. have: what the log's ids that are among them have, as in "have a title".
    """
    table = {"item": "catalogue", "user": "row_codes"}[whose]
    missing = f"SELECT {whose}_id AS id, seen FROM {table} WHERE {whose}_id NOT IN ({known})"
    total, without = engine.row(f"SELECT (SELECT count(*) FROM {table}), count(*) FROM ({missing}) AS a")
    if without < MISMATCHED * total:
        return []
    forms = [*([name] for name in ids.FORMS), list(ids.FORMS)]
    gain, names = max(((ids.matches(engine, missing, known, names), names) for names in forms), key=lambda pair: pair[0])
    what = f"{share_of(total - without, total, f'{whose}s')} {have}"
    if gain >= MISMATCHED * total:
        ours, theirs = (f"SELECT *, {ids.form(names)} AS form FROM ({query}) AS a" for query in (missing, known))
        pairs = f"SELECT a.id, b.id FROM ({ours}) AS a JOIN ({theirs}) AS b ON a.form = b.form"
        one, other = engine.row(f"{pairs} ORDER BY seen DESC, a.id, b.id LIMIT 1")
        what += f": the log has {shown(one, True)}, {whose}s.file {shown(other, True)}"
        differ = names[0] if len(names) == 1 else "these differences"
        return [finding(0.25, what, "texts form", forms=differ, count=total - without + gain)]
    if without <= UNKNOWN * total:
        return []
    queries = (f"SELECT id FROM ({missing}) AS a ORDER BY seen DESC, id", f"SELECT DISTINCT id FROM ({known}) AS a ORDER BY id")
    ours, theirs = (", ".join(shown(name, True) for (name,) in engine.rows(f"{query} LIMIT 3")) for query in queries)
    return [finding(0.25, f"{what}: the log has {ours}, {whose}s.file {theirs or 'none'}", "texts", whose=whose)]


def _taught(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    """Would `attnrec train` refuse the data set? As data.windows has it: a basket is predicted from one before it."""
    if log.settings.get("label") is not None:  # its examples are trained
        return
    several = f"SELECT 1 FROM events WHERE part = {statements.TRAIN} GROUP BY u HAVING"
    if engine.rows(f"{several} min({statements.SECOND}) < max({statements.SECOND}) LIMIT 1"):
        return
    nothing = "in the training part, so attnrec train refuses it (nothing to train on)"
    if engine.rows(f"{several} count(*) > 1 LIMIT 1"):
        what = f"no customer has a second basket {nothing}: events of one time are one"
        yield finding(REFUSED, what, "one basket")
    else:
        yield finding(REFUSED, f"no customer has a second event {nothing}", "nothing")


def _ids(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    total = int(engine.row("SELECT sum(n) FROM moments")[0])
    for whose, table in (("user", "row_codes"), ("item", "catalogue")):
        query = f"SELECT {whose}_id AS id, seen FROM {table}"
        none = ids.no_values(engine, query)
        if none:
            names = ", ".join(shown(name) for name, _ in none[:5]) + (", ..." if len(none) > 5 else "")
            seen = sum(count for _, count in none)
            what = f"{whose} ids that say there is none, such as {names}: {share_of(seen, total, 'events')}"
            yield finding(0.2 + seen / total, what, "no value", whose=whose)
        yield from _busy(engine, log, whose, {name for name, _ in none})
        same = ids.twins(engine, query)
        if same:
            count, left, lost, differ, (one, other) = same
            pair = f"{shown(one, True)} and {shown(other, True)}"
            what = f"{count:,} {whose} ids are {left:,} that differ only in {' or '.join(differ[:2])}, such as {pair}"
            what += f": {share_of(lost, total, 'events')} under another writing"
            yield finding(0.1 + lost / total, what, "twins")
        for kind, (count, seen, example) in sorted(ids.odd(engine, query).items()):
            looks = {"blanks": "hold blanks or unseen characters", ".0": "end in .0", "power": "look like 1.02E+05"}[kind]
            what = f"{count:,} {whose} ids {looks}, such as {shown(example, True)}: {share_of(seen, total, 'events')}"
            yield finding((0.3 if kind == "power" else 0) + 0.3 * seen / total, what, kind)


def _busy(engine: DuckEngine, log: LogFacts, whose: str, told: set[str]) -> Iterator[Finding]:
    """Users or items with a share of the events that no person or product has. An honest first has about twice the second's."""
    query = f"SELECT {whose}_id AS id, seen FROM {'row_codes' if whose == 'user' else 'catalogue'}"
    top = engine.rows(f"SELECT id, seen FROM ({query}) AS a ORDER BY seen DESC, id LIMIT {MOST_BUSY + 1}")
    total, count = map(int, engine.row(f"SELECT sum(seen), count(*) FROM ({query}) AS a"))
    least = max(BUSY_USER if whose == "user" else BUSY_ITEM, min(0.5, 5 / count)) * total
    if whose == "item" and top[0][1] < 3 * top[min(1, count - 1)][1]:
        least = max(least, BUSIEST_ITEM * total)
    busy = [(name, seen) for name, seen in top if seen >= least and name not in told and count > 1]
    if busy:
        names = ", ".join(shown(name) for name, _ in busy[:3])
        has = f"{len(busy)} of {count:,} {whose}s, {names}, {'has' if len(busy) == 1 else 'have'}"
        seen = sum(seen for _, seen in busy)
        most = 0
        if whose == "user":  # counted as filters.max_user_events counts
            counted = "trained" if log.split.kind == "time" else "seen"
            others = f"SELECT max({counted}) FROM row_codes WHERE user_id NOT IN ({', '.join(text(name) for name, _ in busy)})"
            most = max(1, engine.row(others)[0] or 0)
        yield finding(0.1 + seen / total, f"{has} {share_of(seen, total, 'events')}", f"busy {whose}", most=most)


def _kinds(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    if not log.types:
        return
    rows = engine.rows("SELECT e, part, CAST(sum(n) AS BIGINT) FROM moments GROUP BY 1, 2")
    counts = [[0, 0, 0] for _ in log.types]
    for kind, part, n in rows:
        counts[kind][part] = n
    of_part = [max(1, sum(column)) for column in zip(*counts)]
    total = sum(of_part)
    yield from _same_kinds({name: sum(of) for name, of in zip(log.types, counts)}, total)
    for name, of in zip(log.types, counts):
        if sum(of) == 0:
            yield finding(0.2, f"no event of kind {shown(name)} is left", "absent kind")
            continue
        if plain(name) in ids.NO_VALUE:
            yield finding(
                0.1 + sum(of) / total, f"kind of event {shown(name)}: {share_of(sum(of), total, 'events')}", "kind no value"
            )
        if sum(of) < RARE * total or (total >= 1000 and sum(of) < 10):
            yield finding(0.01, f"kind of event {shown(name)} is rare: {share_of(sum(of), total, 'events')}", "rare kind")
        elif of[statements.TRAIN] and log.split.kind == "time":
            parts = [part for part, place in (("validation", 1), ("test", 2)) if not of[place] and of_part[place] > 1]
            if parts:
                what = f"no event of kind {shown(name)} in the {' and '.join(parts)} part, of {of[0]:,} in training"
                yield finding(0.15, what, "untested kind")


def _same_kinds(counts: dict[str, int], total: int) -> Iterator[Finding]:
    """Kinds that differ in case or blanks only."""
    families: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        families.setdefault(plain(name), []).append(name)
    for first, *others in families.values():
        if others:
            seen = sum(counts[name] for name in others)
            pairs = pairs_of(dict.fromkeys(others, first))
            names = " and ".join(map(shown, [first, *others]))
            what = (
                f"kinds of event {names} differ only in case or blanks: {share_of(seen, total, 'events')} under another writing"
            )
            yield finding(0.2 + seen / total, what, "kinds", pairs=pairs)


def kinds_left_out(engine: DuckEngine, column: EventColumn | None) -> list[Finding]:
    """Kinds that columns.event.types leaves out, though it lists them in another case or without the blanks. Reads `clean`."""
    if column is None or not column.types:
        return []
    meant = {plain(name): name for name in column.types}
    same = f"{ids.form(['blanks', 'case'], 'event')} IN ({', '.join(map(text, meant))})"
    unknown = f"SELECT event, count(*) FROM clean WHERE reason = 'unknown event' AND event IS NOT NULL AND {same} GROUP BY event"
    rows = engine.rows(f"{unknown} ORDER BY 2 DESC, 1 LIMIT 100")
    if not rows:
        return []
    pairs = {name: meant[plain(name)] for name, _ in rows if plain(name) in meant}
    count, total = sum(count for _, count in rows), engine.row("SELECT count(*) FROM clean")[0]
    what = f"{share_of(count, total, 'rows')} are left out for the case or the blanks of their kind, such as {shown(rows[0][0])}"
    return [finding(0.3 + count / total, what, "unknown kinds", pairs=pairs_of(pairs))]


def _parts(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    """Is the test part one that tells anything?"""
    found = dict(engine.rows("SELECT part, CAST(sum(n) AS BIGINT) FROM moments GROUP BY 1"))
    asked = log.settings.get("split", {})
    for part, name in ((statements.VALIDATION, "validation"), (statements.TEST, "test")):
        if not found.get(part) and (log.split.kind != "time" or asked.get(f"{name}_from") or asked.get(name)):
            yield finding(0.3, f"no event is in the {name} part", f"no part, {log.split.kind}", least=2 * log.split.last + 1)
    tested, strangers = engine.row(
        "SELECT count(*), count(*) FILTER (WHERE trained + validated = 0) FROM row_codes WHERE tested > 0"
    )
    items, cold = engine.row(
        "SELECT count(*) FILTER (WHERE ranked), CAST(sum(tested) FILTER (WHERE n = 0) AS BIGINT) FROM catalogue"
    )
    test = found.get(statements.TEST, 0)
    if 0 < tested < FEW_TESTED:
        wide = f"the 95% interval of a hit rate is up to {min(1, 2 * 0.98 / math.sqrt(tested)):.2f} wide"
        yield finding(0.08, f"the test part has only {counted(tested, 'user')}: {wide}", "few")
    if items < FEW_ITEMS:
        yield finding(0.07, f"only {counted(items, 'item')} in the catalogue", "few items")
    if test >= ENOUGH and (cold or 0) >= COLD * test:
        what = f"{share_of(cold, test, 'events of the test part')} are on items without a training event"
        yield finding(0.5 * cold / test, what, "cold")
    if tested >= ENOUGH and strangers >= COLD * tested:
        yield finding(0.06, f"{share_of(strangers, tested, 'users of the test part')} have no earlier event", "strangers")


def _numbers(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    names = statements.numbers(len(log.numeric))
    if not names:
        return
    columns = ", ".join(f"min({c}), max({c}), sum(abs(CAST({c} AS DOUBLE))), count(*) FILTER (WHERE {c} < 0)" for c in names)
    total, *figures = engine.row(f"SELECT count(*), {columns} FROM events")
    for place, name in enumerate(log.numeric):
        low, high, whole, negative = figures[4 * place : 4 * place + 4]
        if low == high and total > 1:
            yield finding(0.01, f"numeric column {shown(name)} is {low:g} throughout", "constant")
            continue
        if negative and _QUANTITY.search(name):
            what = f"{shown(name)} is below 0 in {share_of(negative, total, 'events')}, down to {low:g}"
            yield finding(0.1 + negative / total, what, "negative", name=name, least=1 if "pri" not in name.lower() else 0)
        most = max(abs(low), abs(high))
        if most * total < 4 * whole:
            continue  # its share cannot be so large
        times = engine.row(f"SELECT count(*) FROM events WHERE abs({names[place]}) = CAST({most!r} AS FLOAT)")[0]
        if times * most >= HEAVY * whole and times <= HEAVY / 4 * total:
            value = high if high == most else low
            what = f"{shown(name)} is {value:g} in {counted(times, 'event')}, {times * most / whole:.0%} of the column's sum"
            yield finding(0.05 + times / total, what, "heavy", name=name)


def _repeated(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    same, kept = log.cleaning.get("duplicate", 0), engine.row("SELECT sum(n) FROM moments")[0]
    rows = same + kept + log.cleaning.get("below min_item_events or min_user_events", 0)
    if same >= REPEATED * rows:
        what = f"{share_of(same, rows, 'rows')} repeat another one's user, item and time and were left out"
        yield finding(0.5 * same / rows, what, "repeated")
