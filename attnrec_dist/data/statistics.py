"""What prepare counted over the catalogue, as read-only numpy views of memory-mapped files: processes of a host share the pages.

Item i owns the entries offsets[i] to offsets[i + 1] of the other arrays. V catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class DailyCounts:
    """Events of each item on each day that has any, days ascending; over all parts, so a reader takes days before its own."""

    offsets: np.ndarray  # int64 [V + 1]
    days: np.ndarray  # int32 [n] days since 1970-01-01, UTC
    counts: np.ndarray  # int32 [n] events of the item on that day, at least 1


@dataclass(frozen=True)
class ItemGraph:
    """Each item's nearest others in the training part: weight descending, index ascending where weights are equal.

    weight(i, j) = pairs(i, j) / sqrt(baskets(i) baskets(j)). Kind basket: pairs are baskets that hold both. Kind next: pairs are
    events of j among the few events after one of i, and `baskets` are events.
    """

    offsets: np.ndarray  # int64 [V + 1]
    neighbours: np.ndarray  # int32 [e] item index
    weights: np.ndarray  # float32 [e]
    pairs: np.ndarray  # int32 [e]
    baskets: np.ndarray  # int32 [V]
    within: int = 0  # kind next: how many events count as following; kind basket: 0


def read_daily(file: Path) -> DailyCounts:
    """Maps daily.arrow; an ArrowInvalid or OSError says that it is no such file."""
    batch = _mapped(file)
    return DailyCounts(_offsets(batch, "days"), _values(batch, "days"), _values(batch, "counts"))


def read_graph(file: Path) -> ItemGraph:
    """Maps graph.arrow; an ArrowInvalid or OSError says that it is no such file."""
    batch = _mapped(file)
    return ItemGraph(
        offsets=_offsets(batch, "neighbours"),
        neighbours=_values(batch, "neighbours"),
        weights=_values(batch, "weights"),
        pairs=_values(batch, "pairs"),
        baskets=batch["baskets"].to_numpy(),
    )


def _mapped(file: Path) -> pa.RecordBatch:
    """The file's one record batch."""
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        try:
            return stream.read_next_batch()
        except StopIteration:
            raise pa.ArrowInvalid("it holds no rows") from None


def _offsets(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch[name].offsets.to_numpy()


def _values(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch[name].values.to_numpy()
