"""The ranking task on one data set: feature attention, its uniform ablation, target attention, and two baselines of scikit-learn.

    attnrec prepare configs/prepare/quickstart-ranking.yaml
    python benchmarks/ranking.py configs/quickstart-ranking.yaml [--seeds 0 1 2] [--part test] [--any.key VALUE ...]

Every model is stopped, and its threshold chosen, on validation; so are logistic regression's C and boosting's number of rounds,
which see the same declared features (no item vectors, no history). One table; each row against feature attention, paired: users
are drawn with replacement, 95% interval of the difference between the means over seeds. The metrics are of the first task.
Runs are kept under --runs and trained no further. Writes benchmarks/results/DATE-NAME.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from shared import attnrec, stamp, write_result
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import MISSING
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.evaluation.classification import Predicted, best_threshold, log_loss, values
from attnrec_dist.evaluation.example_report import classification_report
from attnrec_dist.settings import apply_overrides, parse_overrides, read_yaml, take_overrides

METRICS = ["auc", "pr_auc", "gauc", "log_loss", "ece", "accuracy", "precision", "recall", "f1"]
COMPARED = ("auc", "pr_auc", "gauc", "log_loss")
MAIN = "feature attention"
MODELS: dict[str, dict[str, Any]] = {  # what is changed in the configuration's `model` section
    MAIN: {},
    "uniform": {"attention": "uniform"},
    "target attention": {"name": "target_attention"},
}
OF_TARGET_ATTENTION = ("width", "moment", "dropout", "unseen")  # keys that both models have
INVERSE_PENALTIES = (0.01, 0.1, 1.0)  # logistic regression's C
ROUNDS, LEARNING_RATE = 500, 0.1  # boosting
RESAMPLES = 1000


def main() -> None:
    overrides, rest = take_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--models", nargs="+", choices=[*MODELS, "logistic regression", "boosting"], help="default: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--name", help="of the result (default: the configuration's)")
    arguments = parser.parse_args(rest)
    tree = apply_overrides(read_yaml(arguments.config), parse_overrides(overrides))
    data = DataSet.open(tree["data"]["path"])
    name = arguments.name or arguments.config.stem
    wanted = arguments.models or [*MODELS, "logistic regression", "boosting"]
    found: dict[str, list[Predicted]] = {}
    for row in wanted:
        if row in MODELS:
            found[row] = [trained(tree, row, seed, arguments.runs / name, data, arguments.part) for seed in arguments.seeds]
        else:
            found[row] = [baseline(row, data, arguments.part)]
        print(f"{row}: auc {[round(values(each, ['auc'])['auc'], 4) for each in found[row]]}", file=sys.stderr, flush=True)
    result = told(found, arguments.part)
    write_result(result | {"seeds": arguments.seeds, "data": data.manifest.fingerprint} | stamp(), f"{name}-{arguments.part}")


def trained(tree: dict[str, Any], row: str, seed: int, runs: Path, data: DataSet, part: str) -> Predicted:
    """The predictions of one seed; trains unless the run is there."""
    own = {**tree["model"], **MODELS[row]}
    if own["name"] != tree["model"]["name"]:
        own = {key: value for key, value in own.items() if key in ("name", *OF_TARGET_ATTENTION)}
    run_dir = runs / f"{row.replace(' ', '-')}-{seed}"
    runs.mkdir(parents=True, exist_ok=True)
    config = runs / f"{run_dir.name}.yaml"
    config.write_text(json.dumps({**tree, "model": own}))  # JSON is YAML
    attnrec("train", config, "--run_dir", run_dir, "--train.seed", seed)
    table, figures = run_dir / f"{part}.parquet", run_dir / f"{part}.json"
    attnrec("evaluate", run_dir, "--split", part, "--per_view", table, "--output", figures)
    task = data.manifest.examples.tasks[0]  # type: ignore[union-attr]
    rows = pq.read_table(table, filters=[("task", "=", task)])
    threshold = json.loads(figures.read_text())["tasks"][task]["threshold"]
    users = np.unique(rows["user"].to_numpy(), return_inverse=True)[1]
    return Predicted(rows["label"].to_numpy().astype(np.int64), rows["probability"].to_numpy(), users, threshold)


def baseline(row: str, data: DataSet, part: str) -> Predicted:
    """A model of scikit-learn on the declared features, its one setting and its threshold chosen on validation."""
    (x, y, _), (xv, yv, uv), (xt, yt, ut) = (table(data, each) for each in ("train", "validation", part))
    choices = logistic(data, x, y) if row == "logistic regression" else boosting(data, x, y)
    best, chosen = math.inf, None
    for predict in choices(xv):
        loss = log_loss(Predicted(yv, predict(xv), uv))
        if loss < best:
            best, chosen = loss, predict
    if chosen is None:
        raise SystemExit(f"{row}: no finite loss on validation")
    threshold = best_threshold(Predicted(yv, chosen(xv), uv))
    names = np.array(data.users()["id"].to_pylist())[ut]
    return Predicted(yt, chosen(xt), np.unique(names, return_inverse=True)[1], threshold)


def table(data: DataSet, part: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features float64 [n, K], labels [n], users [n]) of the examples of which the first task says something."""
    examples = ExampleSet.open(data, part)
    labels = examples.column(f"label.{examples.spec.tasks[0]}")
    says = labels >= 0
    x = np.stack([examples.column(f"field.{field.name}").astype(np.float64) for field in examples.spec.fields], axis=1)
    return x[says], labels[says].astype(np.int64), examples.column("user")[says]


Predict = Callable[[np.ndarray], np.ndarray]


def logistic(data: DataSet, x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], list[Predict]]:
    """Numbers as sign(v) log(1 + |v|), less their median, over the distance of their quartiles, cut at 5, with a column each for
    missing; codes one-hot."""
    fields = data.manifest.examples.fields  # type: ignore[union-attr]
    numeric = [place for place, field in enumerate(fields) if field.kind == "numeric"]
    codes = [place for place, field in enumerate(fields) if field.kind == "categorical"]
    logs = np.array([fields[place].log1p for place in numeric])
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(x[:, codes]) if codes else None

    def numbers(x: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.where(logs, np.sign(x[:, numeric]) * np.log1p(np.abs(x[:, numeric])), x[:, numeric])

    low, center, high = np.nanquantile(numbers(x), [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, high - low, np.maximum(np.nanstd(numbers(x), axis=0), 1e-9))

    def columns(x: np.ndarray) -> np.ndarray:
        z = np.clip((numbers(x) - center) / spread, -5, 5)
        parts = [np.nan_to_num(z), np.isnan(z).astype(float)]
        return np.hstack([*parts, encoder.transform(x[:, codes])] if encoder else parts)

    wide = columns(x)

    def fitted(c: float) -> Predict:
        model = LogisticRegression(C=c, max_iter=300).fit(wide, y)
        return lambda each: model.predict_proba(columns(each))[:, 1]

    return lambda _: [fitted(c) for c in INVERSE_PENALTIES]


def boosting(data: DataSet, x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], list[Predict]]:
    """Histogram gradient boosting; every tenth round is a choice."""
    fields = data.manifest.examples.fields  # type: ignore[union-attr]
    few = np.array([field.kind == "categorical" and (field.size or 0) <= 255 for field in fields])

    def columns(x: np.ndarray) -> np.ndarray:
        return np.where(few & (x == MISSING), np.nan, x)

    model = HistGradientBoostingClassifier(
        max_iter=ROUNDS, learning_rate=LEARNING_RATE, early_stopping=False, categorical_features=few, random_state=0
    ).fit(columns(x), y)

    def until(rounds: int) -> Predict:
        def predict(x: np.ndarray) -> np.ndarray:
            for round_, p in enumerate(model.staged_predict_proba(columns(x)), 1):
                if round_ == rounds:
                    return p[:, 1]
            raise ValueError(rounds)

        return predict

    def choices(xv: np.ndarray) -> list[Predict]:
        """The best round alone: predicting once for each choice would take minutes."""
        clipped = [np.clip(p[:, 1], 1e-15, 1 - 1e-15) for p in model.staged_predict_proba(columns(xv))][9::10]
        _, yv, _ = table(data, "validation")
        losses = [-np.mean(np.where(yv == 1, np.log(p), np.log(1 - p))) for p in clipped]
        return [until(10 * (int(np.argmin(losses)) + 1))]

    return choices


class Resampled:
    """A metric of one row's seeds over users drawn with replacement: values [resamples]; the draws are the same for all rows."""

    def __init__(self, of: Predicted, draws: np.ndarray):
        self.of, self.draws = of, draws
        self.order = np.argsort(of.probabilities, kind="stable")
        p = of.probabilities[self.order]
        self.group = np.cumsum(np.append(False, p[1:] != p[:-1]))

    def values(self, metric: str) -> np.ndarray:
        if metric == "log_loss":
            p = np.clip(np.where(self.of.labels == 1, self.of.probabilities, 1 - self.of.probabilities), 1e-15, 1)
            return self._means(-np.log(p), np.ones(len(p)))
        if metric == "gauc":
            return self._gauc()
        return np.array([getattr(self, f"_{metric}")(draw[self.of.users[self.order]]) for draw in self.draws])

    def _means(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        users = self.draws.shape[1]
        sums, totals = (np.bincount(self.of.users, each, users) for each in (values * weights, weights))
        return (self.draws @ sums) / (self.draws @ totals)

    def _gauc(self) -> np.ndarray:
        from attnrec_dist.evaluation.classification import user_aucs

        own, sizes = user_aucs(self.of)
        users = self.draws.shape[1]
        positives, every = np.bincount(self.of.users, self.of.labels, users), np.bincount(self.of.users, minlength=users)
        both = (positives > 0) & (positives < every)
        drawn = self.draws[:, both]
        return (drawn @ (own * sizes)) / (drawn @ sizes)

    def _auc(self, weights: np.ndarray) -> float:
        """Examples in the order of their probability, `weights` times each; ties count half."""
        y = self.of.labels[self.order]
        groups = self.group[-1] + 1
        positive, negative = np.bincount(self.group, weights * y, groups), np.bincount(self.group, weights * (1 - y), groups)
        below = np.cumsum(negative) - negative
        return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))

    def _pr_auc(self, weights: np.ndarray) -> float:
        y = self.of.labels[self.order]
        groups = self.group[-1] + 1
        positive, every = (np.bincount(self.group, each, groups)[::-1] for each in (weights * y, weights))
        hits, shown = np.cumsum(positive), np.cumsum(every)
        return float((positive * hits / np.maximum(shown, 1e-12)).sum() / hits[-1])


def told(found: dict[str, list[Predicted]], part: str) -> dict[str, Any]:
    """Prints the table and the comparisons; what the result keeps."""
    figures = {row: [values(each, METRICS) for each in seeds] for row, seeds in found.items()}
    print(f"\n{part} part, means over seeds\n{'':22}" + "".join(f"{metric:>11}" for metric in METRICS))
    for row, seeds in figures.items():
        print(f"{row:22}" + "".join(f"{np.mean([each[metric] for each in seeds]):11.4f}" for metric in METRICS))
    reports = {row: classification_report(seeds[0]) for row, seeds in found.items()}
    for row, text in reports.items():
        print(f"\n{row}, first seed, threshold {found[row][0].threshold:.4f}\n{text}")
    comparisons: dict[str, dict[str, dict[str, float]]] = {}
    if MAIN in found and len(found) > 1:
        users = int(found[MAIN][0].users.max()) + 1
        draws = np.random.default_rng(0).multinomial(users, np.full(users, 1 / users), RESAMPLES).astype(np.float64)
        resampled = {row: [Resampled(each, draws) for each in seeds] for row, seeds in found.items()}
        print(f"\n{MAIN} minus ..., 95% interval, {users:,} users drawn with replacement")
        for metric in COMPARED:
            means = {row: np.mean([each.values(metric) for each in seeds], axis=0) for row, seeds in resampled.items()}
            for row in found:
                if row == MAIN:
                    continue
                ours, theirs = (float(np.mean([each[metric] for each in figures[which]])) for which in (MAIN, row))
                low, high = np.quantile(means[MAIN] - means[row], [0.025, 0.975])
                comparisons.setdefault(row, {})[metric] = {"difference": ours - theirs, "low": float(low), "high": float(high)}
                print(f"  {metric:9} {row:22} {ours - theirs:+.4f} [{low:+.4f}, {high:+.4f}]")
    thresholds = {row: [each.threshold for each in seeds] for row, seeds in found.items()}
    return {"part": part, "figures": figures, "thresholds": thresholds, "comparisons": comparisons, "reports": reports}


if __name__ == "__main__":
    main()
