"""What a model looked at, told: mean weights per field and segment, and single examples with words. Pure functions.

A `Case` is one example made readable; a `Picture` is all that a page, a plot and the text show of a run. K fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from attnrec_dist.explanation.attribution import Explained, Words
from attnrec_dist.explanation.faithfulness import Faithfulness
from attnrec_dist.recommendation.recommend import Recommendation
from attnrec_dist.terminal.layout import paragraph, table

EVENTS_TOLD = 5


@dataclass(frozen=True)
class Told:
    """One input with its weight: a field and what it says, or a past event and when it was."""

    name: str
    said: str
    weight: float


@dataclass(frozen=True)
class Case:
    """One example, or one item of a list, readable."""

    user: str
    item: str
    when: str
    label: str  # what happened; of an item in a list the reason for it
    probability: float
    fields: list[Told]  # in the model's order; empty where it weighs none
    events: list[Told]  # the highest weights first, at most EVENTS_TOLD
    num_events: int

    @property
    def title(self) -> str:
        return f"customer {self.user}: {self.item}"


@dataclass
class Picture:
    """All that is shown of a run."""

    title: str
    task: str
    subtitle: str
    field_names: tuple[str, ...] = ()
    segments: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)  # name -> (examples, mean weights [K])
    moved: np.ndarray | None = None  # [K] mean movement of the log odds when the field is swapped
    event_segments: dict[str, tuple[int, float]] = field(default_factory=dict)  # event type -> (events, share of all weight)
    faithfulness: list[Faithfulness] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    inputs: str = "field"  # what the weights are of


def segments(explained: Explained, num_items: int) -> dict[str, np.ndarray]:
    """Kinds of examples, {name: bool [n]}; those without any are left out. The first is all of them."""
    had, sizes = explained.had_before(), np.diff(explained.offsets)
    cold = explained.candidates >= num_items
    found = {
        "all": np.ones(len(explained), bool),
        f"{explained.task}: yes": explained.labels == 1,
        f"{explained.task}: no": explained.labels == 0,
        "item had before": had & ~cold,
        "item new to the customer": ~had & ~cold,
        "item unknown to the model": cold,
        "without history": sizes == 0,
        "with history": sizes > 0,
    }
    told = {name: of for name, of in found.items() if of.any()}
    return {name: of for name, of in told.items() if name == "all" or not of.all()}


def mean_weights(explained: Explained, num_items: int) -> dict[str, tuple[int, np.ndarray]]:
    """Of each segment its examples and the mean weight of each field, [K]."""
    if explained.fields is None:
        return {}
    return {name: (int(of.sum()), explained.fields[of].mean(0)) for name, of in segments(explained, num_items).items()}


def weights_by_event(explained: Explained, words: Words) -> dict[str, tuple[int, float]]:
    """{event type: (events, share of the absolute weight)}; empty where there is one type only or no weights of events."""
    if explained.history is None or len(words.event_types) < 2 or not len(explained.history):
        return {}
    weight = np.bincount(explained.events, weights=np.abs(explained.history), minlength=len(words.event_types))
    count = np.bincount(explained.events, minlength=len(words.event_types))
    total = weight.sum() or 1.0
    return {words.event(int(code)): (int(count[code]), float(weight[code] / total)) for code in np.flatnonzero(count)}


def cases(explained: Explained, words: Words) -> list[Case]:
    """Every example, readable."""
    users, items = words.users(explained.users), words.items(explained.candidates)
    outcome = {1.0: f"{explained.task}: yes", 0.0: f"{explained.task}: no"}
    return [
        Case(
            user=users[place],
            item=items[place],
            when=words.moment(int(explained.times[place])),
            label=outcome.get(float(explained.labels[place]), f"{explained.task}: not known"),
            probability=float(explained.probabilities[place]),
            fields=_fields_of(explained, words, place),
            events=_events_of(explained, words, place),
            num_events=int(np.diff(explained.offsets)[place]),
        )
        for place in range(len(explained))
    ]


def _fields_of(explained: Explained, words: Words, place: int) -> list[Told]:
    if explained.fields is None:
        return []
    return [
        Told(name, words.of_field(explained, place, name), float(weight))
        for name, weight in zip(explained.field_names, explained.fields[place])
    ]


def _events_of(explained: Explained, words: Words, place: int) -> list[Told]:
    if explained.history is None:
        return []
    span = explained.span(place)
    weights, ages, events = explained.history[span], explained.ages[span], explained.events[span]
    best = np.argsort(-np.abs(weights), kind="stable")[:EVENTS_TOLD]
    titles = words.items(explained.items[span][best])
    return [
        Told(
            title, ", ".join(filter(None, [words.event(int(events[token])), words.ago(int(ages[token]))])), float(weights[token])
        )
        for title, token in zip(titles, best)
    ]


@dataclass(frozen=True)
class Listed:
    """One item of one customer's list, as a mixture of experts made it."""

    user: str
    item: Recommendation
    had_before: bool


EXPERTS_SAY = {
    "sequence": "what such histories go on with",
    "copy": "what the customer had before",
    "trend": "what all customers had of late",
    "graph": "what goes with the customer's items",
}


def of_experts(listed: list[Listed], customers: int) -> Picture:
    """The experts' shares of each item's probability; the lists of the first customers are shown."""
    experts = tuple(listed[0].item.shares)
    shares = np.array([[each.item.shares[name] for name in experts] for each in listed])
    had = np.array([each.had_before for each in listed])
    parts = {"all": np.ones(len(listed), bool), "item had before": had, "item new to the customer": ~had}
    picture = Picture(title="", task="next item", subtitle="", field_names=experts, inputs="expert")
    picture.segments = {name: (int(of.sum()), shares[of].mean(0)) for name, of in parts.items() if of.any()}
    picture.notes.append(
        "Nothing is to be checked here: an item's probability is the sum of what each expert gives it, so the shares are exact."
    )
    first = list(dict.fromkeys(each.user for each in listed))[:customers]
    picture.cases = [
        Case(
            user=each.user,
            item=(each.item.title or "").strip() or each.item.item,
            when=f"place {each.item.rank} of the list",
            label=each.item.because,
            probability=each.item.score,
            fields=[Told(name, EXPERTS_SAY.get(name, ""), share) for name, share in each.item.shares.items()],
            events=[],
            num_events=0,
        )
        for each in listed
        if each.user in first
    ]
    return picture


def told(picture: Picture, most: int = 3) -> str:
    """The picture as text: fields with their weights in each segment, faithfulness, each example's highest weights."""
    sentences = [each.sentence for each in picture.faithfulness] + picture.notes
    blocks = [_segment_table(picture), [paragraph(each, "  ", "") for each in sentences]]
    for case in picture.cases:
        title = f"{case.title} ({case.when}), probability {case.probability:.3f}, {case.label}"
        lines = [paragraph(title, "    ", "")]
        for of, inputs in ((f"{picture.inputs}s", case.fields), (f"{case.num_events} past events", case.events)):
            best = sorted(inputs, key=lambda each: -abs(each.weight))[:most]
            if best:
                words = "; ".join(f"{each.name} ({each.said.strip('()')}) {each.weight:.2f}" for each in best)
                lines.append(paragraph(f"{of}: {words}", "    ", "  "))
        blocks.append(lines)
    return "\n".join("\n".join([*block, ""]) for block in blocks if block)


def _segment_table(picture: Picture) -> list[str]:
    if not picture.segments:
        return []
    names = [f"{name} ({count:,})" for name, (count, _) in picture.segments.items()]
    overall = next(iter(picture.segments.values()))[1]
    moved = [] if picture.moved is None else ["moves log odds by"]
    rows = [["mean weight of", *map(str, range(len(names))), *moved]]
    for place in np.argsort(-overall, kind="stable"):
        far = [] if picture.moved is None else [f"{picture.moved[place]:.3f}"]
        rows.append([picture.field_names[place], *(f"{weights[place]:.3f}" for _, weights in picture.segments.values()), *far])
    segments = "segments: " + "; ".join(f"{place} {name}" for place, name in enumerate(names))
    return [paragraph(segments, "  ", ""), *table(rows).split("\n")]


def chosen_to_show(explained: Explained, count: int) -> np.ndarray:
    """Some places of a random sample, half of them positive where there are enough: int64 [<= count], positives first."""
    positive, negative = np.flatnonzero(explained.labels == 1), np.flatnonzero(explained.labels != 1)
    half = min(len(positive), max(count - len(negative), math.ceil(count / 2)))
    return np.concatenate([positive[:half], negative[: count - half]])
