"""Pictures of a training run, drawn from its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from attnrec_dist.errors import RunDirError
from attnrec_dist.evaluation.classification import higher_is_better
from attnrec_dist.plotting.figures import new_figure, save
from attnrec_dist.storage.stored import json_lines

LABEL_GAP = 0.052  # of the axes' height between two labels of lines
SHOWN = "eval/next_basket/all/ndcg@10"  # what marks the best step, unless told otherwise


def curves(metrics_jsonl: Path, png: Path, selected: str = SHOWN, baselines: Mapping[str, float] = MappingProxyType({})) -> None:
    """Draws the training loss and the evaluation metrics over the steps into a PNG, the baselines as level lines.

    Args:
        metrics_jsonl: lines with "step" and "loss", and lines with "step" and "eval/..." values; a broken last line (the
            run was killed while it wrote) is passed over
        selected: the metric that chose the best checkpoint
        baselines: {name: value of that metric on the validation part}
    Raises:
        MissingExtraError: matplotlib is not installed
        RunDirError: there is nothing to draw yet
    """
    figure = new_figure(11, 4.2, "drawing curves")
    losses, evaluations = read_curves(metrics_jsonl)
    left, right = figure.subplots(1, 2)
    _draw_loss(left, losses)
    _draw_evaluations(right, evaluations, selected, baselines)
    last = max([*losses, *(step for points in evaluations.values() for step in points)])
    for axes in (left, right):
        axes.set_xlim(0, last * 1.04)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, png)


def read_curves(metrics_jsonl: Path) -> tuple[dict[int, float], dict[str, dict[int, float]]]:
    """({step: loss}, {"eval/...": {step: value}}) of a metrics.jsonl; of a step logged twice the later line counts.

    Raises RunDirError when no step is logged."""
    losses: dict[int, float] = {}
    evaluations: dict[str, dict[int, float]] = {}
    for _, record in json_lines(metrics_jsonl):
        step = record.get("step") if record else None
        if record is None or not isinstance(step, int):
            continue
        if isinstance(record.get("loss"), int | float):
            losses[step] = float(record["loss"])
        for key, value in record.items():
            if key.startswith("eval/") and isinstance(value, int | float):
                evaluations.setdefault(key, {})[step] = float(value)
    if not losses and not evaluations:
        raise RunDirError(f"{metrics_jsonl}: no step is logged yet; draw the curves once training has begun")
    return losses, evaluations


def smoothed(values: np.ndarray, span: int) -> np.ndarray:
    """Means of the `span` values around each one, fewer at the ends, [n] from [n]; NaN and infinities are left out.

    >>> smoothed(np.array([4.0, 2.0, 0.0, math.nan]), span=3)
    array([3., 2., 1., 0.])
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    place = np.arange(len(values))
    start, end = np.maximum(place - (span - 1) // 2, 0), np.minimum(place + span // 2 + 1, len(values))
    count = counts[end] - counts[start]
    return np.where(count > 0, (sums[end] - sums[start]) / np.maximum(count, 1), math.nan)


def best_step(points: Mapping[int, float]) -> int | None:
    """The step with the highest value, the earlier one of equals as training keeps it; None where no value is finite.

    >>> best_step({10: 0.2, 20: 0.3, 30: 0.3, 40: math.nan})
    20
    """
    finite = [step for step, value in points.items() if math.isfinite(value)]
    return max(finite, key=lambda step: (points[step], -step), default=None)


def _draw_loss(axes: Any, losses: dict[int, float]) -> None:
    axes.set_title("Training loss")
    axes.set_ylabel("loss per target (nats)")
    if not losses:
        axes.text(0.5, 0.5, "no loss logged", ha="center", va="center", transform=axes.transAxes)
        return
    steps = np.array(sorted(losses))
    values = np.array([losses[step] for step in steps])
    span = max(1, min(len(steps) // 20, 200))
    axes.plot(steps, values, color="tab:blue", alpha=0.35 if span > 1 else 1, linewidth=0.8, label="each step")
    if span > 1:
        axes.plot(steps, smoothed(values, span), color="tab:blue", linewidth=1.8, label=f"mean of {span} steps")
        axes.legend(frameon=False)


def _draw_evaluations(axes: Any, evaluations: dict[str, dict[int, float]], selected: str, baselines: Mapping[str, float]) -> None:
    axes.set_title("Validation")
    family = selected.rpartition("/")[2]  # the same metric of all protocols: one scale
    shown = {key: points for key, points in evaluations.items() if key.endswith(f"/{family}")} or evaluations
    if not shown:
        axes.text(0.5, 0.5, "no evaluation logged", ha="center", va="center", transform=axes.transAxes)
        return
    axes.set_ylabel(family)
    for key, points in sorted(shown.items(), key=lambda pair: (pair[0] != selected, pair[0])):
        steps = sorted(points)
        label = key.removeprefix("eval/").rpartition("/")[0].replace("_", " ").replace("/", ", ")
        bold = key == selected
        axes.plot(steps, [points[s] for s in steps], marker="o", markersize=3, linewidth=2 if bold else 1.2, label=label or key)
    sign = 1 if higher_is_better(selected) else -1
    best = best_step({step: sign * value for step, value in evaluations.get(selected, {}).items()})
    if best is not None:
        value = evaluations[selected][best]
        axes.axvline(best, color="black", linestyle=":", linewidth=1)
        label = f"best: {value:.4f} at step {best:,}"
        axes.plot([best], [value], marker="*", markersize=13, color="black", linestyle="none", label=label)
    for value in baselines.values():
        axes.axhline(value, color="0.45", linestyle="--", linewidth=1)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    _name_lines(axes, baselines)
    if baselines:
        axes.plot([], [], color="0.45", linestyle="--", linewidth=1, label="baselines, of the bold curve's metric")
    axes.legend(edgecolor="none", framealpha=0.85, fontsize="small")


def _name_lines(axes: Any, lines: Mapping[str, float]) -> None:
    """Each level line's name and value to the right of the axes, beside it or as near as there is room."""
    names = sorted(lines, key=lambda name: lines[name])
    heights = [lines[name] / (axes.get_ylim()[1] or 1.0) for name in names]
    for name, height, place in zip(names, heights, spread(heights, LABEL_GAP)):
        arrow = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        label = f"{name} {lines[name]:.4f}"
        look = {"va": "center", "fontsize": "small", "color": "0.25", "arrowprops": arrow}
        axes.annotate(label, (1, height), (1.03, place), xycoords="axes fraction", **look)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Places, ascending like the heights, at least `gap` apart, close ones around their mean.

    >>> [round(place, 3) for place in spread([0.1, 0.5, 0.5, 0.9], 0.1)]
    [0.1, 0.45, 0.55, 0.9]
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _middle(groups[-1]) - _middle(groups[-2]) < gap * (len(groups[-1]) + len(groups[-2])) / 2:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_middle(group) + gap * (place - (len(group) - 1) / 2) for group in groups for place in range(len(group))]


def _middle(heights: Sequence[float]) -> float:
    return sum(heights) / len(heights)
