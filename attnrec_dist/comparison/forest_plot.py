"""A comparison as a forest plot: a line a pair of runs and metric, the difference with its interval, zero marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnrec_dist.comparison.report import Judged, Verdict
from attnrec_dist.plotting.figures import new_figure, save
from attnrec_dist.terminal.layout import broken

CLEAR, UNCLEAR = "tab:blue", "0.55"
ROW_INCHES = 0.34
LINE_INCHES = 0.15  # of each further line of a row's name
NAME_PLACES = 52


def forest(verdict: Verdict, png: Path) -> None:
    """Draws the differences, metrics of unlike scale apart. Raises MissingExtraError where matplotlib is not installed."""
    families: dict[str, list[Judged]] = {}
    for each in verdict.judged:
        families.setdefault(each.metric.rpartition("/")[2], []).append(each)
    lines = [max(_label(each).count("\n") for each in members) for members in families.values()]
    heights = [len(members) * (ROW_INCHES + LINE_INCHES * more) + 0.85 for members, more in zip(families.values(), lines)]
    figure = new_figure(9, 1.0 + sum(heights), "drawing a comparison")
    grid = figure.subplots(len(families), 1, squeeze=False, height_ratios=heights)
    for axes, (family, members) in zip(grid[:, 0], families.items()):
        _draw(axes, family, members)
    split = verdict.tested_on.get("split", "")
    confidence = verdict.judged[0].difference.confidence
    figure.suptitle(f"Differences on the {split} part, {confidence:.0%} intervals, paired by user", fontsize="medium")
    save(figure, png)


def _draw(axes: Any, family: str, members: list[Judged]) -> None:
    places = range(len(members))[::-1]
    for place, each in zip(places, members):
        d, colour = each.difference, CLEAR if each.is_clear else UNCLEAR
        axes.plot([d.low, d.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([d.difference], [place], marker="o", markersize=6, color=colour)
    axes.axvline(0, color="black", linewidth=1, linestyle=":")
    axes.set_yticks(list(places), [_label(each) for each in members], fontsize="small")
    axes.set_ylim(-0.6, len(members) - 0.4)
    reach = 1.1 * max([1e-9, *(abs(bound) for each in members for bound in (each.difference.low, each.difference.high))])
    axes.set_xlim(-reach, reach)
    lower = members[0].lower_is_better
    better, worse = ("second is better", "first is better") if lower else ("first is better", "second is better")
    axes.set_xlabel(f"{family}, first minus second    (left: {worse};  right: {better})", fontsize="small")
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _label(each: Judged) -> str:
    where = each.metric.rpartition("/")[0].replace("next_basket", "next basket").replace("/", ", ")
    return "\n".join(broken(f"{each.run} - {each.against}{f': {where}' if where else ''}", NAME_PLACES))
