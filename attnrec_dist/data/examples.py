"""Reading labelled examples by number: a gather from memory-mapped shards, nothing held. B examples that are asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from attnrec_dist.data.example_format import EXAMPLES, FIELD_PREFIX, LABEL_PREFIX, ExamplePart, ExamplesSpec, example_schema
from attnrec_dist.data.shards import DataSet, reading
from attnrec_dist.errors import ConfigError, DataError


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
        places = self._places(wanted)
        found = {name: self._gather(name, wanted, places) for name in self.columns}
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
        return self._gather("history", self._checked(ids)).astype(np.int64)

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Examples start to stop of one column (user, label.TASK, field.NAME, ...), in order."""
        stop = len(self) if stop is None else min(stop, len(self))
        return self._gather(name, np.arange(start, stop))

    def _checked(self, ids: np.ndarray) -> np.ndarray:
        wanted = np.asarray(ids, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            outside = wanted[(wanted < 0) | (wanted >= len(self))][0]
            raise IndexError(f"example {outside} of {len(self)} of the {self.part} part")
        return wanted

    def _places(self, wanted: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """(batch, which of the wanted lie in it, their places in there), of each batch that is needed."""
        starts = self._mapped[0]
        batch = np.searchsorted(starts, wanted, side="right") - 1
        here = [(int(each), np.flatnonzero(batch == each)) for each in np.unique(batch)]
        return [(each, which, wanted[which] - starts[each]) for each, which in here]

    def _gather(
        self, name: str, wanted: np.ndarray, places: list[tuple[int, np.ndarray, np.ndarray]] | None = None
    ) -> np.ndarray:
        """Values of a column at these numbers."""
        batches = self._mapped[1][name]
        if len(batches) == 1:
            return batches[0][wanted]
        result = np.empty(len(wanted), batches[0].dtype)
        for batch, which, place in self._places(wanted) if places is None else places:
            result[which] = batches[batch][place]
        return result

    @functools.cached_property
    def _mapped(self) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
        """(first example of each record batch, {column: a view of each batch}); a part without examples has one empty batch."""
        shape = example_schema(self.spec.tasks, self.spec.fields)
        batches: list[pa.RecordBatch] = []
        for record in self.spec.shards[self.part]:
            file = self.data.path / EXAMPLES / record.name
            found = reading(file, lambda file=file: _batches(file))
            if sum(map(len, found)) != record.rows or any(not batch.schema.equals(shape) for batch in found):
                raise DataError(f"{file}: damaged: not the examples that the manifest tells of; prepare the data set again")
            batches += found
        batches = batches or [pa.record_batch([pa.array([], field.type) for field in shape], schema=shape)]
        starts = np.cumsum([0, *(len(batch) for batch in batches)])[:-1]
        return starts, {name: [batch[name].to_numpy() for batch in batches] for name in shape.names}

    def __getstate__(self) -> dict[str, Any]:
        """Without views of mapped files: a worker that is sent this maps them itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_mapped"}


def _batches(file: Any) -> list[pa.RecordBatch]:
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return list(stream)
