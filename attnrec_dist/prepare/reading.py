"""Input files -> one SELECT that gives every row of the log as text, whatever the format, compression and column order."""

from __future__ import annotations

import csv
import difflib
import glob
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attnrec_dist.errors import ConfigError, InputError, StorageError
from attnrec_dist.prepare import lines
from attnrec_dist.prepare.sections import LINE_FORMATS
from attnrec_dist.prepare.sql import identifier, text

FORMATS = {"csv": "csv", "tsv": "tsv", "tab": "tsv", "parquet": "parquet", "pq": "parquet"}
COMPRESSIONS = ("gz", "zst")  # what the engine reads; Parquet brings its own
UNREADABLE = {"bz2": "bzip2", "xz": "xz", "zip": "zip", "lz4": "lz4"}


@dataclass(frozen=True)
class TextFormat:
    """How csv and tsv files are written. `names` stands in for a header that is not there."""

    delimiter: str | None = None
    quote: str = '"'
    header: bool = True
    names: tuple[str, ...] = ()
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Source:
    """Files with the same columns in the same order, so that one reader serves them all."""

    kind: str  # csv, tsv, parquet, user_items, pairs
    files: tuple[Path, ...]
    columns: tuple[tuple[str, str], ...]  # (name, type as Arrow writes it; "string" in text files)
    text: TextFormat

    def select(self, wanted: dict[str, str], files: tuple[Path, ...] | None = None) -> str:
        """SELECT of {name in the result: column of the file}, each as text; an empty text is NULL.

        Of user_items and pairs it reads the table that prepare/lines.py fills, whole.
        """
        listed = ", ".join(text(_literal_glob(path)) for path in files or self.files)
        if self.is_lines:
            reader = f"({lines.events(self.kind)}) AS e"
        elif self.kind == "parquet":
            reader = f"read_parquet([{listed}])"
        else:
            columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name, _ in self.columns)
            quote, encoding = text(self.text.quote), text(self.text.encoding)
            reader = (
                f"read_csv([{listed}], columns = {{{columns}}}, auto_detect = false, header = {str(self.text.header).lower()}, "
                f"delim = {text(self.delimiter)}, quote = {quote}, escape = {quote}, nullstr = '', encoding = {encoding})"
            )
        types = dict(self.columns)
        shown = ", ".join(f"{_as_text(column, types[column])} AS {identifier(name)}" for name, column in wanted.items())
        return f"SELECT {shown} FROM {reader}"

    @property
    def is_lines(self) -> bool:
        return self.kind in LINE_FORMATS

    @property
    def delimiter(self) -> str:
        return self.text.delimiter or ("\t" if self.kind == "tsv" else ",")


def find_files(patterns: list[str], base: Path, where: str, in_order: bool = False) -> list[Path]:
    """The files that the patterns match, sorted, each once; with `in_order` as they are listed, and no pattern may be among them.

    Raises InputError for one that matches none.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(os.path.normpath(base / Path(pattern).expanduser()))
        if path.is_dir():
            raise InputError(f"{where}: {path} is a directory; name its files, for example {pattern.rstrip('/')}/*.parquet")
        if in_order and not path.exists() and glob.has_magic(pattern):
            raise InputError(
                f"{where}: the order of the lines is the time, and the pattern {pattern} does not tell the order of its files; "
                "list them one by one, the earliest first"
            )
        matches = [path] if path.exists() else [Path(match) for match in glob.glob(str(path), recursive=True)]
        matches = [match.resolve() for match in matches if not match.is_dir()]
        if not matches:
            what = "no file matches" if glob.has_magic(pattern) else "no such file:"
            raise InputError(f"{where}: {what} {path}{_similar_file(path)}; set it, or type --{where} PATH")
        found.update(dict.fromkeys(matches))
    return list(found) if in_order else sorted(found)


def inspect(files: list[Path], kind: str, layout: TextFormat) -> list[Source]:
    """Reads every file's header, no more. Files with equal columns come together; files without a byte are an error."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Path]] = {}
    for path in files:
        actual = _kind(path, kind)
        columns = _columns(path, actual, layout)
        groups.setdefault((actual, columns), []).append(path)
    return [Source(actual, tuple(paths), columns, layout) for (actual, columns), paths in groups.items()]


def require_columns(sources: list[Source], wanted: dict[str, str]) -> None:
    """Every source must have the columns of {config key: column}. Raises InputError with those that are there."""
    for source in sources:
        known = [name for name, _ in source.columns]
        for key, column in wanted.items():
            if column not in known:
                close = difflib.get_close_matches(column.lower(), [name.lower() for name in known], 1, 0.6)
                similar = [name for name in known if name.lower() in close]
                hint = _other_delimiter(source, key.split(".")[0]) or (f"did you mean {similar[0]}? " if similar else "")
                raise InputError(
                    f"{source.files[0]}: no column {column!r}, which {key} names; {hint}the columns there: {', '.join(known)}"
                )


def _other_delimiter(source: Source, section: str) -> str:
    """What to set where a header of one column holds what other files separate columns with."""
    if source.kind == "parquet" or len(source.columns) > 1:
        return ""
    written = {";": "';'", "|": "'|'", "\t": '"\\t"', ",": "','"}
    found = [delimiter for delimiter in written if delimiter in source.columns[0][0]]
    if not found:
        return ""
    return f"set {'items' if section == 'items' else 'input'}.delimiter: {written[found[0]]}; "


def _kind(path: Path, kind: str) -> str:
    suffixes = [suffix.lower().lstrip(".") for suffix in path.suffixes]
    if suffixes and suffixes[-1] in UNREADABLE:
        raise InputError(
            f"{path}: {UNREADABLE[suffixes[-1]]} compression cannot be read; unpack it, or compress it again with gzip or zstd"
        )
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    if kind != "auto":
        return kind
    if not suffixes or suffixes[-1] not in FORMATS:
        raise InputError(f"{path}: the name does not tell the format; set input.format to csv, tsv, parquet, user_items or pairs")
    return FORMATS[suffixes[-1]]


def _columns(path: Path, kind: str, layout: TextFormat) -> tuple[tuple[str, str], ...]:
    if kind in LINE_FORMATS:
        _first_line(path, layout.encoding)
        return lines.COLUMNS
    return _parquet_columns(path) if kind == "parquet" else _text_columns(path, kind, layout)


def _parquet_columns(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError.of(error, f"reading {path}") from None
        detail = "it is empty" if path.stat().st_size == 0 else str(error).partition("\n")[0]
        raise InputError(f"{path}: not a Parquet file ({detail}); set input.format if it is csv or tsv") from None
    return tuple((field.name, str(field.type)) for field in schema)


def _text_columns(path: Path, kind: str, layout: TextFormat) -> tuple[tuple[str, str], ...]:
    line = _first_line(path, layout.encoding)
    if not layout.header:
        return tuple((name, "string") for name in layout.names)
    delimiter = layout.delimiter or ("\t" if kind == "tsv" else ",")
    if len(delimiter) > 1 or not layout.quote:
        names = line.split(delimiter)
    else:
        names = next(csv.reader([line], delimiter=delimiter, quotechar=layout.quote), [])
    if len(set(names)) < len(names) or "" in names:
        doubtful = sorted({name for name in names if names.count(name) > 1 or not name})
        raise InputError(
            f"{path}: the first line does not name each column once ({', '.join(map(repr, doubtful))}); "
            "mend it, or set input.header: false and input.names"
        )
    return tuple((name, "string") for name in names)


def _first_line(path: Path, encoding: str) -> str:
    with lines.unpacked(path) as stream:
        data = b""
        while b"\n" not in data and (more := stream.read(1 << 16)):
            data += more
    if not data:
        raise InputError(f"{path}: the file is empty; leave it out, or write its header line")
    try:
        return data.partition(b"\n")[0].rstrip(b"\r").decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: the first line is not UTF-8 text; is input.format right? Convert other encodings with iconv"
        ) from None


def _as_text(column: str, arrow_type: str) -> str:
    """SQL for a column's value as text. Whole floats lose their `.0`: pandas writes ids so where one is missing. NaN is missing.

    TRY_CAST, because the engine may cast before it looks whether it should: DuckDB 2.0.1 refused a file for its NaN.
    """
    name = identifier(column)
    if arrow_type in ("double", "float", "halffloat"):
        whole = f"{name} = floor({name}) AND abs({name}) < 9007199254740992"
        shown = f"WHEN {whole} THEN CAST(TRY_CAST({name} AS BIGINT) AS VARCHAR) ELSE CAST({name} AS VARCHAR)"
        return f"CASE WHEN isnan({name}) THEN NULL {shown} END"
    if arrow_type in ("string", "large_string", "string_view"):
        return f"nullif({name}, '')"
    if arrow_type.startswith(("list", "large_list", "struct", "map")):
        raise ConfigError(f"column {column!r} holds {arrow_type}; only plain values can be read")
    return f"nullif(CAST({name} AS VARCHAR), '')"


def _literal_glob(path: Path) -> str:
    return glob.escape(str(path))


def _similar_file(path: Path) -> str:
    try:
        close = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1, 0.6)
    except OSError:
        return f"; the directory {path.parent} does not exist" if not path.parent.exists() else ""
    return f"; did you mean {close[0]}?" if close else ""
