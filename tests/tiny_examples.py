"""Labelled examples for tests, made by numpy on top of a prepared data set: no label, no features in its YAML are needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import EXAMPLE_PARTS, FIELD_PREFIX, LABEL_PREFIX, FieldSpec, example_schema
from attnrec_dist.data.fingerprint import Fingerprint, fingerprint_of
from attnrec_dist.data.manifest import MANIFEST
from attnrec_dist.prepare.examples.files import ExampleFiles
from attnrec_dist.storage.stored import sealed

WORDS = {"colour": ["red", "green", "blue"]}
FIELDS = [
    FieldSpec(name="signal", kind="numeric"),  # decides the label, with some noise; outliers among it
    FieldSpec(name="count", kind="numeric", log1p=True),
    FieldSpec(name="gap", kind="numeric"),  # mostly missing
    FieldSpec(name="colour", kind="categorical", size=5),  # decides the second task
]


def add_examples(
    directory: Path, tasks: tuple[str, ...] = ("label",), per_user: int = 4, seed: int = 0, noise: int = 0
) -> DataSet:
    """Writes examples into a data set that has none and returns it, opened. `noise`: further numeric fields that mean nothing."""
    data = DataSet.open(directory)
    generator = np.random.default_rng(seed)
    fields = FIELDS + [FieldSpec(name=f"noise{place}", kind="numeric") for place in range(noise)]
    tables = {part: _table(data, part, list(tasks), fields, per_user, generator) for part in EXAMPLE_PARTS}
    fields = [_with_quantiles(field, tables["train"]) for field in fields]
    files = ExampleFiles(directory, list(tasks), fields, Fingerprint())
    for part in EXAMPLE_PARTS:
        files.write_part(part, tables[part].to_batches())
    spec = files.finish(WORDS, {})
    manifest = data.manifest.model_copy(update={"examples": spec})
    manifest = manifest.model_copy(update={"fingerprint": fingerprint_of(DataSet(directory, manifest))})
    (directory / MANIFEST).write_text(json.dumps(sealed(manifest.model_dump(mode="json"))))
    return DataSet.open(directory)


def _table(data, part, tasks, fields, per_user, generator) -> pa.Table:
    """Examples of every user who has events in the part, at moments of these or a second later; a history may be empty."""
    rows: list[tuple] = []
    for found in data.scan():
        for place, user in enumerate(found.users):
            times = found.times[found.offsets[place] : found.offsets[place + 1]]
            bounds = (0, found.train_end[place], found.valid_end[place], len(times))
            first, stop = bounds[EXAMPLE_PARTS.index(part)], bounds[EXAMPLE_PARTS.index(part) + 1]
            for _ in range(per_user if stop > first else 0):
                moment = int(times[generator.integers(first, stop)])
                item = int(generator.integers(data.manifest.num_items if part == "train" else data.manifest.num_all_items))
                rows.append((int(user), moment, item, int((times < moment).sum())))
    rows.sort()
    user, time, candidate, history = (np.array(column, np.int64) for column in zip(*rows))
    columns: dict[str, np.ndarray] = {"user": user, "candidate": candidate, "time": time, "history": history}
    signal = generator.standard_normal(len(user))
    colour = generator.integers(0 if part != "train" else 1, 5, len(user))
    chances = {0: 1 / (1 + np.exp(-4 * signal)), 1: np.where(colour == 3, 0.9, 0.2)}
    for place, task in enumerate(tasks):
        label = (generator.random(len(user)) < chances[place % 2]).astype(np.int8)
        columns[LABEL_PREFIX + task] = np.where((place > 0) & (generator.random(len(user)) < 0.1), -1, label)
    signal[::37] *= 1e6
    values = {"signal": signal, "count": generator.poisson(3, len(user)), "colour": colour}
    values["gap"] = np.where(generator.random(len(user)) < 0.7, np.nan, generator.exponential(5, len(user)))
    for field in fields:
        columns[FIELD_PREFIX + field.name] = values.get(field.name, generator.standard_normal(len(user)))
    shape = example_schema(tasks, fields)
    return pa.table([pa.array(columns[field.name]).cast(field.type, safe=False) for field in shape], schema=shape)


def _with_quantiles(field: FieldSpec, train: pa.Table) -> FieldSpec:
    if field.kind == "categorical":
        return field
    values = train[FIELD_PREFIX + field.name].to_numpy()
    values = np.sort(values[~np.isnan(values)])
    picked = np.unique(values[np.arange(1, 64) * len(values) // 64])
    return field.model_copy(update={"quantiles": picked[picked > values[0]].astype(float).tolist()})
