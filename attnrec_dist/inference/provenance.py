"""What a table of values is of: the checkpoint, the data set, the part. Kept in the Parquet file, so that nothing stale is taken
for something else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attnrec_dist.inference.load import TrainedModel
from attnrec_dist.models import model_task
from attnrec_dist.run_dir import MARKER
from attnrec_dist.storage.stored import sha256_of, size_of

KEY = b"attnrec"
NOT_OF_THE_VALUES = ("path", "workers", "loader_timeout", "verify", "block_size", "shuffle_blocks")  # keys of the data section


def identity(trained: TrainedModel, split: str) -> dict[str, Any]:
    """Everything that decides a model's values of a part, as JSON types. Values are the same where all of it is."""
    tree = trained.tree
    data = {key: value for key, value in tree["data"].items() if key not in NOT_OF_THE_VALUES}
    scoring = json.dumps([data, tree["model"], tree.get("loss")], sort_keys=True)
    return {
        "tested_on": tested_on(trained, split),
        "checkpoint": trained.checkpoint.name,
        "checkpoint sha256": sha256_of(trained.checkpoint / MARKER),
        "scoring": hashlib.sha256(scoring.encode()).hexdigest(),
    }


def tested_on(trained: TrainedModel, split: str) -> dict[str, Any]:
    """What two runs must share to be compared: the same users are asked about the same items."""
    config, manifest = trained.config, trained.data.manifest
    task = model_task(trained.tree["model"]["name"])
    found: dict[str, Any] = {"task": task, "data fingerprint": manifest.fingerprint, "split": split}
    if task == "next_item":
        found |= {"data.basket": config.basket, "data.target_events": sorted(config.target_events or manifest.event_types)}
    return found


def stamped(table: pa.Table, of: dict[str, Any]) -> pa.Table:
    """The table with its identity in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: json.dumps(of).encode()})


def stored_identity(file: Path) -> dict[str, Any] | None:
    """The identity in a Parquet file; None where it has none, or is no Parquet file."""
    try:
        size_of(file)
        found = json.loads((pq.read_schema(file).metadata or {})[KEY])
    except (OSError, ValueError, KeyError, RecursionError):  # pyarrow's own errors are ValueErrors
        return None
    return found if isinstance(found, dict) else None


def is_whole(file: Path) -> bool:
    """Whether a Parquet file of values can be read to its end, its pages as their checksums say."""
    try:
        pq.read_table(file, page_checksum_verification=True)
    except (OSError, ValueError):
        return False
    return True
