"""What a model looked at as a heat map: fields in columns; segments above, single examples below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attnrec_dist.evaluation.explanation import Picture
from attnrec_dist.evaluation.plots import new_figure, save

LONGEST = 64  # letters of a row's label
MOST_CASES = 24


def heat_map(picture: Picture, png: Path) -> None:
    """Raises MissingExtraError where matplotlib is not installed. The picture has fields."""
    order = np.argsort(-next(iter(picture.segments.values()))[1], kind="stable")
    names = [picture.field_names[place] for place in order]
    above = {f"{name} ({count:,})": weights[order] for name, (count, weights) in picture.segments.items()}
    shown = picture.cases[:MOST_CASES]
    below = [(f"{case.title} - {case.label}", np.array([each.weight for each in case.fields])[order]) for case in shown]
    inches = 0.3 * (len(above) + len(below)) + 2.6
    figure = new_figure(4.6 + max(4.5, 0.55 * len(names)), inches, "drawing a heat map")
    grid = figure.subplots(2 if below else 1, 1, squeeze=False, height_ratios=[len(above), len(below)] if below else None)
    _draw(figure, grid[0, 0], f"{picture.title}: mean weight", list(above), np.stack(list(above.values())))
    if below:
        _draw(figure, grid[1, 0], "single examples", [name for name, _ in below], np.stack([weights for _, weights in below]))
    for axes in grid[:, 0]:
        axes.set_xticks(
            range(len(names)),
            [_cut(name) for name in names] if axes is grid[-1, 0] else [""] * len(names),
            rotation=40,
            ha="right",
            fontsize=8,
        )
    save(figure, png)


def _draw(figure: Any, axes: Any, title: str, rows: list[str], weights: np.ndarray) -> None:
    image = axes.imshow(weights, aspect="auto", cmap="Blues", vmin=0, vmax=max(1e-9, float(weights.max())))
    axes.set_yticks(range(len(rows)), [_cut(row) for row in rows], fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(weights.shape) if weights.shape[1] <= 20 else ():
        dark = weights[row, column] > 0.45 * weights.max()
        axes.text(
            column, row, f"{weights[row, column]:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "0.25"
        )
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)


def _cut(text: str) -> str:
    """At most LONGEST letters, the middle left out; a $ would begin a formula."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST // 2 + 4]} ... {text[-(LONGEST // 2 - 9) :]}"
    return short.replace("$", r"\$")
