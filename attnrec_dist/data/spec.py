"""What a model may know of its data set before the first batch."""

from __future__ import annotations

from attnrec_dist.batch import DataSpec
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet


def data_spec(data: DataSet, config: DataConfig) -> DataSpec:
    manifest = data.manifest
    types = config.input_types(manifest.event_types)
    return DataSpec(manifest.num_items, config.max_length, types, data, manifest.examples, config.empty_history)
