"""The experts of a mixture, by name. A new one is a file here and a line in EXPERTS.

An expert gives log p of every query's targets (in training) and an opinion on the whole catalogue (in ranking), from the
customer's state and from what the data set knows. `needs` names what the loader looks up for it (data/expert_features.py); where
the data set lacks that, a SilentExpert stands in its place.
"""

from __future__ import annotations

from attnrec_dist.models.experts.base import Expert, ExpertConfig, QueryChunk, SilentExpert
from attnrec_dist.models.experts.copy import CopyExpert
from attnrec_dist.models.experts.graph import GraphExpert
from attnrec_dist.models.experts.trend import TrendExpert

SEQUENCE = "sequence"  # the softmax over the table: the loss computes it in chunks, so it is no class of its own
EXPERTS: dict[str, type[Expert]] = {
    "copy": CopyExpert,
    "trend": TrendExpert,
    "graph": GraphExpert,
}

__all__ = ["EXPERTS", "SEQUENCE", "Expert", "ExpertConfig", "QueryChunk", "SilentExpert"]
