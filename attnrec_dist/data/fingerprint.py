"""The fingerprint of a data set: sha256 of its logical columns and of what shaped them; in plain Python in docs/data-format.md.

`prepare` makes it as it writes, `fingerprint_of` makes it again from what is stored.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import EXAMPLE_PARTS, EXAMPLES, VOCABULARY
from attnrec_dist.data.manifest import DAILY, FORMAT_VERSION, GRAPH, NUMERIC_PREFIX, TABLES, Manifest
from attnrec_dist.errors import DataError

PIECE = 1 << 18  # examples at a time


class Fingerprint:
    """sha256 of each logical column over all rows in order, then of these and the settings: no shard, no file leaves a trace.

    Every value is hashed as little-endian bytes, a text as its length (uint32) and its UTF-8 bytes.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}

    def add_rows(self, rows: Any) -> None:
        """The next rows, a data.dataset.Rows."""
        self.add("length", np.diff(rows.offsets).astype("<i8"))
        self.add("train_end", rows.train_end.astype("<i4"))
        self.add("valid_end", rows.valid_end.astype("<i4"))
        self.add("items", rows.items.astype("<i4"))
        self.add("times", rows.times.astype("<i8"))
        self.add("events", rows.events.astype("i1"))
        for name, values in rows.numeric.items():
            self.add(NUMERIC_PREFIX + name, values.astype("<f4"))

    def add(self, column: str, values: np.ndarray) -> None:
        self.columns.setdefault(column, hashlib.sha256()).update(np.ascontiguousarray(values).view(np.uint8))

    def add_texts(self, column: str, texts: list[str]) -> None:
        coded = [each.encode() for each in texts]
        joined = b"".join(len(each).to_bytes(4, "little") + each for each in coded)
        self.columns.setdefault(column, hashlib.sha256()).update(joined)

    def hexdigest(self, settings: dict[str, Any]) -> str:
        columns = {name: hasher.hexdigest() for name, hasher in self.columns.items()}
        canonical = json.dumps(
            {"columns": columns, "settings": settings}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()


def fingerprint_of(data: DataSet) -> str:
    """What the manifest's fingerprint has to be, from a scan of all that is stored. Raises DataError."""
    found = Fingerprint()
    for rows in data.scan():
        found.add_rows(rows)
    return complete(found, data)


def confirm(data: DataSet, actual: str | None = None) -> None:
    """Raises DataError where the manifest's fingerprint is not the actual one, by default computed anew. For a data set whose
    manifest is not the one that a model was trained with, though it names the same fingerprint: prepared again, or edited."""
    actual = actual or fingerprint_of(data)
    if actual != data.manifest.fingerprint:
        raise DataError(
            f"{data.path}: its values and settings have the fingerprint {actual}, its manifest says {data.manifest.fingerprint}: "
            "one of them was changed; prepare the data set again"
        )


def complete(found: Fingerprint, data: DataSet) -> str:
    """The fingerprint, once all rows of the sequences are in it: adds everything else. Raises DataError."""
    items, users = data.items(), data.users()
    for name, table in zip(TABLES, (items, users)):
        _add_texts(found, f"{name}/id", table["id"])
    found.add(f"{TABLES[0]}/count", items["count"].to_numpy().astype("<i8"))
    daily, graph = data.daily(), data.graph()
    _add_lists(found, DAILY, daily.offsets, {"days": daily.days, "counts": daily.counts})
    if graph is not None:
        _add_lists(found, GRAPH, graph.offsets, {"neighbours": graph.neighbours, "weights": graph.weights, "pairs": graph.pairs})
        found.add(f"{GRAPH}/baskets", graph.baskets)
    if data.manifest.examples is not None:
        _add_examples(found, data)
    return found.hexdigest(_settings(data.manifest))


def _add_texts(found: Fingerprint, column: str, texts: pa.ChunkedArray) -> None:
    for chunk in texts.chunks or [pa.array([], pa.string())]:
        found.add_texts(column, chunk.to_pylist())


def _add_lists(found: Fingerprint, file: str, offsets: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    found.add(f"{file}/length", np.diff(offsets).astype("<i8"))
    for name, values in columns.items():
        found.add(f"{file}/{name}", values)


def _add_examples(found: Fingerprint, data: DataSet) -> None:
    from attnrec_dist.data.examples import ExampleSet

    for part in EXAMPLE_PARTS:
        examples = ExampleSet.open(data, part)
        for name in examples.columns:
            for first in range(0, max(len(examples), 1), PIECE):
                values = examples.column(name, first, first + PIECE)
                found.add(f"{EXAMPLES}/{part}/{name}", values.astype(values.dtype.newbyteorder("<")))
    words = data.vocabulary()
    fields = words["field"].to_numpy(zero_copy_only=False)
    for field in examples.spec.fields:
        if field.kind == "categorical":
            found.add_texts(f"{VOCABULARY}/{field.name}", words["value"].filter(pa.array(fields == field.name)).to_pylist())


def _settings(manifest: Manifest) -> dict[str, Any]:
    """What goes into the fingerprint beside the columns, out of the manifest: what prepare puts in, prepare/writing.py."""
    sections = ("filters", "statistics", *(("label", "features") if manifest.examples is not None else ()))
    return {
        "format_version": FORMAT_VERSION,
        "num_items": manifest.num_items,
        "event_types": manifest.event_types,
        "numeric": manifest.numeric,
        "split": manifest.split.model_dump(exclude_defaults=True),  # `last` came later
        **{section: manifest.config.get(section) for section in sections},
    }
