"""Reading labelled examples by number: a gather from memory-mapped shards, nothing held. B examples that are asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnrec_dist.data.dataset import DataSet, gather
from attnrec_dist.data.example_format import EXAMPLES, FIELD_PREFIX, LABEL_PREFIX, ExamplePart, ExamplesSpec, example_schema
from attnrec_dist.data.gather import Gather
from attnrec_dist.errors import ConfigError


@dataclass
class Examples:
    """Some examples, in the order in which they were asked for."""

    users: np.ndarray  # int64 [B] user index, which is the row of the sequences
    candidates: np.ndarray  # int32 [B] item index; V and above: a cold item
    times: np.ndarray  # int64 [B] unix seconds of the moment
    history: np.ndarray  # int32 [B] tokens of the user's row strictly before the moment
    labels: dict[str, np.ndarray]  # {task: int8 [B]} 1, 0, or -1 where the task says nothing
    fields: dict[str, np.ndarray]  # {name: int32 [B] codes (0 unseen, 1 missing, 2.. values) or float32 [B] (NaN missing)}

    def __len__(self) -> int:
        return len(self.users)


class ExampleSet:
    """The examples of one part. Example i is row i of the part's shards read one after another: by user, time, candidate."""

    def __init__(self, data: DataSet, part: ExamplePart, spec: ExamplesSpec):
        self.data = data
        self.part: ExamplePart = part
        self.spec = spec
        self.columns = example_schema(spec.tasks, spec.fields).names

    @classmethod
    def open(cls, data: DataSet, part: ExamplePart) -> ExampleSet:
        """Raises ConfigError when the data set has no examples."""
        if data.manifest.examples is None:
            raise ConfigError(
                f"{data.path}: has no labelled examples; add `label` and `features` to its configuration "
                "(docs/data-format.md) and prepare it again"
            )
        return cls(data, part, data.manifest.examples)

    def __len__(self) -> int:
        return self.spec.counts[self.part]

    def take(self, ids: np.ndarray) -> Examples:
        """The examples with these numbers, int64 [B]; a number may be given twice. Raises IndexError beyond the last."""
        wanted = self._checked(ids)
        found = self._gather.take(wanted, self.columns)
        return Examples(
            users=found["user"],
            candidates=found["candidate"],
            times=found["time"],
            history=found["history"],
            labels={task: found[LABEL_PREFIX + task] for task in self.spec.tasks},
            fields={field.name: found[FIELD_PREFIX + field.name] for field in self.spec.fields},
        )

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        """Tokens of each example's history, unclipped, int64 [B]."""
        return self._gather.take(self._checked(ids), ["history"])["history"].astype(np.int64)

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Examples start to stop of one column (user, label.TASK, field.NAME, ...), in order."""
        stop = len(self) if stop is None else min(stop, len(self))
        return self._gather.take(np.arange(start, stop), [name])[name]

    def _checked(self, ids: np.ndarray) -> np.ndarray:
        wanted = np.asarray(ids, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            outside = wanted[(wanted < 0) | (wanted >= len(self))][0]
            raise IndexError(f"example {outside} of {len(self)} of the {self.part} part")
        return wanted

    @functools.cached_property
    def _gather(self) -> Gather:
        shape = example_schema(self.spec.tasks, self.spec.fields)
        records = self.spec.shards[self.part]
        return gather([self.data.stored(self.data.path / EXAMPLES / record.name, record) for record in records], records, shape)

    def __getstate__(self) -> dict[str, Any]:
        """Without views of mapped files: a worker that is sent this maps them itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_gather"}
