"""Labelled examples, in order -> Arrow shards, their statistics and fingerprint on the way. numpy and pyarrow only.

Memory: one record batch. Means are summed batch by batch in the order of the examples, so that they do not depend on threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attnrec_dist.data.example_format import (
    EXAMPLE_PARTS,
    EXAMPLES,
    FIELD_PREFIX,
    FIRST_VALUE,
    LABEL_PREFIX,
    MISSING,
    SILENT,
    UNSEEN,
    VOCABULARY,
    ExamplePart,
    ExamplesSpec,
    FieldSpec,
    Shard,
    example_schema,
)
from attnrec_dist.errors import FaultError
from attnrec_dist.prepare.shard_writer import Fingerprint, record_of

ROWS_PER_BATCH = 1 << 18  # of the Arrow file: a reader's gather costs a call a batch
BATCHES_PER_SHARD = 8


@dataclass
class Moments:
    """Count, mean and sum of squared differences, batch by batch (Chan et al. 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """float64 [n], without NaN."""
        if not len(values):
            return
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total = self.count + len(values)
        self.squares += squares + (mean - self.mean) ** 2 * self.count * len(values) / total
        self.mean += (mean - self.mean) * len(values) / total
        self.count = total

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count) if self.count else 0.0


class ExampleFiles:
    """Writes the parts under `directory`/examples and the vocabulary beside it; `finish` tells what the manifest keeps.

    `fields` come with their quantiles; mean, std and the counts are found here. The parts are written train first.
    """

    def __init__(self, directory: Path, tasks: list[str], fields: list[FieldSpec], fingerprint: Fingerprint):
        self.directory = directory
        self.tasks, self.fields = tasks, fields
        self.fingerprint = fingerprint
        self.shape = example_schema(tasks, fields)
        self.counts = dict.fromkeys(EXAMPLE_PARTS, 0)
        self.known = {task: dict.fromkeys(EXAMPLE_PARTS, 0) for task in tasks}
        self.positives = {task: dict.fromkeys(EXAMPLE_PARTS, 0) for task in tasks}
        self.missing = {field.name: dict.fromkeys(EXAMPLE_PARTS, 0) for field in fields}
        self.unseen = {field.name: dict.fromkeys(EXAMPLE_PARTS, 0) for field in fields}
        self.moments = {field.name: Moments() for field in fields}
        self.shards: dict[str, list[Shard]] = {part: [] for part in EXAMPLE_PARTS}
        (directory / EXAMPLES).mkdir(exist_ok=True)

    def write_part(self, part: ExamplePart, batches: Iterable[pa.RecordBatch]) -> None:
        """Batches with the schema's columns, ordered by user, time, candidate over all of them."""
        for name in self.shape.names:
            self.fingerprint.add(f"{EXAMPLES}/{part}/{name}", np.zeros(0, np.int8))  # also of a part without examples
        ready = rebatched((batch.select(self.shape.names).cast(self.shape) for batch in batches), self.shape)
        checked = (self._counted(part, batch) for batch in in_order(ready))
        while (first := next(checked, None)) is not None:
            path = self.directory / EXAMPLES / f"{part}-{len(self.shards[part]):05}.arrow"
            rows = 0
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, self.shape) as writer:
                for batch in itertools.chain([first], itertools.islice(checked, BATCHES_PER_SHARD - 1)):
                    writer.write_batch(batch)
                    rows += len(batch)
            self.shards[part].append(record_of(path, rows))

    def finish(self, words: dict[str, list[str]], left_out: dict[str, int]) -> ExamplesSpec:
        """`words`: of each categorical field the values with code 2, 3, ..."""
        return ExamplesSpec(
            tasks=self.tasks,
            fields=[self._described(field) for field in self.fields],
            counts=self.counts,
            known=self.known,
            positives=self.positives,
            shards=self.shards,
            vocabulary=self._write_vocabulary(words),
            left_out=left_out,
        )

    def _counted(self, part: ExamplePart, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch, counted and in the fingerprint."""
        self.counts[part] += len(batch)
        columns = {name: batch[name].to_numpy() for name in self.shape.names}
        for name, values in columns.items():
            self.fingerprint.add(f"{EXAMPLES}/{part}/{name}", values.astype(values.dtype.newbyteorder("<")))
        for task in self.tasks:
            labels = columns[LABEL_PREFIX + task]
            self.known[task][part] += int((labels != SILENT).sum())
            self.positives[task][part] += int((labels == 1).sum())
        for field in self.fields:
            values = columns[FIELD_PREFIX + field.name]
            if field.kind == "categorical":
                self.missing[field.name][part] += int((values == MISSING).sum())
                self.unseen[field.name][part] += int((values == UNSEEN).sum())
                continue
            present = values[~np.isnan(values)].astype(np.float64)
            self.missing[field.name][part] += len(values) - len(present)
            if part == "train":
                self.moments[field.name].add(np.sign(present) * np.log1p(np.abs(present)) if field.log1p else present)
        return batch

    def _described(self, field: FieldSpec) -> FieldSpec:
        found: dict[str, object] = {"missing": self.missing[field.name]}
        if field.kind == "categorical":
            found["unseen"] = self.unseen[field.name]
        elif self.moments[field.name].count:
            found |= {"mean": self.moments[field.name].mean, "std": self.moments[field.name].std}
        return field.model_copy(update=found)

    def _write_vocabulary(self, words: dict[str, list[str]]) -> Shard:
        rows = [(name, FIRST_VALUE + place, word) for name in words for place, word in enumerate(words[name])]
        for name, values in words.items():
            self.fingerprint.add_texts(f"{VOCABULARY}/{name}", values)
        shape = pa.schema([("field", pa.string()), ("code", pa.int32()), ("value", pa.string())])
        columns = [pa.array(values, field.type) for values, field in zip(zip(*rows), shape)] if rows else None
        path = self.directory / VOCABULARY
        pq.write_table(pa.table(columns, schema=shape) if columns else shape.empty_table(), path, compression="zstd")
        return record_of(path, len(rows))


def rebatched(batches: Iterable[pa.RecordBatch], shape: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The same rows, ROWS_PER_BATCH a batch, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        while rows >= ROWS_PER_BATCH:
            table = pa.Table.from_batches(waiting, shape)
            yield _one_batch(table.slice(0, ROWS_PER_BATCH))
            waiting = table.slice(ROWS_PER_BATCH).to_batches()
            rows -= ROWS_PER_BATCH
    if rows:
        yield _one_batch(pa.Table.from_batches(waiting, shape))


def in_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches. Raises FaultError when an example comes before its predecessor."""
    last: list[np.ndarray] | None = None
    for batch in batches:
        keys = [batch[name].to_numpy() for name in ("user", "time", "candidate")]
        if last is not None:
            keys = [np.concatenate([end, key]) for end, key in zip(last, keys, strict=True)]
        user, time, candidate = (np.diff(key) for key in keys)
        if ((user < 0) | ((user == 0) & ((time < 0) | ((time == 0) & (candidate < 0))))).any():
            raise FaultError("the engine returned examples out of order; please report this with your duckdb version")
        last = [key[-1:] for key in keys]
        yield batch


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
