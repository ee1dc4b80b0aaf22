"""The columns that a config names: found in each file, or the message that says what is there instead."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare.reading import json_lines
from attnrec_dist.prepare.reading.columns import ABSENT, NESTED, Source


def with_later_fields(sources: list[Source], wanted: list[str]) -> list[Source]:
    """The sources, each with the wanted fields that a JSON file has, but not in its first lines."""
    found: list[Source] = []
    for source in sources:
        groups: dict[tuple[str, ...], list[Path]] = {}
        for path in source.files:
            missing = [name for name in wanted if name not in dict(source.columns)] if source.kind == "jsonl" else []
            groups.setdefault(tuple(json_lines.later_columns(path, source.text, missing)), []).append(path)
        for names, paths in groups.items():
            found.append(replace(source, files=tuple(paths), columns=source.columns + tuple((name, "json") for name in names)))
    return found


def united(sources: list[Source], optional: list[str]) -> list[Source]:
    """The sources, each with those of the optional columns that another one has: they are missing in its rows."""
    known = {name for source in sources for name, _ in source.columns}
    lacking = [[name for name in dict.fromkeys(optional) if name in known - set(dict(source.columns))] for source in sources]
    return [
        replace(source, columns=source.columns + tuple((name, ABSENT) for name in names))
        for source, names in zip(sources, lacking)
    ]


def require_columns(sources: list[Source], wanted: dict[str, str]) -> None:
    """Every source must have each column of {config key: column} once, with plain values. Raises InputError."""
    for source in sources:
        known = [name for name, _ in source.columns]
        for key, column in wanted.items():
            if known.count(column) > 1:
                raise InputError(
                    f"{source.files[0]}: {known.count(column)} columns are named {column!r}, which {key} names; rename one, or "
                    f"of csv and tsv set {source.text.where}.header: false and {source.text.where}.names"
                )
            if column not in known:
                close = difflib.get_close_matches(column.lower(), [name.lower() for name in known], 1, 0.6)
                similar = [name for name in known if name.lower() in close]
                hint = (
                    _other_delimiter(source)
                    or _list_of(source, column)
                    or (f"did you mean {_readable(similar[0])}? " if similar else "")
                )
                raise InputError(
                    f"{source.files[0]}: no column {column!r}, which {key} names; {hint}the columns there: "
                    f"{', '.join(map(_readable, known[:100]))}{', ...' if len(known) > 100 else ''}"
                )
            kind = source.columns[known.index(column)][1]
            if kind.startswith(NESTED):
                can_unnest = source.kind == "jsonl" and kind == "list" and source.text.where == "input"
                raise ConfigError(
                    f"{source.files[0]}: column {column!r}, which {key} names, holds {kind}; only plain values can be read"
                    + (f"; for a row for each of its values set input.unnest: {column}" if can_unnest else "")
                )


def _other_delimiter(source: Source) -> str:
    """What to set where a header of one column holds what other files separate columns with."""
    if not source.is_csv or len(source.columns) > 1:
        return ""
    written = {"::": "'::'", ";": "';'", "|": "'|'", "\t": '"\\t"', ",": "','", "\x01": '"\\x01"'}
    found = [delimiter for delimiter in written if delimiter in source.columns[0][0]]
    return f"set {source.text.where}.delimiter: {written[found[0]]}; " if found else ""


def _list_of(source: Source, column: str) -> str:
    """What to set where a column that is not there is named like a field of what a list of JSON holds."""
    kinds, name = dict(source.columns), column.rpartition(".")[0]
    can_unnest = source.kind == "jsonl" and kinds.get(name) == "list" and source.text.where == "input"
    return f"for a row for each value of {name} set input.unnest: {name}; " if can_unnest else ""


def _readable(name: str) -> str:
    """A name as it is, or, where that would mislead, quoted and cut."""
    if name.isprintable() and name.strip() == name and 0 < len(name) <= 60:
        return name
    return repr(name if len(name) <= 60 else name[:57] + "...")
