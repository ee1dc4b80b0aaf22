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


_BLANKS = " \t\n\r\v\f\u00a0\u2000\u2001\u2002\u2003\u2007\u2009\u202f\u3000\ufeff"


def trimmed(value: str) -> str:
    """SQL of a text without the blanks at its ends, the typographic ones included."""
    return f"trim({value}, {text(_BLANKS)})"


def with_point(value: str) -> str:
    """SQL of the number that a text writes with a decimal comma, as 1.234,50; other text stays, but for 12.5, which is none.

    Points, blanks and apostrophes part groups of three digits, nothing else.
    """
    grouped = r"[-+]?[0-9]{1,3}([. \x{00a0}\x{202f}\x27’][0-9]{3})+(,[0-9]*)?"
    plain = r"[-+]?[0-9]*,?[0-9]*([eE][-+]?[0-9]{1,3})?"
    digits = f"replace(regexp_replace({value}, '[^-+0-9,eE]', '', 'g'), ',', '.')"
    return f"CASE WHEN regexp_full_match({value}, '{grouped}') OR regexp_full_match({value}, '{plain}') THEN {digits} END"
