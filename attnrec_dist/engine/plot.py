"""`attnrec plot`: a run's curves beside the baselines on its validation part.

They are measured when the run is first drawn, so that training takes no time for them, and kept in baselines.json.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnrec_dist.data.manifest import read_manifest
from attnrec_dist.engine.config import RunConfig
from attnrec_dist.errors import AttnrecError, ConfigError, StorageError
from attnrec_dist.evaluation.curves import curves, read_curves
from attnrec_dist.run_dir import RunDir, write_whole
from attnrec_dist.settings import read_yaml
from attnrec_dist.storage.stored import read_tree

MOST_SCORES = 5_000_000_000  # customers x items that a baseline scores: a minute or two
Values = dict[str, dict[str, float]]  # {baseline: {metric: value on the validation part}}


def plot_run(run: RunDir, config: Callable[[], RunConfig]) -> Path:
    """Draws RUN_DIR/curves.png and gives its path; `config` is asked where something is to be measured.

    Raises MissingExtraError, RunDirError.
    """
    tree, values = read_yaml(run.config), {}
    for section in ("data", "evaluation"):
        if not isinstance(tree.setdefault(section, {}), dict):
            raise ConfigError(f"{run.config}: {section}: expected keys, found {tree[section]!r}; put the run's own back")
    read_curves(run.metrics)  # a run without a step is refused before anything is measured
    chosen = str(tree["evaluation"].get("metric", ""))
    try:
        values = kept(run, tree, config)
    except AttnrecError as error:  # the data set has moved, say, or the run is older than a key
        print(f"attnrec: drawn without the baselines: {error}", file=sys.stderr)
    picture = run.path / "curves.png"
    curves(run.metrics, picture, f"eval/{chosen}", {name: of[chosen] for name, of in values.items() if chosen in of})
    return picture


def can_be_tested(run: RunDir) -> bool:
    """Whether there is a checkpoint, and a data set with a test part where config.yaml says."""
    try:
        run.checkpoint("best")
        return bool(read_manifest(Path(str(read_yaml(run.config)["data"]["path"]))).counts.test_events)
    except (AttnrecError, KeyError, TypeError):
        return False


def kept(run: RunDir, tree: dict[str, Any], config: Callable[[], RunConfig]) -> Values:
    """Those of baselines.json, where they are of these data and settings; else measured and kept there."""
    file, data = run.path / "baselines.json", read_manifest(Path(str(tree["data"].get("path", ""))))
    settings = {section: tree[section] for section in ("data", "evaluation")}
    measured_on = {"data fingerprint": data.fingerprint, **settings}
    try:
        found = read_tree(file)
        if found["measured on"] == measured_on:
            return {name: {metric: float(value) for metric, value in of.items()} for name, of in found["values"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    values = measured(config()) if data.counts.validation_events else {}
    told = {name: {metric: value for metric, value in of.items() if not math.isnan(value)} for name, of in values.items()}
    with suppress(StorageError):  # then they are measured again next time
        write_whole(file, json.dumps({"measured on": measured_on, "values": told}, indent=1) + "\n")
    return told


def measured(config: RunConfig) -> Values:
    """Each baseline's values on the validation part. Raises ConfigError where too much would have to be scored."""
    from attnrec_dist.data.dataset import DataSet
    from attnrec_dist.data.eval_cases import find_views
    from attnrec_dist.data.examples import ExampleSet
    from attnrec_dist.distributed import World
    from attnrec_dist.evaluation.evaluate import measure_baselines
    from attnrec_dist.evaluation.example_report import plain_rows
    from attnrec_dist.models import model_task

    data = DataSet.open(Path(config.data.path), verify=False)
    evaluation: Any = config.evaluation
    if model_task(config.model.name) == "ranking":
        examples = ExampleSet.open(data, "validation")
        rows = {task: plain_rows(examples, task, evaluation.metrics) for task in examples.spec.tasks}
        return {
            row: {f"{task}/{metric}": value for task, of in rows.items() for metric, value in of[row].items()}
            for row in next(iter(rows.values()))
        }
    views = find_views(data, config.data, "validation")[0]
    if len(views) * data.manifest.num_items > MOST_SCORES:
        raise ConfigError(f"{len(views):,} histories times {data.manifest.num_items:,} items take too long to score here")
    print("measuring the baselines on the validation part, once", file=sys.stderr, flush=True)
    _, found = measure_baselines(views, evaluation, World())
    return {name: each.flat() for name, each in found.items()}
