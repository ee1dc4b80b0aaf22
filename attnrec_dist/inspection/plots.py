"""A data set as a picture: the time line with its split, histories, popularity, and what else there is to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attnrec_dist.inspection.scan import PARTS, Histogram, Inspection
from attnrec_dist.plotting.figures import new_figure, save
from attnrec_dist.terminal.layout import shortened

COLORS = ("tab:blue", "tab:orange", "tab:green")  # of the parts
LONGEST = 20  # letters of an event type
MOST_STEPS = 50  # of a histogram
BASKETS_SHOWN = 0.05  # the share of real ones from which baskets have a panel
MARKED_SHARES = (0.01, 0.1, 0.5)  # of the catalogue, on the curve of popularity
DAY = 86_400
DATES = (-62_000_000_000, 253_000_000_000)  # seconds that a calendar can show


def draw(found: Inspection, png: Path) -> None:
    """Draws the picture into a PNG. Raises MissingExtraError where matplotlib is not installed."""
    panels: list[Callable[[Any, Inspection], None]] = [_histories, _popularity]
    panels += [_baskets] if found.share_of_baskets >= BASKETS_SHOWN else []
    panels += [_event_types] if len(found.by_type) > 1 else []
    figure = new_figure(11, 7, "drawing a data set")
    grid = figure.add_gridspec(2, len(panels))
    line = figure.add_subplot(grid[0, :])
    _time_line(line, found)
    axes = [figure.add_subplot(grid[1, place]) for place in range(len(panels))]
    for each, panel in zip(axes, panels, strict=True):
        panel(each, found)
    for each in (line, *axes):
        each.grid(alpha=0.3)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    manifest = found.data.manifest
    name = shortened(found.data.path.resolve().name, 3 * LONGEST)
    figure.suptitle(f"{name}: {found.rows:,} users, {manifest.num_items:,} items, {found.events.sum():,} events")
    save(figure, png)


def _time_line(axes: Any, found: Inspection) -> None:
    """Events a bin, the parts on top of one another."""
    manifest = found.data.manifest
    is_calendar = not manifest.times_are_places and DATES[0] < found.bins[0] and found.bins[-1] < DATES[1]
    edges = found.bins.astype("datetime64[s]") if is_calendar else found.bins
    below = np.zeros(found.time_line.shape[1])
    for counts, color, name in zip(found.time_line, COLORS, PARTS, strict=True):
        if counts.any():
            axes.stairs(below + counts, edges, baseline=below, fill=True, color=color, label=f"{name}: {counts.sum():,}")
        below = below + counts
    for cut in {manifest.split.train_end, manifest.split.valid_end} - {None}:
        axes.axvline(np.datetime64(cut, "s") if is_calendar else cut, color="black", linestyle=":", linewidth=1)
    width = int(found.bins[1] - found.bins[0])
    if manifest.times_are_places:
        axes.set_title("Events by their place in the history", loc="left")
        axes.set_xlabel("place in the user's history (the first 99% of the events)")
        shown = np.searchsorted(np.cumsum(below), 0.99 * below.sum()) + 1
        axes.set_xlim(found.bins[0], found.bins[shown])
        axes.set_ylabel("events" if width == 1 else f"events in {width:,} places")
    else:
        axes.set_title("Events in time", loc="left")
        axes.set_ylabel(f"events in {_width(width)}" if width != DAY else "events a day")
        if is_calendar:
            from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

            locator = AutoDateLocator()
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        else:
            axes.set_xlabel("unix seconds")
    axes.margins(x=0.01)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_thousands)
    axes.legend(frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)


def _width(seconds: int) -> str:
    """
    >>> _width(1), _width(600), _width(21_600), _width(86_400), _width(604_800)
    ('1 second', '10 minutes', '6 hours', '1 day', '7 days')
    """
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds % size == 0:
            count = seconds // size
            return f"{count:,} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} seconds"


def _histories(axes: Any, found: Inspection) -> None:
    axes.set_title("Histories")
    axes.set_xlabel("events a user")
    axes.set_ylabel("users")
    _steps(axes, found.lengths)


def _baskets(axes: Any, found: Inspection) -> None:
    axes.set_title("Baskets")
    axes.set_xlabel("events a basket")
    axes.set_ylabel("baskets")
    _steps(axes, found.baskets)


def _steps(axes: Any, numbers: Histogram) -> None:
    """A histogram over equal bins, and the median; a long tail is told in words."""
    values, counts = numbers.sorted()
    median = numbers.quantile(0.5)
    first, last = int(values[0]), min(numbers.quantile(0.99), max(numbers.quantile(0.9), 10 * median))
    width = -(-(last - first + 1) // MOST_STEPS)
    edges = np.arange(first, last + width + 1, width)
    heights, _ = np.histogram(values, edges - 0.5, weights=counts)
    axes.stairs(heights, edges - 0.5, fill=True, color=COLORS[0])
    axes.axvline(median, color="black", linestyle=":", linewidth=1, label=f"median {median:,}")
    beyond = int(counts[values >= edges[-1]].sum())
    if beyond:
        axes.plot([], [], " ", label=f"{beyond:,} more, up to {values[-1]:,}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(_thousands)
    axes.legend(frameon=False, fontsize="small", loc="upper right")


def _popularity(axes: Any, found: Inspection) -> None:
    """Which share of the training events the most frequent items have."""
    counts = found.item_counts[: found.data.manifest.num_items]
    places = np.unique(np.geomspace(1, len(counts), 400).round().astype(np.int64))
    up_to = np.cumsum(counts)[places - 1] / counts.sum()
    axes.plot(places / len(counts) * 100, up_to * 100, color=COLORS[0], linewidth=1.8)
    for share in MARKED_SHARES:
        y = found.share_of_top(share) * 100
        axes.plot([share * 100], [y], marker="o", markersize=4, color="black")
        axes.annotate(f"{y:.0f}%", (share * 100, y), textcoords="offset points", xytext=(-6, 5), ha="right", fontsize="small")
    axes.set_title("Popularity")
    axes.set_xlabel("top items, % of the catalogue")
    axes.set_ylabel("% of the training events")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(0, 105)


def _event_types(axes: Any, found: Inspection) -> None:
    shown = np.argsort(-found.by_type.sum(1), kind="stable")[:10][::-1]
    left = np.zeros(len(shown))
    for part, color in enumerate(COLORS):
        counts = found.by_type[shown, part]
        axes.barh(np.arange(len(shown)), counts, left=left, color=color)
        left = left + counts
    axes.set_yticks(np.arange(len(shown)), [shortened(found.data.manifest.event_types[code], LONGEST) for code in shown])
    axes.set_title("Event types")
    axes.set_xlabel("events")
    axes.xaxis.set_major_formatter(_thousands)
    axes.locator_params(axis="x", nbins=3)


def _thousands(value: float, _: int) -> str:
    return f"{value:,.0f}"
