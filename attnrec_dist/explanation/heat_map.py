"""What a model looked at as a heat map: fields in columns; segments above, single examples below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnrec_dist.explanation.report import Case, Picture
from attnrec_dist.plotting.figures import new_figure, save
from attnrec_dist.terminal.layout import broken, places, shortened

LONGEST = 64  # places of a row's label
LONGEST_LINE = 30  # of a field's name
MOST_CASES = 24
LEAST_REACH = 0.02  # the scale's, in powers of two: differences of 1.4% and less are drawn as none
MOST_REACH = 4.0  # 16 times the even share, and a sixteenth of it
TICK_GAP = 0.4  # of the reach, at least, between two ticks of the scale
TICKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1 / 1.5, 1 / 1.2, 1 / 1.1, 1 / 1.05, 1 / 1.02, 1 / 1.01)


def heat_map(picture: Picture, png: Path) -> None:
    """Raises MissingExtraError where matplotlib is not installed. The picture has fields."""
    order = np.argsort(-next(iter(picture.segments.values()))[1], kind="stable")
    names = ["\n".join(broken(picture.field_names[place], LONGEST_LINE)) for place in order]
    above = [(f"{name} ({count:,})", weights[order]) for name, (count, weights) in picture.segments.items()]
    below = [
        (f"{shortened(case.title, LONGEST - places(case.label) - 3)} - {case.label}", weights_of(case)[order])
        for case in picture.cases[:MOST_CASES]
    ]
    inches = 0.3 * (len(above) + len(below)) + 2.8
    figure = new_figure(4.6 + max(4.5, 0.5 * len(names)), inches, "drawing a heat map")
    grid = figure.subplots(2 if below else 1, 1, squeeze=False, height_ratios=[len(above), len(below)] if below else None)
    _draw(figure, grid[0, 0], f"{shortened(picture.title, 60)}: mean weight", *zip(*above))
    if below:
        _draw(figure, grid[1, 0], "single examples", *zip(*below))
    for axes in grid[:, 0]:
        shown = names if axes is grid[-1, 0] else [""] * len(names)
        axes.set_xticks(range(len(names)), shown, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    even = f"an even share is 1/{len(names)} = {1 / len(names):.3f}"
    grid[-1, 0].set_xlabel(f"colour: weight over an even share, white at 1\n{even}; each part has a scale of its own", fontsize=8)
    save(figure, png)


def weights_of(case: Case) -> np.ndarray:
    """[K]"""
    return np.array([each.weight for each in case.fields])


def _draw(figure: Any, axes: Any, title: str, rows: Sequence[str], weights: Sequence[np.ndarray]) -> None:
    """Colours are of the logarithm of weight over even share, so that weights that hardly differ can be told apart, and a weight
    of three even shares is as far from white as one of a third."""
    table = np.stack(weights)  # [rows, K]
    ratio = np.log2(np.maximum(table * table.shape[1], 2.0**-MOST_REACH))
    reach = float(np.clip(np.abs(ratio).max(), LEAST_REACH, MOST_REACH))
    image = axes.imshow(ratio, aspect="auto", cmap="RdBu_r", vmin=-reach, vmax=reach)
    axes.set_yticks(range(len(rows)), [shortened(row, LONGEST) for row in rows], fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(table.shape):
        colour = "white" if abs(ratio[row, column]) > 0.6 * reach > LEAST_REACH else "0.2"
        axes.text(column, row, f"{table[row, column]:.3f}", ha="center", va="center", fontsize=6.5, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    ticks = [1.0]
    for tick in TICKS:
        if tick >= 2.0**-reach and np.abs(np.log2(np.array(ticks) / tick)).min() >= TICK_GAP * reach:
            ticks += [tick, 1 / tick]
    bar.set_ticks(np.log2(ticks), labels=[_times(tick) for tick in ticks], fontsize=7)


def _times(ratio: float) -> str:
    """
    >>> _times(0.125), _times(1 / 1.05), _times(1.5), _times(1.0)
    ('1/8', '1/1.05', '1.5', '1')
    """
    return f"{ratio:.3g}" if ratio >= 1 else f"1/{1 / ratio:.3g}"
