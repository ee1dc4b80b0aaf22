"""For the tests of prepare: files written by Python's csv module, and the same preparation in plain Python as oracle."""

from __future__ import annotations

import collections
import csv
import datetime as dt
import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.settings import build
from attnrec_dist.storage.stored import sealed

COLUMNS = ["user", "item", "time", "event", "quantity"]


def write_csv(path: Path, rows: list[dict[str, str]], delimiter: str = ",", columns: list[str] | None = None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or COLUMNS, delimiter=delimiter, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def config_of(files: list[Path], **sections: Any) -> PrepareConfig:
    tree = {
        "input": {"files": [str(file) for file in files], "max_bad_share": 1.0},
        "columns": {"user": "user", "item": "item", "timestamp": "time"},
        "output": {"dir": "unused"},
        "engine": {"memory_limit": "200MB", "threads": 1},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return build(PrepareConfig, tree, "test")


def run(files: list[Path], directory: Path, **sections: Any) -> DataSet:
    prepare(config_of(files, **sections), Path("/"), directory)
    return DataSet.open(directory)


def edit_manifest(path: Path, **changes: Any) -> None:
    """Other values in the manifest of a data set, with a checksum that fits."""
    file = path / "manifest.json"
    file.write_text(json.dumps(sealed(json.loads(file.read_text()) | changes)))


def contents(data: DataSet) -> list[tuple[str, int, int, list[tuple[Any, ...]]]]:
    """Rows in order: (user id, train_end, valid_end, [(item id, second, event, numbers...)])."""
    ids = data.users()["id"].to_pylist()
    result = []
    for rows in data.scan(3):
        events = [data.manifest.event_types[code] if data.manifest.event_types else "" for code in rows.events]
        names = data.item_ids(rows.items)
        tokens = list(zip(names, rows.times.tolist(), events, *(values.tolist() for values in rows.numeric.values())))
        for place, user in enumerate(rows.users):
            begin, end = rows.offsets[place], rows.offsets[place + 1]
            result.append((ids[user], int(rows.train_end[place]), int(rows.valid_end[place]), tokens[begin:end]))
    return result


class Empty(Exception):
    """The oracle finds nothing to train on."""


def float32(value: str) -> float | None:
    if value != value.strip():
        return None
    try:
        number = float(value)
        packed = struct.unpack("<f", struct.pack("<f", number))[0]
    except (ValueError, OverflowError):
        return None
    return packed + 0.0 if math.isfinite(packed) else None


def second_and_micro(value: str) -> int | None:
    """Microseconds of whole seconds as digits, or of ISO text in UTC."""
    if value.lstrip("-").isdigit():
        return int(value) * 1_000_000
    try:
        when = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return (when - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def oracle(rows: list[dict[str, str]], config: PrepareConfig) -> dict[str, Any]:
    """The preparation's definition, one row and one user at a time. Raises Empty."""
    reasons: collections.Counter[str] = collections.Counter({"rows read": len(rows)})
    kept, seen = [], set()
    parsed = []
    for row in rows:
        reason, event = _judge(row, config)
        if reason:
            reasons[reason] += 1
        else:
            parsed.append(event)
    for event in sorted(parsed):
        if config.filters.drop_duplicates and event[:4] in seen:
            reasons["duplicate"] += 1
            continue
        seen.add(event[:4])
        kept.append(event)
    if not kept:
        raise Empty
    types = _types(kept, config)
    split = _split_in_time if config.split.kind == "time" else _split_leave_one_out
    parts, cuts = split(kept, config)
    reasons["below min_item_events or min_user_events"] = len(kept) - sum(map(len, parts))
    if not parts[0]:
        raise Empty
    return _assembled(parts, config, types, cuts, reasons)


def _judge(row: dict[str, str], config: PrepareConfig) -> tuple[str | None, tuple[Any, ...]]:
    if not row["user"]:
        return "missing user", ()
    if not row["item"]:
        return "missing item", ()
    time = second_and_micro(row["time"])
    if time is None:
        return "unreadable timestamp", ()
    needs_number = config.columns.numeric or config.filters.where
    number = float32(row["quantity"])
    if needs_number and row["quantity"] == "" and config.columns.missing_numeric is not None:
        number = config.columns.missing_numeric
    if needs_number and number is None:
        return "bad number", ()
    event = row["event"] if config.columns.event else ""
    if config.columns.event and (not event or (config.columns.event.types and event not in config.columns.event.types)):
        return "unknown event", ()
    for bounds in config.filters.where.values():
        if (bounds.min is not None and number < bounds.min) or (bounds.max is not None and number > bounds.max):
            return "out of bounds", ()
    numbers = (number,) if config.columns.numeric else ()
    return None, (row["user"], time, row["item"], event, *numbers)


def _types(events: list[tuple[Any, ...]], config: PrepareConfig) -> list[str]:
    if config.columns.event is None:
        return []
    return config.columns.event.types or sorted({event[3] for event in events})


def _core(events: list[tuple[Any, ...]], config: PrepareConfig) -> list[tuple[Any, ...]]:
    while True:
        users = collections.Counter(event[0] for event in events)
        items = collections.Counter(event[2] for event in events)
        left = [
            event
            for event in events
            if users[event[0]] >= config.filters.min_user_events and items[event[2]] >= config.filters.min_item_events
        ]
        if len(left) == len(events):
            return left
        events = left


def _split_in_time(events, config):
    seconds = sorted(event[1] // 1_000_000 for event in events)
    seconds.append(seconds[-1] + 1)
    train, valid = config.split.train, config.split.train + config.split.validation
    cuts = seconds[round(train * len(events))], seconds[round(valid * len(events))]
    parts = [[], [], []]
    for event in events:
        parts[sum(event[1] // 1_000_000 >= cut for cut in cuts)].append(event)
    parts[0] = _core(parts[0], config)
    return parts, cuts


def _split_leave_one_out(events, config):
    parts = [[], [], []]
    by_user = collections.defaultdict(list)
    for event in _core(events, config):
        by_user[event[0]].append(event)
    for own in by_user.values():
        own.sort(key=_in_row(_types(events, config)))
        cut = len(own) - 2 if len(own) >= 3 else len(own)
        for place, event in enumerate(own):
            parts[max(0, place - cut + 1)].append(event)
    return parts, (None, None)


def _in_row(types):
    return lambda event: (event[1], event[2], types.index(event[3]) if types else 0, event[4:])


def _assembled(parts, config, types, cuts, reasons):
    counts = collections.Counter(event[2] for event in parts[0])
    names = {event[2] for part in parts for event in part}
    ranked = names if config.split.kind == "leave_one_out" else set(counts)
    items = sorted(ranked, key=lambda name: (-counts[name], name)) + sorted(names - ranked)
    by_user = collections.defaultdict(lambda: [[], [], []])
    for place, part in enumerate(parts):
        for event in part:
            by_user[event[0]][place].append(event)
    rows = []
    for user in sorted(by_user, key=lambda name: (hashlib.md5(name.encode()).hexdigest(), name)):
        own = [sorted(part, key=_in_row(types)) for part in by_user[user]]
        tokens = [(event[2], event[1] // 1_000_000, event[3], *event[4:]) for part in own for event in part]
        rows.append((user, len(own[0]), len(own[0]) + len(own[1]), tokens))
    return {
        "rows": rows,
        "items": [(name, counts[name]) for name in items],
        "num_items": len(ranked),
        "cuts": cuts,
        "reasons": +reasons,
        "types": types,
    }


def flip_byte(path: Path, place: int) -> None:
    data = np.fromfile(path, np.uint8)
    data[place] ^= 1
    data.tofile(path)
