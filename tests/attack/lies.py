"""Lies: a field of a JSON or YAML file changed so that the file can still be read, with and without making its checksum agree."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# keys of config.yaml that a user may edit: docs/resume.md, and what only `evaluate` reads
FREE = (
    *("checkpoint.", "tracking.", "watchdog.", "evaluation.", "optimizer.", "data.path", "data.verify", "data.workers"),
    *("data.loader_timeout", "train.max_", "train.threads", "train.timeout", "train.compile", "train.deterministic"),
    *("train.activation_checkpointing", "train.micro_batch_tokens"),
)
OWN = "checksum"  # the key under which a JSON file holds its own
SEALED = "and its own checksum agrees"


def a_lie(path: Path, draw: random.Random) -> str:
    """One field changed."""
    return _lie(path, draw)


def a_forged_lie(path: Path, draw: random.Random) -> str:
    """One field changed, and the file that holds this one's checksum made to agree."""
    said = _lie(path, draw)
    return f"{said}, {forge(path)}" if said else ""


def a_sealed_lie(path: Path, draw: random.Random) -> str:
    """One field changed, and the file's own checksum, where it has one, made to agree."""
    return _lie(path, draw, seals=True)


def _lie(path: Path, draw: random.Random, seals: bool = False) -> str:
    documents = _documents(path)
    place = draw.randrange(len(documents)) if documents else 0
    leaves = [] if not documents else list(_leaves(documents[place]))
    if path.name == "config.yaml":
        leaves = [leaf for leaf in leaves if not _free(leaf)]
    if not leaves:
        return ""
    leaf = draw.choice(leaves)
    node = documents[place]
    for key in leaf[:-1]:
        node = node[key]
    old = node[leaf[-1]]
    node[leaf[-1]] = new = _otherwise(old, draw)
    if new is _GONE:
        del node[leaf[-1]]
    sealed = seals and isinstance(node := documents[0], dict) and OWN in node
    if sealed:
        node[OWN] = checksum_of(node)
    _write(path, documents)
    said = f"{'.'.join(map(str, leaf))}: {str(old)[:40]!r} -> {'gone' if new is _GONE else repr(str(new)[:40])}"
    return f"{said}, {SEALED}" if sealed else said


def checksum_of(tree: dict[str, Any]) -> str:
    """What a JSON file holds of itself, under OWN: docs/data-format.md."""
    content = {key: value for key, value in tree.items() if key != OWN}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_GONE = object()


def _otherwise(value: Any, draw: random.Random) -> Any:
    choices: list[Any] = [None, _GONE]
    if isinstance(value, bool):
        choices = [not value]
    elif isinstance(value, int):
        choices = [value + 1, value - 1, value + 1, value * 2, 0, -value - 1, 10**12, str(value), float(value), None, _GONE]
    elif isinstance(value, float):
        choices = [value * 1.01, -value - 0.5, 0.0, float("nan"), float("inf"), 1e300, str(value)]
    elif isinstance(value, str):
        last = chr(ord(value[-1]) ^ 1) if value and ord(value[-1]) > 1 else "x"
        choices = ["", value[:-1] + last, value[:-1] + last, value + "x", "0" * len(value), "../x", value.upper(), 7, None]
    elif isinstance(value, list):
        choices = [value[:-1], value + value[-1:], value[::-1], [], None, {}]
    elif isinstance(value, dict):
        choices = [{}, None, [], value | {"more": 1}]
    choices = [each for each in choices if each is _GONE or each != value]
    return draw.choice(choices)


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree, inner ones too."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from _leaves(value, (*path, key))


def _free(leaf: tuple[Any, ...]) -> bool:
    dotted = ".".join(map(str, leaf))
    return f"{dotted}.".startswith(FREE) or dotted.startswith(FREE)


def frozen(path: Path) -> Any:
    """What of a config.yaml a checkpoint binds: all but the free keys; None where it cannot be read."""
    try:
        tree = yaml.safe_load(path.read_text())
        values = {leaf: _at(tree, leaf) for leaf in _leaves(tree) if not _free(leaf)}
        return {leaf: value for leaf, value in values.items() if not isinstance(value, dict)}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _at(tree: Any, leaf: tuple[Any, ...]) -> Any:
    for key in leaf:
        tree = tree[key]
    return tree


def _documents(path: Path) -> list[Any]:
    text = path.read_text()
    if path.suffix == ".yaml":
        return [yaml.safe_load(text)]
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]


def _write(path: Path, documents: list[Any]) -> None:
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(documents[0], sort_keys=False))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in documents))
    else:
        path.write_text(json.dumps(documents[0], indent=1 if path.name == "manifest.json" else None))


def forge(path: Path) -> str:
    """Makes the manifest or marker that holds this file's size and checksum agree with it; what was done."""
    for holder in (path.parent / "complete.json", *(each / "manifest.json" for each in list(path.parents)[:2])):
        if holder.is_file() and holder != path:
            tree = json.loads(holder.read_text())
            record = tree.get("files", {}).get(path.name) or next(
                (each for each in _records(tree) if each.get("name") == path.name), None
            )
            if record is not None:
                record |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                _write(holder, [tree])
                return f"{holder.name} agrees"
    return "no checksum of it is kept"


def _records(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "sha256" in tree:
            yield tree
        for value in tree.values():
            yield from _records(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _records(value)
