"""The keys that anything drawn for a batch is drawn under: functions of (data, seed, step, sample, place), never of the layout.

So a query has the same negatives in whatever micro-batch, on whatever rank, after whatever restart it comes.
"""

from __future__ import annotations

import torch

from attnrec_dist.batch import SequenceBatch
from attnrec_dist.data.order import Order, derive_key
from attnrec_dist.ops.draws import combine


def add_keys(batch: SequenceBatch, order: Order, step: int) -> None:
    """Gives the batch a key for its step and one for each query, by its sample and its place among the sample's queries."""
    words = derive_key(order.fingerprint, order.seed, step, "draws").view("<i8")
    row = torch.searchsorted(batch.offsets[1:].long(), batch.queries, right=True)
    place = torch.arange(len(row)) - torch.searchsorted(row, row)
    batch.step_key = torch.tensor([words[0]])
    batch.query_keys = combine(int(words[1]), batch.sample_ids[row], place)
