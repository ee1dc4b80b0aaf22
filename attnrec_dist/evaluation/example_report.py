"""What is told of a ranking run: figures of each task beside two plain rows, the classification report, segments, calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attnrec_dist.data.example_format import LABEL_PREFIX
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.evaluation.classification import Predicted, higher_is_better, reliability, user_aucs, values
from attnrec_dist.evaluation.predict import Predictions, Thresholds
from attnrec_dist.plotting.figures import new_figure, save
from attnrec_dist.terminal.layout import paragraph, table

OF_SCORES = ("auc", "pr_auc", "gauc")  # what a score that is no probability can be measured by
OF_PROBABILITIES = ("log_loss",)  # and a constant: its calibration says nothing
OF_DECISIONS = ("accuracy", "precision", "recall", "f1")
LEGEND = (
    "* the best of its column. Threshold: the best F1 on validation.",
    "GAUC: mean of the users' own AUC, weighted by their examples, over users with both classes.",
    "Share of positives: predicts for everybody what training showed on average. Popularity: the candidate's training events.",
)


@dataclass(frozen=True)
class TaskResult:
    """The figures of one task."""

    rows: dict[str, dict[str, float]]  # {model, popularity, share of positives: {metric: value}}; NaN: cannot be told
    segments: dict[str, dict[str, float]]  # {"known item": {"examples", "positives", "auc", ...}}
    threshold: float
    examples: int
    positives: int
    users_with_both: int
    report: str  # scikit-learn's


@dataclass(frozen=True)
class ExampleResult:
    """What an evaluation of labelled examples found."""

    split: str
    model: str
    tasks: dict[str, TaskResult]
    notes: tuple[str, ...] = field(default_factory=tuple)


def summarise(found: Predictions, name: str, metrics: Sequence[str], thresholds: Thresholds) -> ExampleResult:
    """Every figure of these predictions; the same arguments give the same digits."""
    tasks = {task: _of_task(found, task, name, list(metrics), thresholds[task]) for task in found.logits}
    return ExampleResult(found.samples.examples.part, name, tasks)


def _of_task(found: Predictions, task: str, name: str, metrics: list[str], threshold: float) -> TaskResult:
    of = found.predicted(task, threshold)
    rows = {name: values(of, metrics), **plain_rows(found.samples.examples, task, metrics)}
    return TaskResult(
        rows=rows,
        segments=_segments(found, task, threshold),
        threshold=threshold,
        examples=len(of.labels),
        positives=int(of.labels.sum()),
        users_with_both=len(user_aucs(of)[0]),
        report=classification_report(of),
    )


def plain_rows(examples: ExampleSet, task: str, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """What a model has to beat: {popularity, share of positives: {metric: value}}; NaN: cannot be told."""
    labels, spec = examples.column(LABEL_PREFIX + task), examples.spec
    says, data = labels >= 0, examples.data
    share = spec.positives[task]["train"] / max(1, spec.known[task]["train"])
    candidates = examples.column("candidate")[says]
    popularity = np.append(data.popularity(), 0)[np.minimum(candidates, data.manifest.num_items)].astype(np.float64)
    plain = {"popularity": (popularity, OF_SCORES), "share of positives": (np.full(len(popularity), share), OF_PROBABILITIES)}
    rows = {}
    for row, (scores, told) in plain.items():
        of = Predicted(labels[says].astype(np.int64), scores, examples.column("user")[says])
        known = values(of, [metric for metric in metrics if metric in told])
        rows[row] = {metric: known.get(metric, math.nan) for metric in metrics}
    return rows


def _segments(found: Predictions, task: str, threshold: float) -> dict[str, dict[str, float]]:
    """Apart: items that training never showed, and customers of whom nothing was known."""
    says, everything = found.says(task), found.predicted(task, threshold)
    cold = found.column("candidate")[says] >= found.samples.examples.data.manifest.num_items
    empty = found.column("history")[says] == 0
    segments = {"known item": ~cold, "cold item": cold, "with history": ~empty, "no history": empty}
    result = {}
    for name, where in segments.items():
        if not where.any() or where.all():
            continue
        of = Predicted(everything.labels[where], everything.probabilities[where], everything.users[where], threshold)
        result[name] = {"examples": len(of.labels), "positives": int(of.labels.sum()), **values(of, ["auc", "log_loss", "f1"])}
    return result


def classification_report(of: Predicted) -> str:
    """scikit-learn's, of the decisions at the threshold."""
    from sklearn.metrics import classification_report as of_sklearn

    if not len(of.labels):
        return "no examples"
    text: str = of_sklearn(
        of.labels, of.decisions, labels=[0, 1], target_names=["negative", "positive"], digits=4, zero_division=0
    )
    return text.rstrip()


def report(result: ExampleResult) -> str:
    """The whole report as plain text."""
    blocks = []
    for task, each in result.tasks.items():
        share = each.positives / each.examples if each.examples else math.nan
        head = f"{result.split} part, task {task}: {each.examples:,} examples, {each.positives:,} positive ({share:.2%}), "
        blocks.append([paragraph(head + f"{each.users_with_both:,} users with both")])
        metrics = list(next(iter(each.rows.values())))
        for group in ((*OF_SCORES, "log_loss", "ece"), OF_DECISIONS):
            told = [metric for metric in metrics if metric in group]
            rows = {row: cells for row, cells in each.rows.items() if not all(math.isnan(cells[metric]) for metric in told)}
            if told and rows:
                blocks.append(_table(rows, told))
        blocks.append([f"Classification report at threshold {each.threshold:.4f}:", *each.report.splitlines()])
        if each.segments:
            blocks.append(_table(each.segments, list(next(iter(each.segments.values()))), stars=False))
    return "\n".join(
        "\n".join([*block, ""]) for block in [*blocks, [paragraph(each, "  ", "") for each in (*LEGEND, *result.notes)]]
    )


def _table(rows: dict[str, dict[str, float]], columns: list[str], stars: bool = True) -> list[str]:
    cells = [[row, *(_cell(of[column], column, rows if stars else {}) for column in columns)] for row, of in rows.items()]
    return table([["", *(f"{column} " for column in columns)], *cells]).split("\n")


def _cell(value: float, column: str, rows: dict[str, dict[str, float]]) -> str:
    if isinstance(value, int):
        return f"{value:,} "
    if math.isnan(value):
        return "- "
    told = [cells[column] for cells in rows.values() if not math.isnan(cells[column])]
    best = len(told) > 1 and value == (max(told) if higher_is_better(column) else min(told))
    return f"{value:.4f}" + ("*" if best else " ")


def to_json(result: ExampleResult) -> str:
    """The result as JSON; floats read back to the same bits, NaN is null."""
    return json.dumps(_without_nan(asdict(result)), indent=2, allow_nan=False) + "\n"


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree


def draw_reliability(found: Predictions, png: Path) -> None:
    """The reliability diagram of each task: observed against predicted share, and how many examples each bin holds.

    Raises MissingExtraError where matplotlib is not installed.
    """
    figure = new_figure(4.6 * len(found.logits), 5.2, "drawing the reliability of the probabilities")
    axes = figure.subplots(2, len(found.logits), squeeze=False, height_ratios=[3, 1], sharex=True)
    for column, task in enumerate(found.logits):
        shown = reliability(found.predicted(task))
        upper, lower = axes[0][column], axes[1][column]
        upper.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1, label="perfectly calibrated")
        upper.plot(shown.predicted, shown.observed, marker="o", color="tab:blue", label="bins of width 1/15")
        upper.set(
            title=f"{task}, {found.samples.examples.part} part", ylabel="observed share of positives", xlim=(0, 1), ylim=(0, 1)
        )
        upper.legend(frameon=False, fontsize="small")
        lower.bar(shown.predicted, shown.count, width=0.04, color="tab:gray")
        lower.set(xlabel="predicted probability", ylabel="examples", yscale="log")
        for each in (upper, lower):
            each.grid(alpha=0.3)
            each.spines[["top", "right"]].set_visible(False)
    save(figure, png)
