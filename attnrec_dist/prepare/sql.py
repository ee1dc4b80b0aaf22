"""Quoting for SQL text: names of columns and values come from configs and files, so none goes in unquoted. How a number looks."""

from __future__ import annotations

NUMBER = r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?"


def clamped(value: str, limit: float) -> str:
    """SQL of a number cut to +-limit. A NULL stays one, which `least` and `greatest` would pass over."""
    return f"CASE WHEN {value} > {limit!r} THEN {limit!r} WHEN {value} < {-limit!r} THEN {-limit!r} ELSE {value} END"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
