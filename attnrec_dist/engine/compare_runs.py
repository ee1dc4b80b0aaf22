"""`attnrec compare`: runs on the same test set, user by user, in one process or under a launcher."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attnrec_dist.data.views import PROTOCOLS, Part, find_views
from attnrec_dist.distributed import World
from attnrec_dist.engine.evaluate_run import TIMEOUT_SECONDS, evaluation_config
from attnrec_dist.engine.identity import identity, stored_identity
from attnrec_dist.engine.strategy import Strategy
from attnrec_dist.errors import ConfigError, DataError
from attnrec_dist.evaluation.by_user import Metric, mean_of
from attnrec_dist.evaluation.evaluate import POLICIES, evaluate, per_view
from attnrec_dist.evaluation.metrics import parse_metric
from attnrec_dist.evaluation.verdict import Verdict, judge, to_json, told
from attnrec_dist.inference.load import TrainedModel, load_model
from attnrec_dist.run_dir import write_whole

MOST_RUNS = 10  # 45 pairs


@dataclass
class Request:
    """What `attnrec compare` was asked for."""

    metric: list[str] | None = None
    split: Part = "test"
    checkpoint: str = "best"
    data: str | None = None
    output: Path | None = None
    plot: Path | None = None


@dataclass
class Contender:
    """One of the runs that are compared."""

    name: str
    path: Path
    trained: TrainedModel
    identity: dict[str, Any]

    @property
    def model_name(self) -> str:
        return str(self.trained.tree["model"]["name"])


def compare_runs(paths: Sequence[Path], request: Request) -> Verdict:
    """Compares all pairs on all processes together; rank 0 prints and writes. Raises UserError alike on all ranks."""
    if not 2 <= len(paths) <= MOST_RUNS:
        raise ConfigError(f"compare takes from two runs to {MOST_RUNS}, got {len(paths)}; type attnrec compare RUN_A RUN_B")
    strategy = Strategy("fp32", TIMEOUT_SECONDS)
    world = strategy.world
    contenders: list[Contender] = world.together(lambda: contenders_of(paths, request, world))
    metrics = world.together(lambda: wanted_metrics(request.metric, contenders[0].trained.tree))
    tables = {each.name: values_of(each, metrics, request.split, world) for each in contenders}
    verdict: Verdict = world.together(lambda: verdict_of(contenders, metrics, tables))
    world.on_main(lambda: tell(verdict, request))
    strategy.close()
    return verdict


def contenders_of(paths: Sequence[Path], request: Request, world: World) -> list[Contender]:
    """The runs with their models. Raises ConfigError where they were not tested on the same."""
    contenders: list[Contender] = []
    for name, path in zip(names_of(paths), paths):
        trained = load_model(path, request.checkpoint, request.data, world.device)
        contenders.append(Contender(name, path, trained, identity(trained, request.split)))
    first = contenders[0]
    for other in contenders[1:]:
        differing = [
            f"{key}: {first.identity['tested_on'][key]} in {first.path}, {value} in {other.path}"
            for key, value in other.identity["tested_on"].items()
            if first.identity["tested_on"].get(key) != value
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


def wanted_metrics(asked: list[str] | None, tree: dict[str, Any]) -> list[str]:
    """Columns protocol/policy/metric; by default what chose the first run's checkpoint. Raises ConfigError."""
    asked = asked or [str(tree.get("evaluation", {}).get("metric", "next_basket/all/ndcg@10"))]
    columns = [f"{protocol}/{policy}" for protocol in PROTOCOLS for policy in POLICIES]
    wanted = []
    for metric in asked:
        part, _, name = metric.rpartition("/")
        parse_metric(name)
        matching = [column for column in columns if part in ("", column) or part in column.split("/")]
        if not matching:
            close = difflib.get_close_matches(part, [*columns, *PROTOCOLS, *POLICIES], 1, 0)[0]
            raise ConfigError(f"--metric {metric}: there is no {part!r}; did you mean {close}/{name}?")
        wanted += [f"{column}/{name}" for column in matching]
    return list(dict.fromkeys(wanted))


def values_of(run: Contender, metrics: Sequence[str], split: Part, world: World) -> pa.Table:
    """The values of each view: out of a file that `evaluate --per_view` left in the run directory, or measured now."""
    names = list(dict.fromkeys(metric.rpartition("/")[2] for metric in metrics))
    file = world.on_main(lambda: reusable(run, names))
    if file is not None:
        return pq.read_table(file)
    config = evaluation_config(run.trained.tree, {"evaluation.metrics": names}, str(run.path))
    views, _ = world.together(lambda: find_views(run.trained.data, run.trained.config, split))
    if not len(views):
        raise ConfigError(f"{run.trained.config.path}: nobody with a history has a target in the {split} part")
    return per_view({run.model_name: evaluate(run.trained.model, views, config, world)}, run.trained.data)


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
            say(f"{run.name}: {run.identity['checkpoint']}, values read from {file}")
            return str(file)
    say(f"{run.name}: {run.identity['checkpoint']}, {passed_over}evaluating now")
    return None


def verdict_of(contenders: Sequence[Contender], metrics: Sequence[str], tables: dict[str, pa.Table]) -> Verdict:
    by_metric = {metric: next_item_values(contenders, metric, tables) for metric in metrics}
    runs = {
        each.name: {"path": str(each.path), "checkpoint": each.identity["checkpoint"], "model": each.model_name}
        for each in contenders
    }
    values = {name: {metric: of_runs[name].value for metric, of_runs in by_metric.items()} for name in runs}
    return Verdict(contenders[0].identity["tested_on"], runs, values, judge(by_metric))


def next_item_values(contenders: Sequence[Contender], metric: str, tables: dict[str, pa.Table]) -> dict[str, Metric]:
    """Each run's values of the views that count for all runs. Raises DataError where the views are not the same."""
    protocol, policy, name = metric.split("/")
    users, columns = {}, {}
    for each in contenders:
        table = tables[each.name]
        chosen = pc.and_(
            pc.equal(table["recommender"], each.model_name),
            pc.and_(pc.equal(table["protocol"], protocol), pc.equal(table["policy"], policy)),
        )
        rows = table.filter(chosen)
        users[each.name] = rows["user"].combine_chunks()
        columns[each.name] = rows[name].to_numpy().astype(np.float64)
    first = contenders[0].name
    for other, own in users.items():
        if not own.equals(users[first]):
            raise DataError(f"{first} and {other} were tested on other users; evaluate both anew on the same data set")
    counted = ~np.isnan(np.stack(list(columns.values()))).any(0)
    return {run: mean_of(values[counted]) for run, values in columns.items()}


def tell(verdict: Verdict, request: Request) -> None:
    """Prints the comparison to stdout; writes JSON and picture where asked."""
    print(told(verdict), end="", flush=True)
    if request.output:
        write_whole(request.output, to_json(verdict))
        say(str(request.output))
    if request.plot:
        from attnrec_dist.evaluation.forest_plot import forest

        forest(verdict, request.plot)
        say(str(request.plot))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
