"""Labels and features in plain Python, one example and one event at a time, from the rows of the data set."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
from prepare_helpers import contents

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import EXAMPLE_PARTS
from attnrec_dist.data.examples import ExampleSet

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
STAND_IN = -1.0
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


@dataclass(frozen=True)
class Event:
    user: str
    item: str
    second: int
    kind: str
    part: int
    number: float | None  # None: missing


def events_of(data: DataSet) -> list[Event]:
    found = []
    for user, train_end, valid_end, tokens in contents(data):
        for place, (item, second, kind, number) in enumerate(tokens):
            part = (place >= train_end) + (place >= valid_end)
            found.append(Event(user, item, second, kind, part, None if number == STAND_IN else number))
    return found


def length(duration: str | None) -> float:
    return math.inf if duration is None else int(duration[:-1]) * UNITS[duration[-1]]


def earlier(events, asked, user, item, second, of=None):
    """The events that a feature may look at."""
    same = {
        "user": lambda event: event.user == user,
        "item": lambda event: event.item == item,
        "user_item": lambda event: (event.user, event.item) == (user, item),
    }[of or asked["of"]]
    kinds, reach = asked.get("events"), length(asked.get("within"))
    return [
        event
        for event in events
        if same(event) and event.second < second and event.second >= second - reach and (kinds is None or event.kind in kinds)
    ]


def mean(numbers):
    numbers = [round(number * 65536) / 65536 for number in numbers if number is not None]
    return sum(numbers) / len(numbers) if numbers else None


def feature(events, asked, example, own, files, sampled):
    """Text, number or None."""
    user, item, second = example
    kind = asked["kind"]
    if kind == "count":
        return len(earlier(events, asked, *example))
    if kind == "recency":
        seconds = [event.second for event in earlier(events, asked, *example)]
        return (second - max(seconds)) / 86_400 if seconds else None
    if kind == "mean":
        return mean([event.number for event in earlier(events, asked, *example)])
    if kind == "ratio":
        usual = mean([event.number for event in earlier(events, asked, *example, of="user")])
        value = own.get(example)
        if sampled:
            before = [
                event for event in earlier(events, {**asked, "within": None}, *example, of="item") if event.number is not None
            ]
            last = max((event.second for event in before), default=None)
            value = max((event.number for event in before if event.second == last), default=None)
        return value / usual if value is not None and usual else None
    if kind == "hour":
        return str(second % 86_400 // 3600)
    if kind == "weekday":
        return DAYS[(second // 86_400 + 3) % 7]
    if kind == "column":
        return own[example]
    value = files[kind].get(user if kind == "user" else item, {}).get(asked["column"])
    if value and asked.get("pattern"):
        hit = re.search(asked["pattern"], value)
        value = (hit.group(1) if re.compile(asked["pattern"]).groups else hit.group(0)) if hit else None
    return float(value) if value and asked.get("type") == "numeric" else value or None


def own_numbers(events, kinds):
    """{(user, item, second): the first such event's number}; rows are in the order in which the first is the first."""
    found = {}
    for event in events:
        if kinds is None or event.kind in kinds:
            found.setdefault((event.user, event.item, event.second), event.number)
    return found


def parts_of(events, kinds):
    return {(event.user, event.item, event.second): event.part for event in events if kinds is None or event.kind in kinds}


def task_label(events, task, example, part, ends, own):
    user, item, second = example
    if task["kind"] == "column":
        number = own.get(example)
        return -1 if number is None else int(number >= task["at_least"])
    reach = length(task["within"])
    if second + reach >= ends[part]:
        return -1
    return int(
        any(
            (event.user, event.item) == (user, item) and event.kind in task["events"] and second < event.second <= second + reach
            for event in events
        )
    )


def drawn(events, label):
    """{positive: [items]}: the same hash, the ladder walked step by step."""
    taken = parts_of(events, label.get("events"))
    exponent = label.get("exponent", 0.75)
    order = {
        user: place for place, user in enumerate(sorted({e.user for e in events}, key=lambda u: hashlib.md5(u.encode()).digest()))
    }
    counts: dict[str, int] = {}
    ladder, top = [], 0
    for _, item, second in sorted(
        (each for each, part in taken.items() if part == 0), key=lambda each: (each[2], each[1].encode(), order[each[0]])
    ):
        j = counts[item] = counts.get(item, 0) + 1
        step = math.floor(j**exponent * 2**24) - (math.floor((j - 1) ** exponent * 2**24) if j > 1 else 0)
        top += step
        if step:
            ladder.append((second, top, item))
    result, new = {}, 0
    for user, item, second in taken:
        below = [each for each in ladder if each[0] < second]
        if item not in {each[2] for each in below}:
            new += 1
            continue
        result[user, item, second] = []
        for slot in range(label.get("negatives", 4)):
            for attempt in range(32):
                key = "\x1f".join(map(str, [label.get("seed", 0), user, item, second, slot, attempt]))
                share = (int.from_bytes(hashlib.md5(key.encode()).digest()[8:], "little") >> 12) / 2**52
                point = min(math.floor(share * below[-1][1]), below[-1][1] - 1)
                other = next(each[2] for each in below if point < each[1])
                if (user, other, second) not in taken:
                    result[user, item, second].append(other)
                    break
    return result, new


def expected(data: DataSet, label: dict, features: dict, files: dict, ends: tuple) -> dict[str, list[tuple]]:
    """part -> sorted [(user, second, item, history, labels..., values...)], as `stored` gives it."""
    events = events_of(data)
    sampled = label["kind"] == "sampled"
    kinds = label.get("events") if sampled else label.get("on")
    own, part_of = own_numbers(events, kinds), parts_of(events, kinds)
    cases = []
    if sampled:
        for (user, item, second), others in drawn(events, label)[0].items():
            cases.append(((user, item, second), part_of[user, item, second], 1))
            cases += [((user, other, second), part_of[user, item, second], 0) for other in others]
    else:
        for example, part in part_of.items():
            value = task_label(events, label, example, part, ends, own)
            cases += [(example, part, value)] if value >= 0 else []
    rows: dict[str, list[tuple]] = {part: [] for part in EXAMPLE_PARTS}
    for example, part, value in cases:
        user, item, second = example
        known = own if not sampled or value == 1 else {}
        labels = [value, *(task_label(events, task, example, part, ends, known) for task in label.get("tasks", {}).values())]
        history = sum(event.user == user and event.second < second for event in events)
        values = [feature(events, asked, example, own, files, sampled) for asked in features.values()]
        shown = [float(np.float32(v)) if isinstance(v, (int, float)) else v for v in values]
        rows[EXAMPLE_PARTS[part]].append((user, second, item, history, *labels, *shown))
    return {part: sorted(each, key=repr) for part, each in rows.items()}


def stored(data: DataSet) -> dict[str, list[tuple]]:
    """What the shards hold, codes turned into words; a code of 0 as "UNSEEN"."""
    users, items = data.users()["id"].to_pylist(), data.items()["id"].to_pylist()
    spec = data.manifest.examples
    words = {(row["field"], row["code"]): row["value"] for row in data.vocabulary().to_pylist()}
    rows = {}
    for part in EXAMPLE_PARTS:
        examples = ExampleSet.open(data, part)
        found = examples.take(np.arange(len(examples)))
        values = []
        for field in spec.fields:
            column = found.fields[field.name].tolist()
            if field.kind == "categorical":
                special = {0: "UNSEEN", 1: None}
                values.append([special[code] if code in special else words[field.name, code] for code in column])
            else:
                values.append([None if math.isnan(value) else value for value in column])
        ids = [
            [users[u] for u in found.users],
            found.times.tolist(),
            [items[i] for i in found.candidates],
            found.history.tolist(),
        ]
        labels = [found.labels[task].tolist() for task in spec.tasks]
        rows[part] = sorted(zip(*ids, *labels, *values), key=repr)
    return rows
