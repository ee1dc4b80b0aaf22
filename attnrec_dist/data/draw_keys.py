"""The keys that anything drawn for a batch is drawn under: functions of (data, seed, step, sample, place), never of the layout.

So a query has the same negatives in whatever micro-batch, on whatever rank, after whatever restart it comes.
"""

from __future__ import annotations

import numpy as np
import torch

from attnrec_dist.batch import SequenceBatch
from attnrec_dist.data.order import Order, derive_key, mix


def add_keys(batch: SequenceBatch, order: Order, step: int) -> None:
    """Gives the batch a key for its step and one for each query, by its sample and its place among the sample's queries."""
    words = derive_key(order.fingerprint, order.seed, step, "draws")
    edges = np.searchsorted(
        batch.queries.numpy(), batch.offsets.numpy()
    )  # queries ascend: those of row b are edges[b] to edges[b + 1]
    asked = np.diff(edges)
    place = np.arange(edges[-1]) - np.repeat(edges[:-1], asked)
    keys = np.repeat(batch.sample_ids.numpy(), asked)
    keys = mix(mix(keys.view(np.uint64) + words[1]) + place.view(np.uint64))  # ops/draws.py: combine, in fewer microseconds
    batch.step_key = torch.from_numpy(words[:1].astype(np.int64))
    batch.query_keys = torch.from_numpy(keys.view(np.int64))
