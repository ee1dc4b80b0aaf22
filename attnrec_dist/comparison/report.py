"""What a comparison of runs found, in a table, in sentences and as JSON. Everything here is a pure function.

A pair is told as the later run minus the earlier one, in the order in which they were named. p is corrected by Holm over all
pairs and metrics of one comparison.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from attnrec_dist.evaluation.significance import Difference, McNemar, difference, holm
from attnrec_dist.evaluation.user_metrics import Metric
from attnrec_dist.terminal.layout import paragraph, table

RESAMPLES = 2_000
LOWER = " (lower is better)"


@dataclass(frozen=True)
class Judged:
    """One pair of runs under one metric."""

    run: str  # A of the difference: the one named later
    against: str  # B
    metric: str
    difference: Difference
    p_holm: float  # p corrected for all that was compared; the same where that is one difference
    lower_is_better: bool = False

    @property
    def ahead(self) -> float:
        """By how much the run is better, whichever way the metric runs."""
        return -self.difference.difference if self.lower_is_better else self.difference.difference

    @property
    def is_clear(self) -> bool:
        """The interval leaves out zero, and the corrected p is below what the interval leaves."""
        return self.difference.is_clear and self.p_holm <= 1 - self.difference.confidence + 1e-12


@dataclass(frozen=True)
class Verdict:
    """A whole comparison."""

    tested_on: dict[str, Any]  # what all runs share: data set, split, task, ...
    runs: dict[str, dict[str, Any]]  # {run: path, checkpoint, ...}
    values: dict[str, dict[str, float]]  # {run: {metric: value}}
    judged: list[Judged]
    mcnemar: dict[str, McNemar] = field(default_factory=dict)  # {"B - A, TASK": of the classes at each run's threshold}


def judge(metrics: Mapping[str, Mapping[str, Metric]], lower: Sequence[str] = (), seed: int = 0) -> list[Judged]:
    """Every pair of runs under every metric.

    Args:
        metrics: {metric: {run: ...}}, of the same users in the same order for all runs of a metric
        lower: metrics that are better the lower they are
    """
    tests = [(metric, against, run) for metric, of_runs in metrics.items() for against, run in combinations(of_runs, 2)]
    resamples = max(RESAMPLES, 100 * len(tests))  # the smallest p, times the number of tests, stays small
    found = [
        Judged(
            run,
            against,
            metric,
            difference(metrics[metric][run], metrics[metric][against], seed, resamples),
            math.nan,
            metric in lower,
        )
        for metric, against, run in tests
    ]
    corrected = holm([each.difference.p for each in found])
    return [dataclasses.replace(each, p_holm=p) for each, p in zip(found, corrected)]


def sentence(judged: Judged, of: int = 1) -> str:
    """What a person says of one pair; `of` differences were looked at in all.

    >>> d = Difference(0.312, 0.3, 0.012, 0.002, 0.022, 0.015, views=559)
    >>> sentence(Judged("mixture", "sasrec", "ndcg@10", d, 0.015))
    'mixture beats sasrec by 0.0120 ndcg@10 (95% CI 0.0020 to 0.0220, p 0.015, 559 users).'
    >>> sentence(Judged("mixture", "sasrec", "ndcg@10", d, 0.06), of=4)
    'mixture is ahead of sasrec by 0.0120 ndcg@10, but not clearly (95% CI 0.0020 to 0.0220, p 0.06 by Holm over 4, 559 users).'
    """
    d = judged.difference
    if d.views == 0 or math.isnan(d.difference):
        return f"{judged.run} and {judged.against} have no {judged.metric} to compare."
    first, second = (judged.run, judged.against) if judged.ahead >= 0 else (judged.against, judged.run)
    low, high = (d.low, d.high) if judged.ahead >= 0 else (-d.high, -d.low)
    if judged.lower_is_better:
        low, high = -high, -low
    p = f"p {_p(judged.p_holm)}" + (f" by Holm over {of}" if of > 1 else "")
    evidence = f"({d.confidence:.0%} CI {low:.4f} to {high:.4f}, {p}, {d.views:,} users)"
    if d.difference == 0:
        return f"{judged.run} and {judged.against} are equal in {judged.metric}, {d.mean_a:.4f} {evidence}."
    by = f"by {abs(d.difference):.4f} {judged.metric}{LOWER if judged.lower_is_better else ''}"
    if judged.is_clear:
        return f"{first} beats {second} {by} {evidence}."
    return f"{first} is ahead of {second} {by}, but not clearly {evidence}."


def _p(value: float) -> str:
    return "1" if value >= 0.995 else f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def told(verdict: Verdict) -> str:
    """The whole comparison as text: the runs' values, the differences, a sentence a pair and metric."""
    return "\n".join("\n".join([*block, ""]) for block in (_values(verdict), _differences(verdict), _sentences(verdict)) if block)


def _values(verdict: Verdict) -> list[str]:
    lower = {each.metric for each in verdict.judged if each.lower_is_better}
    rows = [[str(verdict.tested_on.get("split", "")), *(f"{run} " for run in verdict.runs)]]
    for metric in dict.fromkeys(each.metric for each in verdict.judged):
        cells = {run: values[metric] for run, values in verdict.values.items()}
        finite = [value for value in cells.values() if not math.isnan(value)]
        best = (min if metric in lower else max)(finite, default=math.nan)
        rows.append([f"{metric}{LOWER if metric in lower else ''}", *(_cell(cells[run], best) for run in verdict.runs)])
    return table(rows).split("\n")


def _cell(value: float, best: float) -> str:
    return "- " if math.isnan(value) else f"{value:.4f}" + ("*" if value == best else " ")


def _differences(verdict: Verdict) -> list[str]:
    """A block a metric: the pairs of runs below one another."""
    confidence = verdict.judged[0].difference.confidence
    lines: list[str] = []
    for metric in dict.fromkeys(each.metric for each in verdict.judged):
        rows = [[metric, "difference", f"{confidence:.0%} interval", "verdict", "p", "p by Holm"]]
        for each in verdict.judged:
            d = each.difference
            if each.metric == metric:
                word = "not clear" if not each.is_clear else "better" if each.ahead > 0 else "worse"
                interval = f"{d.low:+.4f} to {d.high:+.4f}"
                rows.append([f"{each.run} - {each.against}", f"{d.difference:+.4f}", interval, word, _p(d.p), _p(each.p_holm)])
        lines += [*([""] if lines else []), *table(rows).split("\n")]
    for pair, of in verdict.mcnemar.items():
        kind = "exact" if of.exact else "chi-square"
        told = f"{of.only_a:,} right in the first alone, {of.only_b:,} in the second, p {_p(of.p)} ({kind})"
        lines.append(paragraph(f"McNemar, {pair}: {told}", "  ", ""))
    return lines


def _sentences(verdict: Verdict) -> list[str]:
    return [paragraph(sentence(each, len(verdict.judged)), "  ", "") for each in verdict.judged]


def to_json(verdict: Verdict) -> str:
    """Everything, with the sentences; NaN (nothing to compare) is null."""
    tree = {
        "tested_on": verdict.tested_on,
        "runs": verdict.runs,
        "values": verdict.values,
        "differences": [
            dataclasses.asdict(each) | {"clear": each.is_clear, "sentence": sentence(each, len(verdict.judged))}
            for each in verdict.judged
        ],
        "mcnemar": {pair: dataclasses.asdict(of) for pair, of in verdict.mcnemar.items()},
    }
    return json.dumps(_without_nan(tree), indent=2, allow_nan=False) + "\n"


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree
