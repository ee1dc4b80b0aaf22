"""Columns of the log that the YAML does not name, though they tell which events are none: quantities below 0 are returns."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.cleaning import dated, number, parsed, reason, wanted_columns
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.engines.duckdb import DuckEngine, EngineFault
from attnrec_dist.prepare.findings.find import Finding, finding, share_of, shown
from attnrec_dist.prepare.reading.columns import Source, reading, rows_of

QUANTITIES = {"quantity", "quantities", "qty", "quant", "count", "cnt", "amount", "amt", "units", "pieces", "menge", "anzahl"}
QUANTITIES |= {"stück", "stueck", "cantidad", "quantité", "quantite"}
MONEY = {"amount", "amt"}  # may be a fraction
_OTHERS = {"discount", "tax", "balance", "fee", "latitude", "longitude"}  # are below 0 without being returns
MOST = 5  # columns that are looked at
PLACE = "q"


def is_quantity(name: str) -> bool:
    """Whether a column's name says that it tells how many.

    >>> [name for name in ("QTY", "OrderQty", "item_count", "amount", "Country", "counter") if is_quantity(name)]
    ['QTY', 'OrderQty', 'item_count', 'amount']
    """
    words = set(re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
    return bool(words & QUANTITIES) and not words & _OTHERS


def returns(engine: DuckEngine, config: PrepareConfig, sources: list[Source]) -> list[Finding]:
    """Of rows that are kept. Costs a reading of each such column, where there is one, and where it has a value below 0 another
    one of the log."""
    wanted = wanted_columns(config)
    names = dict.fromkeys(name for source in sources if not source.is_lines for name, _ in source.columns)
    unnamed = [name for name in names if name not in wanted.values() and is_quantity(name)]
    try:
        with reading(sources):
            return [each for name in unnamed[:MOST] for each in _below_0(engine, config, sources, name)]
    except (InputError, EngineFault):  # nobody has asked for the column, so nothing of it may stop a preparation
        return []


def _below_0(engine: DuckEngine, config: PrepareConfig, sources: list[Source], name: str) -> Iterator[Finding]:
    value = f"CASE WHEN {PLACE} IS NOT NULL THEN {number(PLACE, config)} END"
    if not engine.row(f"SELECT count(*) FROM ({rows_of(sources, {PLACE: name})}) AS a WHERE {value} < 0")[0]:
        return
    raw = f"({rows_of(sources, wanted_columns(config) | {PLACE: name})})"
    rows = f"SELECT {', '.join([*parsed(config), f'{value} AS {PLACE}'])} FROM {dated(config, raw)} AS a"
    kept = f"SELECT {PLACE} FROM ({rows}) AS parsed WHERE {reason(config)} IS NULL"
    total, negative, least = engine.row(f"SELECT count(*), count(*) FILTER (WHERE {PLACE} < 0), min({PLACE}) FROM ({kept}) AS b")
    if negative:
        what = f"column {shown(name)}, which the YAML does not name, is below 0 in {share_of(negative, total, 'rows')}"
        one = 0 if MONEY & set(re.findall(r"[a-z]+", name.lower())) else 1
        yield finding(0.1 + negative / total, f"{what}, down to {least:g}", "negative", name=name, least=one)
