"""A log in two files, as shops keep orders and their lines: rows of the one with the columns that a key finds in the other."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.config.input_sections import JoinSection
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.reading.columns import Source, reading, rows_of
from attnrec_dist.prepare.sql import identifier

TABLE = "joined"  # key, j0, j1, ...: the other file's row of each key
PREFIX = "join."  # before the name of a column of the other file, where both have it
_KEY = "\0key"
UNMATCHED = "\0unmatched"  # in place of a column to select: whether the other file has no row for this one


@dataclass(frozen=True)
class JoinedSource(Source):
    """Files of lines, read with the columns of the other file beside their own."""

    on: str = ""
    theirs: tuple[str, ...] = ()  # wanted columns of the other file, as they are named there

    @classmethod
    def of(cls, source: Source, on: str, theirs: tuple[str, ...]) -> JoinedSource:
        return cls(**{each.name: getattr(source, each.name) for each in fields(source)}, on=on, theirs=theirs)

    def select(self, wanted: dict[str, str], files: tuple[Path, ...] | None = None) -> str:
        own = {name for name, _ in self.columns}
        values = {name: self._theirs(column, own) for name, column in wanted.items()}
        mine = {name: column for name, column in wanted.items() if values[name] is None}
        shown = ", ".join(f"{value or f'm.{identifier(name)}'} AS {identifier(name)}" for name, value in values.items())
        lines = super().select(mine | {_KEY: self.on}, files)
        return f"SELECT {shown} FROM ({lines}) AS m LEFT JOIN {TABLE} AS j ON m.{identifier(_KEY)} = j.key"

    def _theirs(self, column: str, own: set[str]) -> str | None:
        if column == UNMATCHED:
            return "(j.key IS NULL)"
        name = name_in_other(column, own)
        return f"j.j{self.theirs.index(name)}" if name in self.theirs else None


def name_in_other(column: str, own: set[str]) -> str | None:
    """The name in the other file that a column's name means; None: the lines' files have it."""
    return None if column in own else column.removeprefix(PREFIX)


def load(engine: DuckEngine, section: JoinSection, other: list[Source], theirs: tuple[str, ...]) -> None:
    """Fills TABLE. Raises InputError where a key has two rows: each line would count twice."""
    wanted = {"key": section.id or section.on} | {f"j{place}": name for place, name in enumerate(theirs)}
    with reading(other):
        engine.table(TABLE, f"SELECT * FROM ({rows_of(other, wanted)}) AS o WHERE key IS NOT NULL")
    twice = engine.rows(f"SELECT key, count(*) FROM {TABLE} GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 1")
    for key, count in twice:
        raise InputError(
            f"{other[0].files[0]}: {count:,} rows have {section.id or section.on} {key!r}, and input.join wants one a key; is "
            "the file with a row an order in input.join.file, and that of their lines in input.files?"
        )
