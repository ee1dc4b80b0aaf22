"""`attnrec compare`: runs on the same test set, user by user, in one process or under a launcher."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attnrec_dist.comparison.report import Verdict, judge, to_json, told
from attnrec_dist.comparison.values import VALUES, Contender, Values
from attnrec_dist.data.eval_cases import Part
from attnrec_dist.distributed import World
from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation.classification import LOWER_IS_BETTER
from attnrec_dist.evaluation.run import TIMEOUT_SECONDS
from attnrec_dist.inference.load import load_model
from attnrec_dist.inference.provenance import identity, is_whole, stored_identity
from attnrec_dist.monitoring.watchdog import Watchdog, silence_of
from attnrec_dist.run_dir import write_whole
from attnrec_dist.storage.outputs import JSON, PICTURE, check_output
from attnrec_dist.strategies.launch import join

MOST_RUNS = 10  # 45 pairs


@dataclass
class CompareRequest:
    """What `attnrec compare` was asked for."""

    metric: list[str] | None = None
    split: Part = "test"
    checkpoint: str = "best"
    data: str | None = None
    output: Path | None = None
    plot: Path | None = None


def compare_runs(paths: Sequence[Path], request: CompareRequest) -> Verdict:
    """Compares all pairs on all processes together; rank 0 prints and writes. Raises UserError alike on all ranks."""
    if not 2 <= len(paths) <= MOST_RUNS:
        raise ConfigError(f"compare takes from two runs to {MOST_RUNS}, got {len(paths)}; type attnrec compare RUN_A RUN_B")
    job = join("fp32", TIMEOUT_SECONDS)
    world = job.world
    world.on_main(lambda: check_outputs(request))
    contenders: list[Contender] = world.together(lambda: contenders_of(paths, request, world))
    values = VALUES[contenders[0].identity["tested_on"]["task"]]
    metrics: list[str] = world.together(lambda: values.metrics(request.metric, contenders[0].trained))
    with Watchdog.of_others(silence_of(contenders[0].trained.tree, contenders[0].trained.where), world):
        for each in contenders:
            each.table = table_of(each, values, metrics, request.split, world)
            values.complete(each, world)
        verdict: Verdict = world.together(lambda: verdict_of(contenders, values, metrics))
        world.on_main(lambda: tell(verdict, request))
    job.close()
    return verdict


def check_outputs(request: CompareRequest) -> None:
    check_output(request.output, "--output", JSON)
    check_output(request.plot, "--plot", PICTURE)


def contenders_of(paths: Sequence[Path], request: CompareRequest, world: World) -> list[Contender]:
    """The runs with their models. Raises ConfigError where they were not tested on the same."""
    contenders: list[Contender] = []
    for name, path in zip(names_of(paths), paths):
        trained = load_model(path, request.checkpoint, request.data, world.device, task=None)
        contenders.append(Contender(name, path, trained, identity(trained, request.split)))
    first = contenders[0]
    for other in contenders[1:]:
        ours, theirs = first.identity["tested_on"], other.identity["tested_on"]
        keys = ["task"] if ours["task"] != theirs["task"] else list(ours)
        differing = [
            f"{key}: {ours[key]} in {first.path}, {theirs[key]} in {other.path}" for key in keys if ours[key] != theirs[key]
        ]
        if differing:
            raise ConfigError(
                f"{first.path} and {other.path} cannot be compared, since they are not tested on the same:\n  "
                + "\n  ".join(differing)
                + "\nCompare runs of one task on one data set, or train one of them anew on the other's"
            )
    for place, each in enumerate(contenders):
        for other in contenders[:place]:
            if each.trained.checkpoint.resolve() == other.trained.checkpoint.resolve():
                raise ConfigError(
                    f"{each.path} and {other.path} are the same checkpoint, {each.trained.checkpoint}; name two runs"
                )
    return contenders


def names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart.

    >>> names_of([Path("runs/a/best-one"), Path("runs/b/best-one")])
    ['a/best-one', 'b/best-one']
    """
    parts = [path.absolute().parts for path in paths]
    longest = max(map(len, parts))
    for depth in range(1, longest + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"{paths[0]} is named twice; name different runs")


def table_of(run: Contender, values: Values, metrics: Sequence[str], split: Part, world: World) -> pa.Table:
    """The values: out of a file that `evaluate --per_view` left in the run directory, or measured now."""
    file = world.on_main(lambda: reusable(run, values.columns(metrics)))
    return pq.read_table(file) if file is not None else values.measured(run, metrics, split, world)


def reusable(run: Contender, names: Sequence[str]) -> str | None:
    """A Parquet file of the run directory with the metrics of this very checkpoint on these data; says what is used or passed
    over, and why."""
    passed_over = ""
    for file in sorted(run.path.glob("*.parquet")):
        found = stored_identity(file)
        if found is None or found.get("tested_on") != run.identity["tested_on"]:
            continue
        if found != run.identity:
            passed_over = f"{file} is of another checkpoint or configuration ({found.get('checkpoint')}), not used; "
        elif set(names) <= set(pq.read_schema(file).names):
            if not is_whole(file):
                passed_over = f"{file} is damaged, not used; "
                continue
            say(f"{run.name}: {run.identity['checkpoint']}, values read from {file}")
            return str(file)
    say(f"{run.name}: {run.identity['checkpoint']}, {passed_over}evaluating now")
    return None


def verdict_of(contenders: Sequence[Contender], values: Values, metrics: Sequence[str]) -> Verdict:
    by_metric = {metric: values.by_user(contenders, metric) for metric in metrics}
    runs: dict[str, dict[str, Any]] = {}
    for each in contenders:
        runs[each.name] = {"path": str(each.path), "checkpoint": each.identity["checkpoint"], "model": each.model_name}
        runs[each.name] |= {"thresholds": each.thresholds} if each.thresholds else {}
    table = {name: {metric: of_runs[name].value for metric, of_runs in by_metric.items()} for name in runs}
    lower = [metric for metric in metrics if metric.rpartition("/")[2] in LOWER_IS_BETTER]
    mcnemar = values.mcnemar(contenders, metrics)
    return Verdict(contenders[0].identity["tested_on"], runs, table, judge(by_metric, lower), mcnemar)


def tell(verdict: Verdict, request: CompareRequest) -> None:
    """Prints the comparison to stdout; writes JSON and picture where asked."""
    print(told(verdict), end="", flush=True)
    if request.output:
        write_whole(request.output, to_json(verdict))
        say(str(request.output))
    if request.plot:
        from attnrec_dist.comparison.forest_plot import forest

        forest(verdict, request.plot)
        say(str(request.plot))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
