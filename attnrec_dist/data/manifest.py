"""The manifest of a data set: what it holds, reading and checking it. docs/data-format.md describes the files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from attnrec_dist.data.example_format import ExamplesSpec, Shard
from attnrec_dist.errors import ConfigError, DataError, StorageError
from attnrec_dist.settings import Section, build

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
SEQUENCES = "sequences"
TABLES = ("items.parquet", "users.parquet")
DAILY, GRAPH = "daily.arrow", "graph.arrow"
NUMERIC_PREFIX = "numeric."
IN_BASKETS = "training events in baskets of several items"  # of `statistics`, where the graph's kind was chosen
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class Counts(Section):
    rows: int = Field(description="users")
    events: int
    train_events: int
    validation_events: int
    test_events: int
    users_without_train_events: int = Field(description="rows whose first event lies in a later part")


class Split(Section):
    kind: Literal["time", "leave_one_out"]
    train_end: int | None = Field(description="unix second at which the validation part begins; null for leave_one_out")
    valid_end: int | None = Field(description="unix second at which the test part begins; null for leave_one_out")
    last: int = Field(default=1, description="leave_one_out: how many of a user's last events are test, and as many validation")


class Manifest(Section):
    """What manifest.json holds. Written last: a directory without it is no data set."""

    format_version: int
    fingerprint: str = Field(description="sha256 of the logical columns and of what shaped them; no file bytes, no paths")
    counts: Counts
    num_items: int = Field(description="V, the catalogue: items 0..V-1, most frequent in the training part first")
    num_all_items: int = Field(description="V and the cold items, V.., which no training event shows")
    event_types: list[str] = Field(description="names of the event indices; empty if the log has no event column")
    numeric: list[str] = Field(description="numeric columns, float32")
    split: Split
    start_time: int = Field(description="unix second of the first event")
    end_time: int = Field(description="unix second of the last event")
    shards: list[Shard] = Field(description="files under sequences/, in row order")
    tables: list[Shard] = Field(description="items.parquet, users.parquet, daily.arrow and, where there is a graph, graph.arrow")
    config: dict[str, Any] = Field(description="the preparation's configuration, without paths")
    cleaning: dict[str, int] = Field(description="rows read, rows left out by reason, rows kept")
    statistics: dict[str, int] = Field(description="how much the daily counts and the item graph hold and left out")
    examples: ExamplesSpec | None = Field(default=None, description="the labelled examples, where the configuration has a label")

    @property
    def times_are_places(self) -> bool:
        """Whether the log had no times, so that an event's place in its user's history (0, 1, 2, ...) stands for one."""
        unit = self.config.get("columns", {}).get("timestamp", {}).get("unit")
        return unit == "place" or self.config.get("input", {}).get("format") in ("user_items", "pairs")


def schema(numeric: list[str]) -> pa.Schema:
    """Columns of a shard."""
    columns = [("user", pa.int64()), ("train_end", pa.int32()), ("valid_end", pa.int32())]
    columns += [("items", pa.list_(pa.int32())), ("times", pa.list_(pa.int64())), ("events", pa.list_(pa.int8()))]
    columns += [(NUMERIC_PREFIX + name, pa.list_(pa.float32())) for name in numeric]
    return pa.schema(columns)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Raises DataError when there is none, or it is of another format, or its file names would lead elsewhere."""
    file = path / MANIFEST
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: {_what_is_there(path)}") from None
    except NotADirectoryError:
        raise DataError(f"{path}: a data set is a directory; name the one that `attnrec prepare` wrote") from None
    except OSError as error:
        raise StorageError.of(error, f"reading {file}") from None
    except ValueError as error:
        raise DataError(f"{file}: damaged, it is not JSON ({error}); prepare the data set again") from None
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{file}: format version {version!r}, this program reads {FORMAT_VERSION}; prepare the data set again")
    try:
        manifest = build(Manifest, tree, str(file))
    except ConfigError as error:
        raise DataError(f"{error}\nThe manifest is damaged; prepare the data set again") from None
    spec = manifest.examples
    of_examples = [spec.vocabulary, *(shard for shards in spec.shards.values() for shard in shards)] if spec else []
    for record in manifest.shards + manifest.tables + of_examples:
        if not _NAME.fullmatch(record.name):
            raise DataError(f"{file}: the file name {record.name!r} is refused: letters, digits, . _ - only, and no . in front")
    return manifest


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "no such data set; make it with `attnrec prepare CONFIG.yaml --output DIR`, or name its directory"
    return (
        f"not a data set, or an unfinished copy of one: {MANIFEST} is missing; make it with `attnrec prepare`, or copy it again"
    )
