"""The manifest of a data set: what it holds, reading and checking it. docs/data-format.md describes the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from attnrec_dist.data.example_format import EXAMPLE_PARTS, ExamplesSpec, Shard
from attnrec_dist.errors import DataError, StorageError
from attnrec_dist.settings import Section
from attnrec_dist.storage.stored import NotAFileError, as_schema, read_tree
from attnrec_dist.times.timestamps import seconds

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
SEQUENCES = "sequences"
TABLES = ("items.parquet", "users.parquet")
DAILY, GRAPH = "daily.arrow", "graph.arrow"
NUMERIC_PREFIX = "numeric."
IN_BASKETS = "training events in baskets of several items"  # of `statistics`, where the graph's kind was chosen
SECTIONS = ("columns", "input", "statistics", "filters", "baskets")
SHA256 = r"^[0-9a-f]{64}$"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


PLACES = ("place", "order", "line")  # units of a log without times


class Counts(Section):
    rows: int = Field(ge=0, description="users")
    events: int = Field(ge=0)
    train_events: int = Field(ge=0)
    validation_events: int = Field(ge=0)
    test_events: int = Field(ge=0)
    users_without_train_events: int = Field(ge=0, description="rows whose first event lies in a later part")


class Split(Section):
    kind: Literal["time", "leave_one_out", "leave_last_basket"]
    train_end: int | None = Field(description="unix second at which the validation part begins; null but for kind time")
    valid_end: int | None = Field(description="unix second at which the test part begins; null but for kind time")
    last: int = Field(default=1, description="how many of a user's last events (baskets) are test, and as many validation")

    @property
    def is_by_user(self) -> bool:
        """Whether each user has cuts of their own: leave_one_out and leave_last_basket."""
        return self.kind != "time"


class Manifest(Section):
    """What manifest.json holds. Written last: a directory without it is no data set."""

    format_version: int
    fingerprint: str = Field(
        pattern=SHA256, description="sha256 of the logical columns and of what shaped them; no file bytes, no paths"
    )
    counts: Counts
    num_items: int = Field(ge=0, description="V, the catalogue: items 0..V-1, most frequent in the training part first")
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
    checksum: str | None = Field(default=None, description="sha256 of all the rest, stored.checksum_of; null: an older version's")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        wrong = next((what for what, holds in _what_must_hold(self) if not holds), None)
        if wrong is not None:
            raise ValueError(f"it contradicts itself: {wrong}")
        return self

    @property
    def basket_gap(self) -> int | None:
        """Seconds between baskets, where the log's events were joined by them (baskets.gap)."""
        gap = self.config.get("baskets", {}).get("gap")
        return None if gap is None else seconds(gap)

    @property
    def times_are_places(self) -> bool:
        """Whether the log had no times, so that the place of an event, or of its basket, in its user's history stands for one."""
        return self.time_unit in PLACES

    @property
    def time_unit(self) -> str:
        """columns.timestamp.unit of the log; "line" where lines in their order were all it had."""
        if self.config.get("input", {}).get("format") in ("user_items", "pairs"):
            return "line"
        columns = self.config.get("columns", {}).get("timestamp")
        return str(columns.get("unit", "auto")) if isinstance(columns, dict) else "auto"

    @property
    def place_word(self) -> str:
        """What has a place in a history, where places stand for times."""
        return "order" if self.time_unit == "order" else "event"

    def own_number(self, time: int) -> str | None:
        """What a log without dates calls a time: order 4, event 4, day 215, or day 215, 10:15; None where it has dates."""
        if self.times_are_places:
            from_zero = self.start_time == 0 and self.time_unit != "order"
            return f"{self.place_word} {time + from_zero:,}"
        if self.time_unit != "day":
            return None
        day, second = divmod(time, 86_400)
        return f"day {day:,}" + (f", {second // 3600:02}:{second // 60 % 60:02}" if second else "")


def _what_must_hold(manifest: Manifest) -> Iterator[tuple[str, bool]]:
    """(what is wrong where it does not, whether it holds): what can be told without a look at the files."""
    counts, split, spec = manifest.counts, manifest.split, manifest.examples
    rows = {table.name: table.rows for table in manifest.tables}
    yield "a part of the configuration is no section", all(isinstance(manifest.config.get(name, {}), dict) for name in SECTIONS)
    yield "rows of the shards do not add up", sum(shard.rows for shard in manifest.shards) == counts.rows
    by_part = counts.train_events + counts.validation_events + counts.test_events
    yield "events of the parts do not add up", by_part == counts.events
    yield "more items in the catalogue than in all", manifest.num_items <= manifest.num_all_items
    wanted = {TABLES[0]: manifest.num_all_items, TABLES[1]: counts.rows, DAILY: manifest.num_items}
    yield "tables are missing or of other lengths", all(rows.get(name) == length for name, length in wanted.items())
    yield "a table is listed that there is none of", rows.keys() <= {*wanted, GRAPH} and len(rows) == len(manifest.tables)
    graph = manifest.config.get("statistics", {}).get("graph", {})
    yield "nothing is told of the graph's kind", GRAPH not in rows or {"kind", "within"} <= dict(graph).keys()
    yield "names are given twice", all(len(set(names)) == len(names) for names in (manifest.event_types, manifest.numeric))
    yield "more event types than one byte tells apart", len(manifest.event_types) <= 128
    gap = manifest.config.get("baskets", {}).get("gap")
    yield "the gap between baskets", gap is None or re.fullmatch("[0-9]{1,10}[smhdw]", str(gap)) is not None
    cuts = (split.train_end, split.valid_end)
    yield "the split's cuts", cuts == (None, None) if split.is_by_user else None not in cuts and cuts[0] <= cuts[1]  # type: ignore[operator]
    yield "start_time is after end_time", manifest.start_time <= manifest.end_time
    if spec is not None:
        of_parts = {part: sum(shard.rows for shard in shards) for part, shards in spec.shards.items()}
        yield "examples do not add up", of_parts == spec.counts and of_parts.keys() == set(EXAMPLE_PARTS)
        told = [spec.known.get(task, {}).keys() & spec.positives.get(task, {}).keys() for task in spec.tasks]
        yield "a task's examples are not counted", bool(spec.tasks) and all(parts == set(EXAMPLE_PARTS) for parts in told)


def schema(numeric: list[str]) -> pa.Schema:
    """Columns of a shard."""
    columns = [("user", pa.int64()), ("train_end", pa.int32()), ("valid_end", pa.int32())]
    columns += [("items", pa.list_(pa.int32())), ("times", pa.list_(pa.int64())), ("events", pa.list_(pa.int8()))]
    columns += [(NUMERIC_PREFIX + name, pa.list_(pa.float32())) for name in numeric]
    return pa.schema(columns)


def read_manifest(path: Path) -> Manifest:
    """Raises DataError when there is none, or it is of another format, or its file names would lead elsewhere."""
    file = path / MANIFEST
    try:
        tree = read_tree(file)
    except FileNotFoundError:
        raise DataError(f"{path}: {_what_is_there(path)}") from None
    except NotADirectoryError:
        raise DataError(f"{path}: a data set is a directory; name the one that `attnrec prepare` wrote") from None
    except NotAFileError as error:
        raise DataError(f"{file}: {error.strerror}; prepare the data set again") from None
    except OSError as error:
        raise StorageError.of(error, f"reading {file}") from None
    except ValueError as error:
        raise DataError(f"{file}: damaged: {error}; copy it again, or prepare the data set again") from None
    if tree.get("format_version") != FORMAT_VERSION:
        version = tree.get("format_version")
        raise DataError(f"{file}: format version {version!r}, this program reads {FORMAT_VERSION}; prepare the data set again")
    try:
        manifest = as_schema(Manifest, tree)
    except ValueError as error:
        raise DataError(f"{file}: damaged: {error}; prepare the data set again") from None
    spec = manifest.examples
    for record in [*manifest.shards, *manifest.tables, *(spec.files if spec else ())]:
        if record.blocks and manifest.checksum is None:
            raise DataError(f"{file}: damaged: its own checksum was taken out; prepare the data set again")
        if not _NAME.fullmatch(record.name):
            raise DataError(f"{file}: the file name {record.name!r} is refused: letters, digits, . _ - only, and no . in front")
    return manifest


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "no such data set; make it with `attnrec prepare CONFIG.yaml --output DIR`, or name its directory"
    return (
        f"not a data set, or an unfinished copy of one: {MANIFEST} is missing; make it with `attnrec prepare`, or copy it again"
    )
