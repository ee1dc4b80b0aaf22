"""A data set as a table: what `attnrec inspect` prints. Pure text from the figures that inspection/scan.py counted."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from attnrec_dist.data.example_format import FIRST_VALUE
from attnrec_dist.data.manifest import Manifest
from attnrec_dist.inspection.scan import PARTS, Histogram, Inspection
from attnrec_dist.terminal.layout import named, paragraph, shortened, table

QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
TOP_SHARES = (0.001, 0.01, 0.1, 0.5)
TITLE_WIDTH = 40


def report(found: Inspection) -> str:
    """The whole table, ending in a line feed."""
    manifest = found.data.manifest
    blocks = [
        f"{found.data.path}  fingerprint {manifest.fingerprint[:16]}",
        _parts(found),
        _distributions(found),
        _facts(found),
        *([_event_types(found)] if len(found.by_type) else []),
        _top(found),
        *([_examples(found), _fields(found)] if found.examples else []),
        _checks(found),
    ]
    return "\n\n".join(blocks) + "\n"


def when(second: int, manifest: Manifest) -> str:
    """UTC, to the minute; of a log that numbers its days as it does."""
    try:
        return manifest.own_number(second) or datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"second {second}"


def span(seconds: int) -> str:
    """
    >>> span(90), span(3 * 3600), span(86_400 * 20)
    ('1 minutes', '3 hours', '20.0 days')
    """
    if seconds < 2 * 3600:
        return f"{seconds // 60} minutes"
    return f"{seconds // 3600} hours" if seconds < 2 * 86_400 else f"{seconds / 86_400:.1f} days"


def _parts(found: Inspection) -> str:
    """The split on its time line."""
    manifest = found.data.manifest
    total = found.events.sum()
    rows = [["part", "events", "share", "users", "on cold items"]]
    for place, name in enumerate(PARTS):
        count = int(found.events[place])
        rows.append([name, f"{count:,}", f"{count / total:.1%}", f"{found.users[place]:,}", f"{found.cold_events[place]:,}"])
    rows.append(["all", f"{total:,}", "", f"{found.rows:,}", f"{found.cold_events.sum():,}"])
    if manifest.split.train_end is None or manifest.split.valid_end is None:
        last = manifest.split.last
        which = "last is test, the one" if last == 1 else f"last {last} are test, the {last}"
        what = "baskets" if manifest.split.kind == "leave_last_basket" else "events"
        said = f"split {manifest.split.kind}: of a user's {what} the {which} before validation"
        text = f"{table(rows)}\n" + paragraph(said, "  ", "")
        if manifest.times_are_places:
            return text + f"\nno times in the log: an {manifest.place_word}'s place in its user's history stands for one"
        return text + f"\ntimes from {when(manifest.start_time, manifest)} to {when(manifest.end_time, manifest)}"
    edges = [manifest.start_time, manifest.split.train_end, manifest.split.valid_end, manifest.end_time + 1]
    for place, row in enumerate(rows[1:4]):
        row += [when(edges[place], manifest), span(max(0, edges[place + 1] - edges[place]))]
    rows[0] += ["from" if manifest.time_unit == "day" else "from (UTC)", "lasts"]
    rows[4] += [f"to {when(manifest.end_time, manifest)}", span(edges[3] - edges[0])]
    return table(rows)


def _distributions(found: Inspection) -> str:
    rows = [["", "mean", "min", "10%", "25%", "median", "75%", "90%", "99%", "max"], _row("events a user", found.lengths)]
    if found.events[1:].any():
        rows.append(_row("training events a user", found.train_lengths))
    if found.has_baskets:
        rows += [_row("baskets a user", found.baskets_a_user), _row("events a basket", found.baskets)]
    return table(rows)


def _row(name: str, numbers: Histogram) -> list[str]:
    return [name, f"{numbers.mean:,.1f}", *(f"{numbers.quantile(share):,}" for share in QUANTILES)]


def _facts(found: Inspection) -> str:
    manifest = found.data.manifest
    total = int(found.events.sum())
    rare = int((found.item_counts[: manifest.num_items] < 5).sum())
    inside = ", in the catalogue all the same" if found.cold[: manifest.num_items].any() else ""
    cold = f"{found.cold.sum():,} cold (without a training event{inside})"
    popular = [f"{100 * share:.3g}% have {found.share_of_top(share):.1%}" for share in TOP_SHARES]
    lines = [
        ["items", f"{manifest.num_items:,} in the catalogue, {rare:,} of them with fewer than 5 training events; {cold}"],
        ["popular items", f"of all training events, the most frequent {', '.join(popular)}"],
        ["cold users", f"{found.users_without_train_events:,} without training events"],
        ["repeats", f"{found.repeats / total:.1%} of the events are of an item that the user had before"],
    ]
    if found.has_baskets:
        lines.append(["baskets", f"{found.baskets.total:,}, {found.share_of_baskets:.1%} of them with several events"])
    else:
        lines.append(["baskets", "none: no user has two events at one time"])
    return named([(name, text) for name, text in lines])


def _event_types(found: Inspection) -> str:
    rows = [["event", *PARTS, "share"]]
    for name, counts in zip(found.data.manifest.event_types, found.by_type, strict=True):
        rows.append([name, *(f"{count:,}" for count in counts), f"{counts.sum() / found.events.sum():.1%}"])
    return table(rows)


def _top(found: Inspection) -> str:
    total = max(1, int(found.events[0]))
    rows = [["most frequent", "training events", "share"]]
    for name, count in zip(found.top, found.item_counts):
        rows.append([shortened(name, TITLE_WIDTH), f"{count:,}", f"{count / total:.2%}"])
    return table(rows)


def _examples(found: Inspection) -> str:
    """How many there are, and of each task how many are labelled 1, of those that it says something of."""
    spec = found.data.manifest.examples
    if spec is None:
        return ""
    rows = [["examples", *spec.counts]]
    rows.append(["all", *(f"{count:,}" for count in spec.counts.values())])
    for task in spec.tasks:
        shares = [(spec.positives[task][part], spec.known[task][part]) for part in spec.counts]
        rows.append([f"{task}: positive", *(f"{hits:,} ({hits / max(1, known):.2%})" for hits, known in shares)])
        if any(known < spec.counts[part] for part, (_, known) in zip(spec.counts, shares)):
            rows.append(
                [f"{task}: says nothing of", *(f"{spec.counts[part] - known:,}" for part, (_, known) in zip(spec.counts, shares))]
            )
    parts = [found.examples[part] for part in spec.counts]
    rows.append(["users", *(f"{part.users:,}" for part in parts)])
    rows.append(["events of history, mean", *(f"{part.history:,.1f}" for part in parts)])
    rows.append(["without history", *(f"{part.without_history:,}" for part in parts)])
    rows.append(["candidate is a cold item", *(f"{part.cold:,}" for part in parts)])
    left_out = [f"{count:,} {reason}" for reason, count in spec.left_out.items() if count]
    return table(rows) + (f"\n{paragraph('left out: ' + ', '.join(left_out), '  ', '')}" if left_out else "")


def _fields(found: Inspection) -> str:
    """Each field, and the share of examples in which it is missing, or its value is one that training has not."""
    spec = found.data.manifest.examples
    if spec is None:
        return ""
    rows = [["field", "kind", "values", "typical", *(f"missing, {part}" for part in spec.counts), "unseen, test"]]
    for field in spec.fields:
        missing = [f"{field.missing[part] / max(1, count):.1%}" for part, count in spec.counts.items()]
        unseen = f"{field.unseen['test'] / max(1, spec.counts['test']):.1%}" if field.unseen else ""
        values = f"{field.size - FIRST_VALUE:,}" if field.size is not None else ""
        mean = "" if field.mean is None else f"{typical(field.mean) if field.log1p else field.mean:.4g}"
        rows.append([field.name, field.kind, values, mean, *missing, unseen])
    return table(rows) + "\ntypical: the mean of sign(v) log(1 + |v|), taken back"


def typical(mean: float) -> float:
    """The value whose sign(v) log(1 + |v|) is `mean`."""
    return math.copysign(math.expm1(abs(mean)), mean)


def _checks(found: Inspection) -> str:
    files = [record for _, record in found.data.files()]
    size = f"{sum(file.bytes for file in files) / 1e6:,.1f} MB"
    return named(
        [
            ("checked", f"{len(files)} files, {size}: sizes and checksums (sha256) as the manifest says"),
            ("", f"{found.rows:,} rows: times in order, parts within their cuts, items and event types known"),
            ("", "counts of parts, users and items as stored"),
        ]
    )
