"""What is trained on, numbered: windows of histories (next_item), labelled examples (ranking). A batch is packed from numbers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch

from attnrec_dist.batch import MISSING, PADDING, Batch, RankingBatch, SequenceBatch
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.draw_keys import add_keys
from attnrec_dist.data.examples import Examples, ExampleSet
from attnrec_dist.data.expert_features import EvidenceFinder
from attnrec_dist.data.manifest import NUMERIC_PREFIX
from attnrec_dist.data.order import Order
from attnrec_dist.data.pack import Histories, begun, pack
from attnrec_dist.data.windows import SampleIndex, is_target, target_codes

EXAMPLES_AT_ONCE = 2**20


class Samples(Protocol):
    """Samples 0, 1, ..., len - 1. Wherever ids are asked for, int64 [n], a stand-in (PADDING) is one that weighs nothing."""

    def __len__(self) -> int: ...

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        """Tokens of each sample, int64 [n]: what it costs."""
        ...

    def weights(self, ids: np.ndarray) -> np.ndarray:
        """What each adds to the weight that the loss is divided by, int64 [n]."""
        ...

    def batch(self, ids: np.ndarray, order: Order, step: int) -> Batch:
        """The samples packed; stand-ins come last."""
        ...

    def of_user(self, user: int) -> np.ndarray:
        """The samples of one user, by index, int64 [n], ascending."""
        ...

    def cut(self) -> Cut:
        """How many histories are longer than a sample may be. Reads all lengths."""
        ...


class Cut(NamedTuple):
    """How many histories are longer than a sample may be, and what becomes of them."""

    longer: int
    of: int
    what: str = "histories to train on"
    told: str = ""


class WindowSamples:
    """The windows of the training histories: data/windows.py. `draws` says whether a loss draws under the batch's keys."""

    def __init__(
        self, data: DataSet, index: SampleIndex, config: DataConfig, evidence: EvidenceFinder | None = None, draws: bool = True
    ):
        self.data, self.index, self.config, self.evidence, self.draws = data, index, config, evidence, draws
        self.codes = target_codes(config, data.manifest.event_types)

    def __len__(self) -> int:
        return len(self.index)

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        return self.index.lengths(ids)

    def weights(self, ids: np.ndarray) -> np.ndarray:
        return self.index.queries(ids)

    def of_user(self, user: int) -> np.ndarray:
        return np.arange(*self.index.row_windows[user : user + 2])

    def cut(self) -> Cut:
        told = f"the newest {self.config.max_length:,} events before a prediction are read"
        if self.config.windows == "last":
            told = f"{self.index.tokens_before():,} older events of theirs are not trained on"
        elif self.config.targets == "all":
            told = "they are trained on in pieces, all of their events"
        return Cut(self.index.cut_rows(), int(np.count_nonzero(np.diff(self.index.row_windows))), told=told)

    def batch(self, ids: np.ndarray, order: Order, step: int) -> SequenceBatch:
        """A stand-in is a row of one token."""
        real = ids[ids >= 0]
        row = self.index.rows_of(real)
        window = self.index.windows.take(real, axis=0).astype(np.int64)  # [B, 5]
        start, stop, end, first_query, _ = window.T
        tokens = self.data.pieces(row, start, end)
        numeric = {name: tokens[NUMERIC_PREFIX + name] for name in self.data.manifest.numeric}
        pieces = Histories(
            sample_ids=real,
            users=row,
            sizes=end - start,
            inputs=stop - start,
            first_query=first_query - start,
            items=tokens["items"],
            times=tokens["times"],
            columns={"event": tokens["events"]} | numeric,
            is_target=is_target(tokens["events"], self.codes),
        )
        if self.config.empty_history:
            pieces = begun(pieces)
        batch = pack(pieces, self.config.basket, self.config.max_length, standins=int((ids < 0).sum()))
        if self.draws:
            add_keys(batch, order, step)
        if self.evidence is not None:
            self.evidence.add(batch)
        return batch


class ExampleSamples:
    """The labelled examples of a part: each with the newest `max_length` tokens of its history."""

    def __init__(self, examples: ExampleSet, max_length: int):
        self.examples, self.max_length = examples, max_length

    def __len__(self) -> int:
        return len(self.examples)

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        """The history's tokens and one for the example itself."""
        known = np.minimum(self.examples.lengths(np.maximum(ids, 0)), self.max_length)
        return np.where(ids < 0, 0, known) + 1

    def weights(self, ids: np.ndarray) -> np.ndarray:
        return (ids >= 0).astype(np.int64)

    def of_user(self, user: int) -> np.ndarray:
        return np.flatnonzero(self.examples.column("user") == user)

    def cut(self) -> Cut:
        longer = 0
        for first in range(0, len(self) if self.max_length else 0, EXAMPLES_AT_ONCE):  # 0: the model reads no history
            ids = np.arange(first, min(first + EXAMPLES_AT_ONCE, len(self)))
            longer += int((self.examples.lengths(ids) > self.max_length).sum())
        told = f"the newest {self.max_length:,} events are read"
        return Cut(longer, len(self), "histories of examples", told)

    def batch(self, ids: np.ndarray, order: Order | None = None, step: int = 0) -> RankingBatch:
        """A stand-in has no history, and nothing is known of it."""
        real = ids[ids >= 0]
        standins = len(ids) - len(real)
        found = self.examples.take(real)
        stop = found.history.astype(np.int64)
        start = np.maximum(0, stop - self.max_length)
        tokens = self.examples.data.pieces(found.users, start, stop)
        numeric = {name: torch.from_numpy(tokens[NUMERIC_PREFIX + name]) for name in self.examples.data.manifest.numeric}
        labels = {task: with_standins(values, -1, standins) for task, values in found.labels.items()}
        sizes = np.concatenate([stop - start, np.zeros(standins, np.int64)])
        return RankingBatch(
            sample_ids=with_standins(real, PADDING, standins),
            users=with_standins(found.users, PADDING, standins),
            candidates=with_standins(found.candidates, 0, standins).long(),
            times=with_standins(found.times, 0, standins),
            fields=fields_of(found, standins),
            labels={task: values.clamp(min=0).float() for task, values in labels.items()},
            label_weights={task: (values >= 0).float() for task, values in labels.items()},
            items=torch.from_numpy(tokens["items"].astype(np.int64)),
            history_times=torch.from_numpy(tokens["times"]),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)),
            max_length=int(sizes.max(initial=0)),
            events={"event": torch.from_numpy(tokens["events"].astype(np.int64))} | numeric,
        )


def fields_of(found: Examples, standins: int) -> dict[str, torch.Tensor]:
    """{name: [B]}: codes as int64, which embeddings take, numbers as float32."""
    return {
        name: with_standins(values, np.nan, standins)
        if values.dtype.kind == "f"
        else with_standins(values, MISSING, standins).long()
        for name, values in found.fields.items()
    }


def with_standins(values: np.ndarray, filling: float, standins: int) -> torch.Tensor:
    """The values, then `standins` times the filling, in the values' type."""
    return torch.from_numpy(np.concatenate([values, np.full(standins, filling, values.dtype)]))
