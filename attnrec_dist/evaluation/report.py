"""From ranks to the table that is printed and the JSON that is kept. Everything here is a pure function.

A *column* is named protocol/policy/metric, as in metrics.jsonl: "next_basket/all/ndcg@10". A *row* is a recommender, the
model or a baseline. `view_values` turns ranks into values per view, `summarise` into means and counts, `against_the_best`
into comparisons; a `Result` holds what is told of them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attnrec_dist.evaluation.metrics import parse_metric
from attnrec_dist.evaluation.results import Comparison, Group, Result
from attnrec_dist.evaluation.significance import Difference
from attnrec_dist.terminal.layout import columns, paragraph, places, table

if TYPE_CHECKING:
    from rich.text import Text


LEGEND = (
    "* the best of its column. Means over customers with a relevant item; recall = hits / relevant items.",
    "next basket: what came first after the cut in a customer's history; whole period: all that came in this part.",
    "new items: what the customer already had among events of the predicted types is neither ranked nor relevant.",
    "of them cold: items without a training event, which no recommender knows and all miss.",
    "A target's rank is the number of items not scored below it: ties and NaN count against a recommender.",
)
BASELINES = {
    "popularity": "the most frequent items",
    "trend": "the most frequent of late",
    "own_frequency": "what the customer had before",
    "own_trend": "own_frequency and trend",
    "item_graph": "what goes with the customer's items",
}
TITLES = {"next_basket": "next basket", "period": "whole period", "all": "all items", "new": "new items"}


def report(result: Result, metrics: Sequence[str]) -> str:
    """The whole report as plain text that fits the terminal; `metrics` are those shown, the last is compared."""
    blocks = [_table(result.split, result.customers, metrics)]
    if result.newcomers is not None and any(result.newcomers.views.values()):
        newcomers = _table(result.split, _all_items(result.newcomers), metrics)
        blocks.append(["Apart, customers without history, whom the model cannot be asked about:", *newcomers])
    blocks.append(_compared(result, metrics[-1]))
    if result.coverage:
        shown = ", ".join(f"{row} {share:.3f}" for row, share in result.coverage.items())
        blocks.append([paragraph(f"Coverage, the share of the catalogue that anybody is shown: {shown}")])
    baselines = "; ".join(f"{row}: {told}" for row, told in BASELINES.items() if row in result.customers.values)
    blocks.append([paragraph(each, "  ", "") for each in (*LEGEND, *([baselines] if baselines else []), *result.notes)])
    return "\n".join("\n".join([*block, ""]) for block in blocks if block)


def styled(text: str, model: str) -> Text:
    """The same text for a terminal (print it with soft_wrap): the model's row bold, best values green."""
    from rich.text import Text

    styled_text = Text(text)
    styled_text.highlight_regex(rf"(?m)^{re.escape(model)} .*\d.*$", "bold")
    styled_text.highlight_regex(r"\d\.\d{4}\*", "green")
    return styled_text


def sentence(a: str, b: str, difference: Difference) -> str:
    """One line on which of two recommenders is better, and how surely.

    >>> sentence("A", "B", Difference(0.31, 0.3, 0.01, 0.002, 0.018, 0.012, views=559))
    'A 0.3100, B 0.3000: difference +0.0100 (95% CI +0.0020 to +0.0180, p 0.012, 559 views); A is better'
    """
    d = difference
    if d.views == 0:
        return f"{a} and {b} have no view in common to compare"
    verdict = "no clear difference" if not d.is_clear else f"{a if d.difference > 0 else b} is better"
    interval = f"{d.confidence:.0%} CI {d.low:+.4f} to {d.high:+.4f}, p {d.p:.2g}, {d.views:,} views"
    return f"{a} {d.mean_a:.4f}, {b} {d.mean_b:.4f}: difference {d.difference:+.4f} ({interval}); {verdict}"


def _table(split: str, group: Group, metrics: Sequence[str]) -> list[str]:
    """All protocols and policies beside one another; where that is too wide, one protocol, or one policy, below the other."""
    parts = list(group.views)
    protocols = list(dict.fromkeys(part.split("/")[0] for part in parts))
    by_protocol = [[part for part in parts if part.split("/")[0] == protocol] for protocol in protocols]
    for layout in ([parts], by_protocol, [[part] for part in parts]):
        tables = [_of_parts(split, group, metrics, some) for some in layout if some]
        if max([0, *(places(line) for lines in tables for line in lines)]) <= columns():
            break
    return [line for place, lines in enumerate(tables) for line in (["", *lines] if place else lines)]


def _of_parts(split: str, group: Group, metrics: Sequence[str], parts: list[str]) -> list[str]:
    protocols = {part.split("/")[0]: [p.split("/")[1] for p in parts if p.startswith(part.split("/")[0] + "/")] for part in parts}
    stems, lengths = zip(*(parse_metric(metric) for metric in metrics), strict=True)
    labels = stems if len(set(lengths)) == 1 else tuple(metrics)
    title = f"{split}, @{lengths[0]}" if len(set(lengths)) == 1 else split
    counts = {"customers": group.views, "relevant items": group.relevant, "of them cold": group.cold}
    first = max(map(len, [title, *group.values, *counts])) + 1
    least = max(len(TITLES.get(policy, policy)) for each in protocols.values() for policy in each) + 4
    least = max(least, *(len(f"{of_part[part]:,}") + 2 for of_part in counts.values() for part in parts))
    width = max(8, *(len(label) + 2 for label in labels), -(-least // len(metrics)))
    span = width * len(metrics)

    lines = [
        title.ljust(first) + "".join(_over(TITLES.get(p, p), span * len(policies)) for p, policies in protocols.items()),
        " " * first + "".join(_over(TITLES.get(policy, policy), span) for each in protocols.values() for policy in each),
        " " * first + "".join(f"{label} ".rjust(width) for _ in parts for label in labels),
    ]
    shown = [f"{part}/{metric}" for part in parts for metric in metrics]
    best = {column: max(_numbers(cells[column] for cells in group.values.values()), default=math.nan) for column in shown}
    for row, cells in group.values.items():
        lines.append(row.ljust(first) + "".join(_cell(cells[column], best[column]).rjust(width) for column in shown))
    for name, of_part in counts.items():
        lines.append(name.ljust(first) + "".join(f"{of_part[part]:,} ".rjust(span) for part in parts))
    return [line.rstrip() for line in lines]


def _over(title: str, span: int) -> str:
    """A title over several columns, with a line to show which."""
    return f"  {title} ".ljust(span - 1, "-") + " "


def _cell(value: float, best: float) -> str:
    return "- " if math.isnan(value) else f"{value:.4f}" + ("*" if value == best else " ")


def _numbers(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _all_items(group: Group) -> Group:
    """Without the policy `new`, which says nothing of customers who have no history."""
    return dataclasses.replace(group, views={part: count for part, count in group.views.items() if part.endswith("/all")})


def _compared(result: Result, metric: str) -> list[str]:
    """The model minus the best baseline, a line a column of one metric."""
    told = {column: each for column, each in result.comparisons.items() if column.endswith(f"/{metric}")}
    if not told:
        return []
    confidence = next(iter(told.values())).difference.confidence
    rows = [["", "difference", f"{confidence:.0%} interval", "best baseline", "verdict"]]
    for column, each in told.items():
        d = each.difference
        verdict = "not clear" if not d.is_clear else "better" if d.difference > 0 else "worse"
        interval = f"{d.low:+.4f} to {d.high:+.4f}"
        where = ", ".join(TITLES.get(part, part) for part in column.split("/")[:-1]).removesuffix(" items")
        rows.append([where, f"{d.difference:+.4f}", interval, each.baseline, verdict])
    return [
        paragraph(f"{result.model} minus the best baseline of each column, {metric}, compared customer by customer:"),
        *table(rows).split("\n"),
    ]


def to_json(result: Result) -> str:
    """The result as JSON; floats read back to the same bits, NaN (nothing to average) is null."""
    return json.dumps(_without_nan(dataclasses.asdict(result)), indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> Result:
    """The inverse of `to_json`."""
    tree = json.loads(text)
    return Result(
        split=tree["split"],
        model=tree["model"],
        customers=_group(tree["customers"]),
        newcomers=None if tree["newcomers"] is None else _group(tree["newcomers"]),
        comparisons={
            column: Comparison(each["baseline"], Difference(**{key: _or_nan(value) for key, value in each["difference"].items()}))
            for column, each in tree["comparisons"].items()
        },
        coverage=tree["coverage"],
        notes=tuple(tree["notes"]),
    )


def _group(tree: dict[str, Any]) -> Group:
    values = {row: {column: _or_nan(value) for column, value in cells.items()} for row, cells in tree["values"].items()}
    return Group(values, tree["views"], tree["relevant"], tree["cold"])


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    return None if isinstance(tree, float) and math.isnan(tree) else tree


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value
