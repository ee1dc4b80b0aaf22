"""The labelled examples of a data set, counted in one scan that also checks what a reader relies on, a piece at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import EXAMPLE_PARTS, FIELD_PREFIX, LABEL_PREFIX, SILENT
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.errors import DataError

PIECE = 1 << 18  # examples


@dataclass(frozen=True)
class PartOfExamples:
    """What one part holds."""

    examples: int
    users: int
    history: float  # mean tokens
    without_history: int
    cold: int  # candidates without a training event
    start: int  # unix seconds; 0 where there are no examples
    end: int


def inspect_examples(data: DataSet, cold: np.ndarray) -> dict[str, PartOfExamples]:
    """Of each part; empty where the data set has no examples. `cold` [V_all]: items without a training event. Raises
    DataError where they are not what the manifest says."""
    if data.manifest.examples is None:
        return {}
    return {part: _inspect_part(data, ExampleSet.open(data, part), cold) for part in EXAMPLE_PARTS}


def _inspect_part(data: DataSet, part: ExampleSet, cold: np.ndarray) -> PartOfExamples:
    users = history = without = new = 0
    counts: Counter[tuple[str, int]] = Counter()
    previous = np.full(3, -1, np.int64)
    start, end = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for lo in range(0, len(part), PIECE):
        columns = {name: part.column(name, lo, lo + PIECE) for name in part.columns}
        _check(data, part, columns, previous)
        user = columns["user"]
        users += int((np.diff(user, prepend=previous[0]) != 0).sum())
        history += int(columns["history"].sum(dtype=np.int64))
        without += int((columns["history"] == 0).sum())
        new += int(cold[columns["candidate"]].sum())
        start, end = min(start, int(columns["time"].min())), max(end, int(columns["time"].max()))
        for task in part.spec.tasks:
            values, found = np.unique(columns[LABEL_PREFIX + task], return_counts=True)
            counts.update({(task, int(value)): int(count) for value, count in zip(values, found, strict=True)})
        previous = np.array([columns[name][-1] for name in ("user", "time", "candidate")], np.int64)
    _check_counts(data, part, counts)
    size = len(part)
    return PartOfExamples(size, users, history / max(size, 1), without, new, start if size else 0, end if size else 0)


def _check(data: DataSet, part: ExampleSet, columns: dict[str, np.ndarray], previous: np.ndarray) -> None:
    """What docs/data-format.md promises of examples."""
    keys = (np.concatenate([[last], columns[name]]) for last, name in zip(previous, ("user", "time", "candidate")))
    user, time, candidate = (np.diff(key) for key in keys)
    bad = (user < 0) | ((user == 0) & ((time < 0) | ((time == 0) & (candidate < 0))))
    _refuse(data, part, bad, "out of order")
    _refuse(data, part, (columns["user"] < 0) | (columns["user"] >= data.num_rows), "of a user that there is not")
    candidate = columns["candidate"]
    _refuse(data, part, (candidate < 0) | (candidate >= data.manifest.num_all_items), "of an item that there is not")
    split = data.manifest.split
    if split.train_end is not None and split.valid_end is not None:
        index = (columns["time"] >= split.train_end).astype(np.int64) + (columns["time"] >= split.valid_end)
        _refuse(data, part, index != EXAMPLE_PARTS.index(part.part), "on the wrong side of a cut")
    for task in part.spec.tasks:
        labels = columns[LABEL_PREFIX + task]
        _refuse(data, part, (labels < SILENT) | (labels > 1), f"with a label {task} that is not -1, 0 or 1")
    for field in part.spec.fields:
        values = columns[FIELD_PREFIX + field.name]
        wrong = np.isinf(values) if field.size is None else (values < 0) | (values >= field.size)
        _refuse(data, part, wrong, f"with a {field.name} that its field does not have")


def _refuse(data: DataSet, part: ExampleSet, bad: np.ndarray, what: str) -> None:
    if bad.any():
        raise DataError(f"{data.path}: an example of the {part.part} part is damaged: it is {what}; prepare the data set again")


def _check_counts(data: DataSet, part: ExampleSet, counts: Counter[tuple[str, int]]) -> None:
    for task in part.spec.tasks:
        positives, negatives = counts[task, 1], counts[task, 0]
        if (positives, positives + negatives) != (part.spec.positives[task][part.part], part.spec.known[task][part.part]):
            raise DataError(f"{data.path}: labels {task} of the {part.part} part are not as counted; prepare the data set again")
