"""Figures without a display: made empty, written as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnrec_dist.errors import MissingExtraError
from attnrec_dist.plotting.lettering import letter
from attnrec_dist.storage.outputs import replacing

MOST_PIXELS = 30_000  # of a side: Agg draws up to 65,535


def new_figure(width: float, height: float, purpose: str) -> Any:
    """An empty figure of so many inches. Raises MissingExtraError, which names the purpose."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", purpose) from None
    dpi = min(120, MOST_PIXELS / max(width, height))
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")  # no pyplot: no global state, no display
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, png: Path) -> None:
    """Written aside and renamed, so that a viewer never sees half a picture."""
    letter(figure)
    with replacing(png) as file:
        figure.savefig(file, format="png")
