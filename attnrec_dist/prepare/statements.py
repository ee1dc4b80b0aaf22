"""The statements between the clean rows and the shards, in portable SQL; each function returns one.

events: u (user code), i (item code), us (microseconds since 1970), e (event index), n0.. (float32). Item codes are ranks of
the raw ids as UTF-8 bytes; so a tie in time is broken the same way whatever file a row came from.
"""

from __future__ import annotations

from attnrec_dist.prepare.config.choice import FiltersSection
from attnrec_dist.prepare.sql import text

TRAIN, VALIDATION, TEST = 0, 1, 2
SECOND = "(us - (us % 1000000 + 1000000) % 1000000) // 1000000"  # rounded down


def numbers(count: int) -> list[str]:
    return [f"n{place}" for place in range(count)]


def user_codes() -> str:
    """Users numbered by the md5 of their id. By buckets of it, so that no single worker has to sort them all."""
    bucket = "substr(md5(user_id), 1, 3)"
    place = "row_number() OVER (PARTITION BY s.bucket ORDER BY md5(s.user_id), s.user_id)"
    users = "(SELECT DISTINCT user_id FROM clean WHERE reason IS NULL)"
    return f"""
        SELECT s.user_id, CAST(b.base + {place} - 1 AS BIGINT) AS u
        FROM (SELECT user_id, {bucket} AS bucket FROM {users} AS a) AS s
        JOIN (SELECT bucket, sum(n) OVER (ORDER BY bucket) - n AS base
              FROM (SELECT {bucket} AS bucket, count(*) AS n FROM {users} AS c GROUP BY 1) AS d) AS b
        ON s.bucket = b.bucket"""


def item_codes() -> str:
    return """
        SELECT item_id, CAST(row_number() OVER (ORDER BY item_id) - 1 AS INTEGER) AS i
        FROM (SELECT DISTINCT item_id FROM clean WHERE reason IS NULL) AS a"""


def event_types() -> str:
    return "SELECT DISTINCT event FROM clean WHERE reason IS NULL ORDER BY event"


def encoded(types: list[str], numeric: int) -> str:
    """Clean rows with codes instead of texts."""
    branches = " ".join(f"WHEN {text(name)} THEN {place}" for place, name in enumerate(types))
    event = f"CASE event {branches} END" if types else "0"
    columns = ", ".join(["u", "i", "us", f"CAST({event} AS TINYINT) AS e", *numbers(numeric)])
    return f"""
        SELECT {columns} FROM clean
        JOIN user_codes ON clean.user_id = user_codes.user_id
        JOIN item_codes ON clean.item_id = item_codes.item_id
        WHERE reason IS NULL"""


def joined_in_baskets(numeric: int, gap: int) -> str:
    """Events of a user less than `gap` seconds after the one before take the time of the first of them."""
    begins = f"coalesce(us - lag(us) OVER own >= {gap * 1_000_000}, true)"
    others = ", ".join(["e", *numbers(numeric)])
    return f"""
        SELECT u, i, max(CASE WHEN begins THEN us END) OVER own AS us, {others}
        FROM (SELECT *, {begins} AS begins FROM events WINDOW own AS (PARTITION BY u ORDER BY us)) AS a
        WINDOW own AS (PARTITION BY u ORDER BY us)"""


def distinct(numeric: int) -> str:
    """One row of each (user, item, time, event): the one whose numbers come first."""
    if not numeric:
        return "SELECT DISTINCT u, i, us, e FROM events"
    kept = ", ".join(["u", "i", "us", "e", *numbers(numeric)])
    order = ", ".join(numbers(numeric))
    place = f"row_number() OVER (PARTITION BY u, i, us, e ORDER BY {order})"
    return f"SELECT {kept} FROM (SELECT *, {place} AS place FROM events) AS ranked WHERE place = 1"


def second_at(position: int) -> str:
    """The unix second of the event at a position, counted from 0, of all events in time order; no row beyond the last."""
    return f"""
        SELECT min(second) FROM (
            SELECT second, sum(n) OVER (ORDER BY second) AS up_to
            FROM (SELECT {SECOND} AS second, count(*) AS n FROM events GROUP BY 1) AS a) AS b
        WHERE up_to > {position}"""


def split_in_time(train_end: int, valid_end: int) -> str:
    """Adds `part`. The cuts are unix seconds, the first moment of the next part."""
    part = f"CASE WHEN us < {train_end * 1000000} THEN {TRAIN} WHEN us < {valid_end * 1000000} THEN {VALIDATION} ELSE {TEST} END"
    return f"SELECT *, CAST({part} AS TINYINT) AS part FROM events"


def split_by_user(numeric: int, last: int, by_basket: bool) -> str:
    """Adds `part`: a user's `last` latest events are test, as many before them validation, if one more is left to train on.

    `by_basket`: all events of so many seconds, as models and views know a basket by its second.
    """
    latest = ", ".join(f"{column} DESC" for column in ["us", "i", "e", *numbers(numeric)])
    place = f"row_number() OVER (PARTITION BY u ORDER BY {latest})"
    if by_basket:
        place = f"dense_rank() OVER (PARTITION BY u ORDER BY {SECOND} DESC)"
    part = f"CASE WHEN n <= {2 * last} OR place > {2 * last} THEN {TRAIN} WHEN place > {last} THEN {VALIDATION} ELSE {TEST} END"
    kept = ", ".join(["u", "i", "us", "e", *numbers(numeric)])
    return f"""
        SELECT {kept}, CAST({part} AS TINYINT) AS part
        FROM (SELECT *, max(place) OVER (PARTITION BY u) AS n FROM (SELECT *, {place} AS place FROM events) AS a) AS ranked"""


def users_with_cut_baskets() -> str:
    """(users of whom a held-out event shares its second with one of another part, users with a held-out event)."""
    seconds = f"SELECT u, max(part) AS held_out, min(part) < max(part) AS is_cut FROM events GROUP BY u, {SECOND}"
    users = f"SELECT bool_or(is_cut) AS is_cut FROM ({seconds}) AS a GROUP BY u HAVING max(held_out) > {TRAIN}"
    return f"SELECT count(*) FILTER (WHERE is_cut), count(*) FROM ({users}) AS b"


def of_usual_users(filters: FiltersSection, among: str) -> str:
    """Events of the users who have not too many."""
    unusual = f"SELECT u FROM events WHERE {among} GROUP BY u HAVING count(*) > {filters.max_user_events}"
    return f"SELECT * FROM events WHERE u NOT IN ({unusual})"


def core_users(filters: FiltersSection, among: str) -> str:
    """Users with enough events on the items still in."""
    return f"""
        SELECT u FROM events WHERE {among} AND i IN (SELECT i FROM core_items)
        GROUP BY u HAVING count(*) >= {filters.min_user_events}"""


def core_items(filters: FiltersSection, among: str) -> str:
    return f"""
        SELECT i FROM events WHERE {among} AND u IN (SELECT u FROM core_users)
        GROUP BY i HAVING count(*) >= {filters.min_item_events}"""


def in_core(among: str) -> str:
    """Events that the core keeps; those it does not speak of (NOT among) stay."""
    return f"SELECT * FROM events WHERE NOT ({among}) OR (u IN (SELECT u FROM core_users) AND i IN (SELECT i FROM core_items))"


def catalogue(whole: bool) -> str:
    """Items by number: first those to rank (with a training event; or all, if `whole`), most frequent first, then the others.

    n: training events, tested: test events, seen: all events.
    """
    ranked = "true" if whole else "n > 0"
    return f"""
        SELECT a.i, item_id, n, seen, tested, {ranked} AS ranked,
            CAST(row_number() OVER (ORDER BY {ranked} DESC, n DESC, item_id) - 1 AS INTEGER) AS item
        FROM (SELECT i, {_in(TRAIN)} AS n, count(*) AS seen, {_in(TEST)} AS tested FROM events GROUP BY i) AS a
        JOIN item_codes ON a.i = item_codes.i"""


def rows() -> str:
    """Users by number, which is their row: still in the order of the md5, without those that were filtered away."""
    parts = f"count(*) AS seen, {_in(TRAIN)} AS trained, {_in(VALIDATION)} AS validated, {_in(TEST)} AS tested"
    return f"""
        SELECT user_id, a.u, CAST(row_number() OVER (ORDER BY a.u) - 1 AS BIGINT) AS row_index, seen, trained, validated, tested
        FROM (SELECT u, {parts} FROM events GROUP BY u) AS a JOIN user_codes ON a.u = user_codes.u"""


def _in(part: int) -> str:
    return f"count(*) FILTER (WHERE part = {part})"


def sharded(numeric: int, rows_per_shard: int) -> str:
    columns = ", ".join(["row_index", "item", "events.i", "us", "e", "part", *numbers(numeric)])
    return f"""
        SELECT {columns}, CAST(row_index // {rows_per_shard} AS INTEGER) AS shard
        FROM events JOIN row_codes ON events.u = row_codes.u JOIN catalogue ON events.i = catalogue.i"""


def item_texts(columns: list[str]) -> str:
    """Items in order, with the texts of the item file; of an id given twice, the smallest text of each column."""
    texts = "".join(f", t.{name}" for name in columns)
    return f"""
        SELECT c.item AS index, c.item_id AS id, CAST(c.n AS BIGINT) AS count{texts}
        FROM catalogue AS c{" LEFT JOIN item_texts AS t ON c.item_id = t.id" if columns else ""} ORDER BY c.item"""


def user_ids() -> str:
    return "SELECT row_index AS index, user_id AS id FROM row_codes ORDER BY row_index"
