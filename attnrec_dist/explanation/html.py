"""A picture of what a model looked at as one HTML file: no script, no network, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from attnrec_dist.explanation.report import Case, Picture, Told

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 75rem; margin: 2rem auto; padding: 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 }
h2 { font-size: 1.15rem; margin-top: 2.2rem }
h3 { font-size: 1rem; margin: 0 0 .3rem }
table { border-collapse: collapse; margin: .4rem 0 }
td, th { padding: .15rem .6rem; text-align: left; vertical-align: top }
th { font-weight: 600; border-bottom: 1px solid #bbb }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.sub { color: #555; margin-top: .2rem }
.verdict { background: #f3f6fa; border-left: 4px solid #1f77b4; padding: .5rem .9rem }
.scroll { overflow-x: auto }
.case { border: 1px solid #ddd; border-radius: 6px; padding: .7rem .9rem; margin: .9rem 0 }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem }
.bar { background: #1f77b4; height: .75em; display: inline-block; min-width: 1px }
.bar.against { background: #d95f02 }
.said { color: #555 }
.note { color: #555; font-size: .92em }
"""
DARKEST = 0.85  # opacity of the highest weight's cell
BAR_REM = 9.0


def page(picture: Picture) -> str:
    """The whole file."""
    parts = [
        f"<h1>{escape(picture.title)}</h1>",
        f'<p class="sub">{escape(picture.subtitle)}</p>',
        *_faithfulness(picture),
        *_segments(picture),
        *_event_segments(picture),
        *_cases(picture),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(picture.title)}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _faithfulness(picture: Picture) -> list[str]:
    if not picture.faithfulness and not picture.notes:
        return []
    lines = ["<h2>Do the weights tell what the prediction rests on?</h2>"]
    for each in picture.faithfulness:
        lines.append(f'<p class="verdict">{escape(each.sentence)}</p>')
        if not np.isnan(each.agreement):
            lines.append(
                f'<p class="note">Within an example, weights and movements of the {escape(each.of)}s have a rank correlation of '
                f"{each.agreement:.2f} on average (1: the same order, 0: none in common).</p>"
            )
    return lines + [f'<p class="note">{escape(note)}</p>' for note in picture.notes]


def _segments(picture: Picture) -> list[str]:
    if not picture.segments:
        return []
    overall = next(iter(picture.segments.values()))[1]
    highest = max(float(weights.max()) for _, weights in picture.segments.values())
    head = [picture.inputs, *(f"{name} ({count:,})" for name, (count, _) in picture.segments.items())]
    if picture.moved is not None:
        head.append("moves the log odds by")
    rows = []
    for place in np.argsort(-overall, kind="stable"):
        cells = [f"<td>{escape(picture.field_names[place])}</td>"]
        cells += [_heat(float(weights[place]), highest) for _, weights in picture.segments.values()]
        if picture.moved is not None:
            cells.append(_heat(float(picture.moved[place]), float(np.nanmax(picture.moved)), "217,95,2"))
        rows.append(cells)
    even = f"The weights of one example add up to 1; with {len(picture.field_names)} {picture.inputs}s an even share is "
    even += f"{1 / len(picture.field_names):.3f}."
    if picture.moved is not None:
        even += " The last column tells how far the prediction moves when the field says what it says in another example."
    return [f"<h2>Mean weight of each {picture.inputs}</h2>", f'<p class="note">{even}</p>', _table(head, rows)]


def _event_segments(picture: Picture) -> list[str]:
    if not picture.event_segments:
        return []
    total = sum(count for count, _ in picture.event_segments.values())
    rows = [
        [f"<td>{escape(name)}</td>", _number(count / total), _heat(share, 1.0)]
        for name, (count, share) in picture.event_segments.items()
    ]
    return ["<h2>Past events by type</h2>", _table(["type", "share of events", "share of weight"], rows)]


def _cases(picture: Picture) -> list[str]:
    return ["<h2>Examples</h2>", *(_case(case, picture.inputs) for case in picture.cases)] if picture.cases else []


def _case(case: Case, inputs: str) -> str:
    tables = []
    if case.fields:
        tables.append(_bars(inputs, "says", sorted(case.fields, key=lambda each: -each.weight)))
    if case.events:
        more = case.num_events - len(case.events)
        note = f'<p class="note">and {more:,} more past event{"" if more == 1 else "s"} with less weight</p>' if more else ""
        tables.append(f"<div>{_bars('past event', 'when', case.events)}{note}</div>")
    return (
        f'<section class="case"><h3>{escape(case.title)}</h3><p class="sub">{escape(case.when)}; predicted '
        f"{case.probability:.1%}; {escape(case.label)}</p>"
        f'<div class="pair">{"".join(tables)}</div></section>'
    )


def _bars(name: str, said: str, inputs: Sequence[Told]) -> str:
    longest = max(abs(each.weight) for each in inputs) or 1.0
    rows = []
    for each in inputs:
        against = " against" if each.weight < 0 else ""
        bar = f'<span class="bar{against}" style="width:{BAR_REM * abs(each.weight) / longest:.2f}rem"></span>'
        rows.append(
            [
                f"<td>{escape(each.name)}</td>",
                f'<td class="said">{escape(each.said)}</td>',
                _number(each.weight),
                f"<td>{bar}</td>",
            ]
        )
    return _table([name, said, "weight", ""], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first = "".join(f'<th scope="col"{_numeric(name)}>{escape(name)}</th>' for name in head)
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table><tr>{first}</tr>\n{body}</table></div>'


def _numeric(name: str) -> str:
    return "" if name in ("field", "says", "past event", "when", "type", "", "expert") else ' class="n"'


def _number(value: float) -> str:
    return f'<td class="n">{value:.3f}</td>'


def _heat(value: float, highest: float, colour: str = "31,119,180") -> str:
    """A cell that is the darker the higher its value; dark ones get white letters."""
    if np.isnan(value):
        return '<td class="n">-</td>'
    depth = DARKEST * max(0.0, value) / highest if highest > 0 else 0.0
    letters = ";color:#fff" if depth > 0.55 else ""
    return f'<td class="n" style="background:rgba({colour},{depth:.2f}){letters}">{value:.3f}</td>'
