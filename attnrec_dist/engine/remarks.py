"""What of a training is off on its data set, and what that costs: told before the first step."""

from __future__ import annotations

import numpy as np

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.eval_cases import Views
from attnrec_dist.data.manifest import IN_BASKETS
from attnrec_dist.data.spec import data_spec
from attnrec_dist.data.windows import SampleIndex
from attnrec_dist.engine.config import RunConfig

DAY = 86_400


def remarks_of_next_item(config: RunConfig, data: DataSet, index: SampleIndex, views: Views, validates: bool) -> list[str]:
    found = [*of_experts(config, data), of_histories(data, index), of_baskets(config, data)]
    if data.manifest.num_items == 1:
        found.append("the catalogue has one item: every list is this item, and nothing is learned")
    if not validates:
        found.append(not_validated(config, why_not_validated(data, views)))
    if not data.manifest.counts.test_events:
        found.append("the test part is empty: attnrec evaluate will find nothing to measure there")
    return [remark for remark in found if remark]


def of_experts(config: RunConfig, data: DataSet) -> list[str]:
    """Of a model with experts: those without weight, and a trend that knows no difference."""
    without: dict[str, str] = config.model.lacking(data_spec(data, config.data))
    found = [f"expert {name} is off, its weight is 0: {why}" for name, why in without.items()]
    manifest = data.manifest
    if "trend" in config.model.expert_names and "trend" not in without:
        if manifest.times_are_places:
            found.append("expert trend gives every item the same: the log has places in histories, no days")
        elif manifest.start_time // DAY == manifest.end_time // DAY:
            found.append("expert trend gives every item the same: it counts the days before a moment, and the log has one day")
    return found


def of_histories(data: DataSet, index: SampleIndex) -> str:
    counts = data.manifest.counts
    there = counts.rows - counts.users_without_train_events
    taught = int(np.count_nonzero(np.diff(index.row_windows)))
    if 2 * taught >= there:
        return ""
    return (
        f"only {taught:,} of {there:,} customers in the training part teach the order of events: the others have nothing to "
        "predict after their first basket, and only count in popularity"
    )


def of_baskets(config: RunConfig, data: DataSet) -> str:
    in_baskets = data.manifest.statistics.get(IN_BASKETS)
    if config.data.basket == "time" or not in_baskets or 2 * in_baskets < data.manifest.counts.train_events:
        return ""
    return (
        f"data.basket is none, but {in_baskets:,} of {data.manifest.counts.train_events:,} training events share their time with "
        "another of their customer: their order, which means nothing, is learned; --data.basket time predicts them together"
    )


def why_not_validated(data: DataSet, views: Views) -> str:
    if not data.manifest.counts.validation_events:
        return "the validation part is empty"
    if not len(views):
        return "nobody with a history has anything to predict in the validation part"
    return "no item that the validation part asks for is in the training part"


def not_validated(config: RunConfig, why: str) -> str:
    key = "max_steps" if config.train.max_steps else "max_epochs"
    end = f"train.{key} ({getattr(config.train, key):g})"
    return f"no validation: {why}; so training goes on to {end}, and the last checkpoint is what is used"
