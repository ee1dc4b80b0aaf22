"""Logs whose cells mean something else than they are read as: a list of items where one is read, a place that is taken twice."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.reading.columns import Source
from attnrec_dist.prepare.report import found_rows
from attnrec_dist.prepare.sql import identifier, text
from attnrec_dist.prepare.statements import SECOND

SAMPLE = 2_000  # item ids that are looked at
SEPARATORS = ("|", ";", ",", " ")  # a blank last: others may have one behind them
BRACKETS = ("[]", "()", "{}")


def check_cells(engine: DuckEngine, config: PrepareConfig, sources: list[Source]) -> None:
    """Raises InputError where most items are lists of ids (unless input.item_lists is keep), or a user's place is taken twice."""
    if config.input.item_lists == "refuse":
        _check_items(engine, config, sources)
    if config.columns.timestamp.unit == "place":
        _check_places(engine, config, sources)


def _check_items(engine: DuckEngine, config: PrepareConfig, sources: list[Source]) -> None:
    (items,) = engine.row("SELECT count(*) FROM item_codes")
    cells = engine.rows(
        f"SELECT item_id, count(*) FROM events JOIN item_codes ON events.i = item_codes.i "
        f"WHERE item_codes.i % {-(-items // SAMPLE) or 1} = 0 GROUP BY item_id ORDER BY item_id"
    )
    found = separator(cells)
    if found is None:
        return
    cell = max((cell for cell, _ in cells), key=lambda cell: len(parts(cell, found)))
    where, remedy = f"{sources[0].files[0]}: the items are", "part the items of a line by blanks"
    if not sources[0].is_lines:
        rows = found_rows(config, sources, engine.rows, f"item_id = {text(cell)}", ["item_id"], most=1)
        where = f"{rows[0].partition(': ')[0]}: columns.item {config.columns.item!r} holds"
        remedy = (
            f"write a row an item, or lines 'user item item ...' (input.format: user_items): {_to_type(config, sources, found)}"
        )
    shown = repr(cell if len(cell) <= 60 else cell[:57] + "...")
    raise InputError(
        f"{where} lists of ids, as {shown}, where one id is read; {remedy}; or, if each is one id, set input.item_lists: keep"
    )


def _to_type(config: PrepareConfig, sources: list[Source], separator: str) -> str:
    """The line that writes a row an item, for a shell. $$ quotes where quotes would have to be quoted."""
    column, file = identifier(config.columns.item), identifier(str(sources[0].files[0]))
    between = rf"](){{}}[\x22\x27{separator}"  # brackets, both quotes
    query = (
        f"COPY (SELECT * REPLACE (unnest(regexp_extract_all({column}, $$[^{between} ][^{between}]*$$)) AS {column}) "
        f"FROM {file}) TO $$rows.csv$$"
    )
    return "python -c " + shlex.quote(f'import duckdb; duckdb.sql("""{query}""")')


def parts(cell: str, separator: str) -> list[str]:
    """The ids in a cell, brackets and quotes taken off."""
    bare = cell.strip(" [](){}")
    found = bare.split() if separator == " " else bare.split(separator)
    return [part for part in (each.strip(" \t'\"") for each in found) if part]


def separator(cells: Sequence[tuple[str, int]]) -> str | None:
    """What parts the ids in the cells of (cell, number of rows), if most are lists of them; None: each cell is one id.

    A title with blanks is no list, though its words come again, nor is an id of several parts: a list's parts look like ids (they
    have digits), their number varies or one part stands in several places, and the whole seldom comes again.
    """
    if len(cells) < 3:
        return None
    bracketed = [cell for cell, _ in cells if cell.strip()[:1] + cell.strip()[-1:] in BRACKETS]
    for sign in SEPARATORS:
        split = [(parts(cell, sign), rows) for cell, rows in cells]
        lists = [(each, rows) for each, rows in split if len(each) > 1]
        if 2 * len(bracketed) >= len(cells) and any(sign in cell for cell in bracketed):
            return sign
        if (
            2 * len(lists) >= len(cells)
            and sum(rows for _, rows in lists) < 3 * len(lists)
            and _is_of_ids(lists, sign, len(cells))
        ):
            return sign
    return None


def _is_of_ids(lists: list[tuple[list[str], int]], sign: str, cells: int) -> bool:
    every = [part for each, _ in lists for part in each]
    places = Counter(part for each, _ in lists for part in set(each))
    if len({len(each) for each, _ in lists}) == 1 and len(lists) == cells:
        at = {(place, part) for each, _ in lists for place, part in enumerate(each)}
        several = Counter(part for _, part in at)
        if 2 * sum(several[part] > 1 for part in every) < len(every):
            return False
    if 10 * sum(any(letter.isdigit() for letter in part) for part in every) >= 9 * len(every):
        return True
    return sign != " " and 5 * len(lists) >= 4 * cells and len(every) >= 2 * len(places)


def _check_places(engine: DuckEngine, config: PrepareConfig, sources: list[Source]) -> None:
    place = SECOND.replace("us", "events.us")
    places = f"SELECT u, {place} AS place, count(*) AS n FROM events GROUP BY 1, 2 HAVING count(*) > 1"
    twice = engine.rows(
        f"SELECT user_id, place, n FROM ({places}) AS a JOIN user_codes ON a.u = user_codes.u ORDER BY user_id, place LIMIT 1"
    )
    for user, at, count in twice:
        same = f"user_id = {text(user)} AND us >= {at * 1_000_000} AND us < {(at + 1) * 1_000_000}"
        rows = "; ".join(found_rows(config, sources, engine.rows, same, ["stamp", "item_id"]))
        raise InputError(
            f"{count:,} events of user {user!r} have place {at} ({rows}), but with columns.timestamp.unit place each event has "
            f"one of its own; number them anew, or set unit: order if they number baskets, another one if they are times"
        )
