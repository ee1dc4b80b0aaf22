"""Input files -> one SELECT that gives every row of the log as text, whatever the format, compression and column order.

The engine never sees a column's own name: it compares names without regard to case. It is told c0, c1, ... in the files' order.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare.config.input_sections import LINE_FORMATS
from attnrec_dist.prepare.engines.duckdb import EngineFault
from attnrec_dist.prepare.reading import json_lines, lines, parquet_files, text_files
from attnrec_dist.prepare.reading.encodings import UTF_8
from attnrec_dist.prepare.reading.files import COMPRESSIONS, Stamp, require_same, suffixes_of
from attnrec_dist.prepare.reading.ragged import Ragged, require_whole
from attnrec_dist.prepare.reading.ragged import without_ragged as without_ragged_rows
from attnrec_dist.prepare.reading.text_files import Survey, TextFormat
from attnrec_dist.prepare.sql import identifier, text, trimmed

FORMATS = {
    **{"csv": "csv", "tsv": "tsv", "tab": "tsv", "parquet": "parquet", "pq": "parquet"},
    **{"jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl"},
}
UNREADABLE = {"bz2": "bzip2", "xz": "xz", "zip": "zip", "lz4": "lz4"}
NESTED = ("list", "large_list", "fixed_size_list", "struct", "map")
PARTITION, ABSENT = "of the directory's name", "of other files"  # types of columns that a file itself does not have
DAMAGED = "\0damaged"  # in place of a column to select: whether the row is one of a damaged line of JSON
PLACE = "\0place"  # in place of a column to select: the number of the row, from 1 below the header; of one file alone
_OF_CSV = "CSV Error"  # in the engine's errors about a row; the line that they name is not always the file's


@dataclass(frozen=True)
class Source:
    """Files with the same columns in the same order, so that one reader serves them all."""

    kind: str  # csv, tsv, parquet, jsonl, user_items, pairs
    files: tuple[Path, ...]
    columns: tuple[tuple[str, str], ...]  # (name, type as Arrow writes it; "string" in csv; "json"; PARTITION and ABSENT last)
    text: TextFormat
    compression: str = "none"
    stamps: dict[Path, Stamp] = field(default_factory=dict)
    surveys: dict[Path, Survey] = field(default_factory=dict)  # of csv, tsv and jsonl
    copies: dict[Path, Path] = field(default_factory=dict)  # file -> what the engine reads in its place
    partitions: dict[Path, dict[str, str | None]] = field(default_factory=dict)  # file -> values of the PARTITION columns
    ragged: dict[Path, Ragged] = field(default_factory=dict)  # file -> the rows that its copy leaves out

    def select(self, wanted: dict[str, str], files: tuple[Path, ...] | None = None) -> str:
        """SELECT of {name in the result: column of the file}, each as text; an empty text is NULL.

        Of user_items and pairs it reads the table that prepare/reading/lines.py fills, whole.
        """
        return " UNION ALL ".join(self._select(wanted, *group) for group in self._groups(files or self.files))

    def _select(self, wanted: dict[str, str], files: list[Path], compression: str) -> str:
        types = dict(reversed(self.columns))
        own = [name for name in wanted.values() if types.get(name) not in (None, PARTITION, ABSENT)]
        given = [name for name in wanted.values() if types.get(name) == PARTITION]
        values = {name: self._value(name, types[name], own, given) for name in {*own, *given}}
        values[PLACE] = "line" if self.kind == "jsonl" and self.text.unnest else "row_number() OVER ()"
        values[DAMAGED] = "(json IS NULL OR json_type(json) <> 'OBJECT')" if self.kind == "jsonl" else "false"
        shown = ", ".join(
            f"{values.get(column, 'CAST(NULL AS VARCHAR)')} AS {identifier(name)}" for name, column in wanted.items()
        )
        return f"SELECT {shown} FROM {self._table(own, given, files, compression)}"

    def _value(self, name: str, kind: str, own: list[str], given: list[str]) -> str:
        if kind == PARTITION:
            value = f"h{given.index(name)}"
        elif self.kind == "jsonl":
            place = json_lines.in_order(own, self.text.unnest).index(name) + 1
            value = json_lines.as_text(f"fields[{place}]", f"types[{place}]")
        else:
            value = _as_text(f"c{[each for each, _ in self.columns].index(name)}", kind)
        if self.text.trim:
            value = f"nullif({trimmed(value)}, '')"
        if self.text.null_values:
            value = f"CASE WHEN ({value}) NOT IN ({', '.join(map(text, self.text.null_values))}) THEN {value} END"
        return value

    def _groups(self, files: tuple[Path, ...]) -> list[tuple[list[Path], str]]:
        """(files, compression): the copies are not compressed."""
        copied = [file for file in files if file in self.copies]
        others = [file for file in files if file not in self.copies]
        return [group for group in ((others, self.compression), (copied, "none")) if group[0]]

    def _table(self, own: list[str], given: list[str], files: list[Path], compression: str) -> str:
        """The rows of files: columns c0, c1, ..., or in JSON `fields` and `types` of the own ones; h0, h1, ... of those that are
        given by their directories."""
        if not given:
            return self._reader(own, files, compression)
        named = list(dict.fromkeys(given))
        rows = [[str(self.copies.get(file, file)), *(self.partitions[file][name] for name in named)] for file in files]
        listed = ", ".join(f"({', '.join('NULL' if value is None else text(value) for value in row)})" for row in rows)
        names = ", ".join(f"h{given.index(name)}" for name in named)
        return f"{self._reader(own, files, compression, True)} JOIN (VALUES {listed}) AS h(path, {names}) ON e.file = h.path"

    def _reader(self, own: list[str], files: list[Path], compression: str, with_file: bool = False) -> str:
        listed = "[" + ", ".join(text(glob.escape(str(self.copies.get(file, file)))) for file in files) + "]"
        stored = [name for name, kind in self.columns if kind not in (PARTITION, ABSENT)]
        names = ", ".join([*(f"c{place}" for place in range(len(stored))), *(["file"] if with_file else [])])
        more = ", filename = true" if with_file else ""
        if self.is_lines:
            return f"({lines.events(self.kind)}) AS e({names})"
        if self.kind == "parquet":  # hive_partitioning: a directory called user=5 would stand in for the column
            return f"read_parquet({listed}, hive_partitioning = false{more}) AS e({names})"
        if self.kind == "jsonl":
            known, unnest = {name for name, _ in self.columns}, self.text.unnest
            fields, types = json_lines.fields(own, known, unnest)
            also = (", filename AS file" if with_file else "") + (", line" if unnest else "")
            objects = json_lines.reader(listed, compression, more, unnest, known)
            return f"(SELECT json, {fields} AS fields, {types} AS types{also} FROM {objects}) AS e"
        columns = ", ".join(f"c{place}: 'VARCHAR'" for place in range(len(stored)))
        quote = text(self.text.quote)
        return (
            f"read_csv({listed}, columns = {{{columns}}}, auto_detect = false, header = {str(self.text.header).lower()}, "
            f"delim = {text(self.delimiter)}, quote = {quote}, escape = {quote}, nullstr = '', "
            f"compression = {text(compression)}, hive_partitioning = false{more}) AS e({names})"
        )

    @property
    def is_lines(self) -> bool:
        return self.kind in LINE_FORMATS

    @property
    def is_csv(self) -> bool:
        return self.kind in ("csv", "tsv")

    @property
    def width(self) -> int:
        """How many columns the files themselves have."""
        return sum(kind not in (PARTITION, ABSENT) for _, kind in self.columns)

    def as_read(self, file: Path) -> tuple[Path, TextFormat]:
        """What the engine reads in place of a file, and how that is written."""
        return (self.copies[file], replace(self.text, encoding=UTF_8)) if file in self.copies else (file, self.text)

    @property
    def delimiter(self) -> str:
        return self.text.separator(self.kind)


def inspect(files: dict[Path, dict[str, str | None]], kind: str, layout: TextFormat) -> list[Source]:
    """Reads every file's header, no more. Files with equal columns come together; files without a byte are an error.

    `files`: what the names of their directories give them as columns; a column of the file's own goes before.
    """
    _check_layout(layout)
    stamps = {path: Stamp.of(path) for path in files}
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[Path]] = {}
    for path, partition in files.items():
        actual = _kind(path, kind, layout.where)
        is_text = actual in ("csv", "tsv", "jsonl")  # of others the engine does not unpack
        compression = COMPRESSIONS.get(suffixes_of(path)[1], "none") if is_text else "none"
        own = _columns(path, actual, layout)
        given = tuple((name, PARTITION) for name in partition if name not in dict(own)) if actual not in LINE_FORMATS else ()
        groups.setdefault((actual, compression, own + given), []).append(path)
    return [
        Source(
            kind,
            tuple(paths),
            columns,
            layout,
            compression,
            {path: stamps[path] for path in paths},
            partitions={path: files[path] for path in paths},
        )
        for (kind, compression, columns), paths in groups.items()
    ]


def verified(sources: list[Source], wanted: list[str]) -> list[Source]:
    """The sources after a pass over all their bytes that finds what is cut off or damaged: the engine does not look for it.

    Of Parquet the wanted columns; of lines none, which are looked over as they are read. Raises InputError, StorageError.
    """
    found = []
    for source in sources:
        surveys: dict[Path, Survey] = {}
        for path in source.files:
            if source.kind == "parquet":
                own = [name for name, kind in source.columns if name in wanted and kind not in (PARTITION, ABSENT)]
                parquet_files.check_pages(path, own)
            elif not source.is_lines:
                surveys[path] = text_files.survey(path, source.text)
        found.append(replace(source, surveys=surveys))
    return found


def readable(sources: list[Source], scratch: Path) -> list[Source]:
    """The sources with copies of the files that the engine cannot read as they are."""
    found = []
    for source in sources:
        copies: dict[Path, Path] = {}
        for path, survey in source.surveys.items():
            if survey.needs_copy(source.kind, source.text):
                scratch.mkdir(exist_ok=True)
                copies[path] = scratch / f"{len(list(scratch.iterdir()))}.{source.kind}"
                layout = source.text if source.is_csv else replace(source.text, quote="")
                text_files.with_one_line_end(path, copies[path], layout, source.delimiter)
        found.append(replace(source, copies=copies))
    return found


def without_ragged(sources: list[Source], scratch: Path) -> list[Source]:
    """The sources with copies of the csv files that have rows of too many or too few values, without these. Raises InputError."""
    found = []
    for source in sources:
        copies, left_out = dict(source.copies), {}
        for path in source.files if source.is_csv else ():
            scratch.mkdir(exist_ok=True)
            target = scratch / f"{len(list(scratch.iterdir()))}.whole.{source.kind}"
            read, layout = source.as_read(path)
            with _named_as(path, read):
                ragged = without_ragged_rows(read, target, layout, source.delimiter, source.width)
            if ragged.rows:
                copies[path], left_out[path] = target, ragged
        found.append(replace(source, copies=copies, ragged=left_out))
    return found


def rows_of(sources: list[Source], wanted: dict[str, str]) -> str:
    """SELECT of all their rows, columns as in Source.select."""
    return " UNION ALL ".join(source.select(wanted) for source in sources)


@contextmanager
def _named_as(path: Path, copy: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(str(error).replace(str(copy), str(path))) from None


@contextmanager
def reading(sources: list[Source]) -> Iterator[None]:
    """Around what makes the engine read them: its errors are about these files, which must be the same at the end."""
    try:
        yield
    except (InputError, EngineFault) as error:
        if _OF_CSV in str(error):
            _require_whole_rows(sources, str(error))
        raise InputError(_about(sources, error)) from None
    for source in sources:
        require_same(source.stamps)


def _require_whole_rows(sources: list[Source], error: str) -> None:
    """Raises RaggedRow or InputError, with its line, for the row that an error of the engine is about."""
    for source in sources:
        for path in source.files:
            if str(source.copies.get(path, path)) in error:
                with _named_as(path, source.copies.get(path, path)):
                    require_whole(*source.as_read(path), source.delimiter, source.width)


def _about(sources: list[Source], error: InputError | EngineFault) -> str:
    """The engine's words with our names of the files, and with what the look over them makes likely."""
    message = f"cannot be read: {error.said}" if isinstance(error, EngineFault) else str(error)
    for source in sources:
        for path, copy in source.copies.items():
            message = message.replace(str(copy), str(path))
    files = [path for source in sources for path in source.files]
    if not any(str(path) in message for path in files):
        message = f"{files[0]}{f' or one of {len(files) - 1} more' if len(files) > 1 else ''}: {message}"
    surveys = {path: survey for source in sources for path, survey in source.surveys.items()}
    cut = [path for path, survey in surveys.items() if not survey.ends_in_line_end and str(path) in message]
    return f"{message}. It does not end with a line end: it may be cut off, then fetch it again" if cut else message


def _check_layout(layout: TextFormat) -> None:
    """Raises ConfigError for signs that cannot part or enclose values."""
    signs = {"delimiter": layout.delimiter or "", "quote": layout.quote}
    for key, sign in signs.items():
        if any(letter in sign for letter in "\r\n\0"):
            raise ConfigError(f"{layout.where}.{key}: {sign!r} is no sign that can stand in a line; choose another")
    if not layout.quote.isascii():
        raise ConfigError(f"{layout.where}.quote: {layout.quote!r} is not ASCII; set another, or an empty one for none")
    if layout.quote and layout.quote in (layout.delimiter or ",\t"):
        raise ConfigError(f"{layout.where}.quote: {layout.quote!r} is the delimiter, too; set one of them to another sign")


def _kind(path: Path, kind: str, where: str) -> str:
    if (last := path.suffix.lower().lstrip(".")) in UNREADABLE:
        raise InputError(
            f"{path}: {UNREADABLE[last]} compression cannot be read; unpack it, or compress it again with gzip or zstd"
        )
    if kind != "auto":
        return kind
    suffix, _ = suffixes_of(path)
    if suffix not in FORMATS:
        known = "csv, tsv, parquet, jsonl, user_items or pairs" if where == "input" else "csv, tsv, parquet or jsonl"
        raise InputError(
            f"{path}: the name does not tell the format; set {where}.format to {known}; or, if it is no data, set it aside, "
            f"or name the others by a pattern, such as {path.parent.name or '.'}/*.csv"
        )
    return FORMATS[suffix]


def _columns(path: Path, kind: str, layout: TextFormat) -> tuple[tuple[str, str], ...]:
    if layout.unnest and kind != "jsonl":
        raise ConfigError(
            f"{layout.where}.unnest is of jsonl files, and {path} is {kind}; leave it out, or set {layout.where}.format"
        )
    if kind in LINE_FORMATS:
        return lines.COLUMNS
    if kind == "parquet":
        return parquet_files.columns(path, layout.where)
    if kind == "jsonl":
        return json_lines.columns(path, layout)
    names = text_files.header(path, kind, layout) if layout.header else layout.names
    return tuple((name, "string") for name in names)


def _as_text(name: str, arrow_type: str) -> str:
    """SQL for a column's value as text. Whole floats lose their `.0`: pandas writes ids so where one is missing. NaN is missing.

    TRY_CAST, because the engine may cast before it looks whether it should: DuckDB 2.0.1 refused a file for its NaN.
    """
    if arrow_type in ("double", "float", "halffloat"):
        whole = f"{name} = floor({name}) AND abs({name}) < 9007199254740992"
        shown = f"WHEN {whole} THEN CAST(TRY_CAST({name} AS BIGINT) AS VARCHAR) ELSE CAST({name} AS VARCHAR)"
        return f"CASE WHEN isnan({name}) THEN NULL {shown} END"
    if arrow_type in ("string", "large_string", "string_view"):
        return f"nullif({name}, '')"
    if arrow_type in ("binary", "large_binary", "binary_view"):  # text not called text; a cast would write its bytes as \\xC3
        return f"nullif(decode({name}), '')"
    return f"nullif(CAST({name} AS VARCHAR), '')"
