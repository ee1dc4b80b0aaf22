"""Files that list users or items to keep or to leave out: opened and checked first, loaded as tables of `id`.

The tables are named after their keys: keep_users, drop_users, keep_items, drop_items.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.config.choice import ID_LISTS, IdsFile
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.findings.find import shown
from attnrec_dist.prepare.reading import columns, lines
from attnrec_dist.prepare.reading.columns import Source
from attnrec_dist.prepare.reading.files import find_files, suffixes_of
from attnrec_dist.prepare.reading.text_files import TextFormat
from attnrec_dist.prepare.reading.wanted import require_columns


def open_lists(config: PrepareConfig, base_dir: Path) -> dict[str, list[Source]]:
    """{key: its file} of the lists that filters names. Raises InputError, ConfigError."""
    asked = {key: getattr(config.filters, key) for key in ID_LISTS}
    return {key: _opened(ids, base_dir, f"filters.{key}") for key, ids in asked.items() if ids is not None}


def _opened(ids: IdsFile, base_dir: Path, where: str) -> list[Source]:
    files = find_files([ids.file], base_dir, where)
    path = next(iter(files))
    is_table = suffixes_of(path)[0] in columns.FORMATS
    if is_table and ids.column is None:
        raise ConfigError(f"{where}: {path} is a table; name the column of the ids: {{file: {ids.file}, column: ...}}")
    if not is_table and ids.column is not None:
        raise ConfigError(f"{where}.column: {path} is not named as a csv, tsv or parquet file, so an id a line; leave it out")
    sources = columns.inspect(files, "auto" if is_table else "pairs", TextFormat(delimiter=ids.delimiter, where=where))
    if ids.column is None:
        return sources
    require_columns(sources, {f"{where}.column": ids.column})
    return columns.verified(sources, [ids.column])


def load(engine: DuckEngine, config: PrepareConfig, lists: dict[str, list[Source]], copies: Path) -> None:
    """The tables. Raises InputError for a list without an id."""
    for key, found in lists.items():
        sources = columns.readable(found, copies / key)
        with columns.reading(sources):
            if sources[0].is_lines:
                engine.load("id_lines", lines.SCHEMA, lines.numbered(sources[0].files, sources[0].text))
                ids = "SELECT ltrim(text, '\ufeff') AS id FROM id_lines"  # Windows puts a byte order mark in front
            else:
                ids = columns.rows_of(sources, {"id": getattr(config.filters, key).column})
            engine.table(key, f"SELECT DISTINCT id FROM ({ids}) AS a WHERE id IS NOT NULL AND id <> ''")
        if sources[0].is_lines:
            engine.drop("id_lines")
        if not engine.row(f"SELECT count(*) FROM {key}")[0]:
            raise InputError(f"filters.{key}: {sources[0].files[0]} holds no id; leave the key out, or write an id a line")


def tell_unknown(engine: DuckEngine, lists: dict[str, list[Source]], progress: Callable[[str], None]) -> None:
    """Says how many ids of each list are not in the log. Reads `clean`."""
    for key in lists:
        column = "user_id" if key in ("keep_users", "drop_users") else "item_id"
        unknown = f"FROM {key} WHERE id NOT IN (SELECT {column} FROM clean WHERE {column} IS NOT NULL)"
        count, example, total = engine.row(f"SELECT count(*), min(id), (SELECT count(*) FROM {key}) {unknown}")
        if count:
            progress(f"warning: filters.{key}: {count:,} of {total:,} ids are not in the log, such as {shown(example)}")
