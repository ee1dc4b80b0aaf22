"""DuckDB, the engine that runs the statements: a database on disk, a memory limit, a spill directory, errors in our words.

Everything that is DuckDB's own sits here and in reading/columns.py, so that another engine needs another adapter and no
other statement.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from attnrec_dist.errors import AttnrecError, ConfigError, FaultError, InputError, StorageError, refused_resource
from attnrec_dist.prepare.config.sections import EngineSection
from attnrec_dist.prepare.sql import text

# rows of a partition that a thread gathers before it writes them; DuckDB's own 524,288 hold 200 MB more for nine shards
_FLUSH_ROWS = 32_768
_OF_VALUES = (
    duckdb.InvalidInputException,
    duckdb.IOException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.SerializationException,
)
_OF_VALUES_BY_NAME = ("Invalid Input Error", "IO Error", "Conversion Error", "Out of Range Error", "Serialization Error")
_DISK = ("No space left", "max_temp_directory_size", "Could not write", "Disk quota")


class EngineFault(FaultError):
    """The engine failed in a way that is none of the others; `said` are its own words, in one line."""

    def __init__(self, said: str):
        super().__init__(f"the engine of prepare failed: {said}; please report this with your duckdb version")
        self.said = said


class DuckEngine:
    """Use as a context manager: the database closes on every way out."""

    def __init__(self, config: EngineSection, scratch: Path):
        self.limits = config
        self.scratch = scratch
        try:
            self.connection = duckdb.connect(
                str(scratch / "work.duckdb"),
                config={
                    "memory_limit": config.memory_limit,
                    "threads": config.threads or os.cpu_count() or 1,
                    "temp_directory": str(scratch / "spill"),
                    "preserve_insertion_order": False,
                    "partitioned_write_flush_threshold": _FLUSH_ROWS,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )
        except duckdb.ParserException as error:
            limit = f"engine.memory_limit {config.memory_limit}"
            raise ConfigError(f"{limit}: {error}; write what the machine has, for example 2GB") from None
        except duckdb.Error as error:
            raise self._translated(error) from None
        self.run("SET TimeZone = 'UTC'")
        self.run("SET enable_progress_bar = false")

    def __enter__(self) -> DuckEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def run(self, statement: str) -> duckdb.DuckDBPyConnection:
        """Executes one statement; the engine's errors become ours."""
        try:
            return self.connection.execute(statement)
        except duckdb.Error as error:
            raise self._translated(error) from None

    def table(self, name: str, query: str) -> None:
        """Keeps the result of a query on disk under a name; the query may read the table it replaces."""
        self.run(f"CREATE TABLE next_{name} AS {query}")
        self.run(f"DROP TABLE IF EXISTS {name}")
        self.run(f"ALTER TABLE next_{name} RENAME TO {name}")
        self._give_back()

    def load(self, name: str, shape: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Keeps batches on disk under a name, one after another, so that an error of theirs comes through as it is."""
        self.connection.register("incoming", shape.empty_table())
        self.run(f"CREATE TABLE {name} AS SELECT * FROM incoming")
        for batch in batches:
            self.connection.register("incoming", pa.Table.from_batches([batch]))
            self.run(f"INSERT INTO {name} SELECT * FROM incoming")
        self.connection.unregister("incoming")

    def view(self, name: str, query: str) -> None:
        self.run(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")

    def drop(self, *names: str) -> None:
        for name in names:
            self.run(f"DROP TABLE {name}")
        self._give_back()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return self.run(query).fetchall()
        except duckdb.Error as error:
            raise self._translated(error) from None

    def row(self, query: str) -> tuple[Any, ...]:
        return self.rows(query)[0]

    def ordered_batches(self, query: str, size: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The result of a query with ORDER BY, batch by batch.

        Through `sql`, not `execute`: DuckDB 2.0 forgets the order in `execute(...).to_arrow_reader()` when it need not keep
        the order of insertion and has two threads or more (measured; tests/unit/test_prepare_engine.py watches it).
        """
        try:
            yield from self.connection.sql(query).to_arrow_reader(size)
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # after the first batch they come through Arrow
            raise self._translated(error) from None

    def write_partitions(self, query: str, directory: Path, column: str) -> None:
        """Rows as Parquet under directory/column=value/."""
        self.run(f"COPY ({query}) TO {text(str(directory))} (FORMAT parquet, PARTITION_BY ({column}))")

    def _give_back(self) -> None:
        """Returns to the system what is free. DuckDB's allocator keeps it, 100 to 300 MB beyond the limit (measured), and lets go
        of it when the limit is set, be it to what it is."""
        self.run(f"SET memory_limit = {text(self.limits.memory_limit)}")
        pa.default_memory_pool().release_unused()

    def _translated(self, error: Exception) -> AttnrecError:
        """Whatever the engine says, in one line: a full disk, too little memory, a file that it cannot read, else a fault."""
        message = str(error)
        if any(sign in message for sign in _DISK):
            return StorageError(
                f"preparing in {self.scratch}: {_one_line(message)}; free some space and run the same command again"
            )
        if refused := refused_resource(error):  # by the system, or a limit of the shell, and not by DuckDB's own
            return FaultError(f"{refused}; or set engine.memory_limit {self.limits.memory_limit} and engine.threads lower")
        if isinstance(error, duckdb.OutOfMemoryException) or message.startswith("Out of Memory Error"):
            limit = f"engine.memory_limit {self.limits.memory_limit}"
            return ConfigError(f"{limit} is too small for this log ({_one_line(message)}); raise it")
        if isinstance(error, _OF_VALUES) or message.startswith(_OF_VALUES_BY_NAME):
            file = re.search("^ *file = (.*)$", message, re.MULTILINE)
            where = f"{file[1]}: " if file else ""
            return InputError(f"{where}cannot be read: {_one_line(message)}. Mend the file, or set its format, delimiter, quote")
        return EngineFault(_one_line(message))


def _one_line(message: str) -> str:
    """The first lines, without the advice that is about DuckDB's own options, and its numbers of lines, which count rows."""
    said = [line.strip() for line in re.sub(r"(CSV Error) on Line: \d+", r"\1", message).splitlines()[:4]]
    shown = [line for line in said if line and not line.startswith(("Possible", "Use ", "LINE ", "*", "^", "file = "))]
    return "; ".join(line if len(line) <= 120 else line[:117] + "..." for line in shown) or "it does not say why"
