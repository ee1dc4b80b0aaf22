"""Changes to the YAML and to the command line of prepare."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile import _block_doubled, _cut, _flip, _with_junk, _without_block
from logs import Attempt, Expected
from neutral import EVERY, Change
from odd import ODD_OPTIONS, ODD_VALUES, ODD_YAML

TEXTS: dict[str, tuple[Change, tuple[str, ...]]] = {}  # as NEUTRAL


def text_change(change: Change) -> Change:
    def expecting(attempt: Attempt, draw: random.Random) -> None:
        attempt.expect(Expected.COUNTED)
        change(attempt, draw)

    TEXTS[change.__name__.replace("_", " ")] = (expecting, EVERY)
    return change


def _nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything below the root."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from _nodes(value, (*path, key))


def _parent(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


@text_change
def a_key_misspelt(attempt: Attempt, draw: random.Random) -> None:
    keys = [path for path in _nodes(attempt.config) if isinstance(path[-1], str) and not {"rename", "features"} & set(path[:-1])]
    path = draw.choice(keys)
    node = _parent(attempt.config, path)
    key = path[-1]
    place = draw.randrange(len(key))
    other = draw.choice(
        [
            key[:place] + key[place + 1 :],
            key + "s",
            key.upper(),
            key.replace("_", "-") + "_",
            key[:place] + "x" + key[place:],
            f" {key}",
            "",
        ]
    )
    node[other] = node.pop(key)
    attempt.said.append(f"{'.'.join(map(str, path))} -> {other!r}")
    attempt.expect(Expected.REFUSED)


@text_change
def a_value_of_another_kind(attempt: Attempt, draw: random.Random) -> None:
    path = draw.choice(list(_nodes(attempt.config)))
    value = draw.choice(ODD_VALUES)
    _parent(attempt.config, path)[path[-1]] = value
    attempt.said.append(f"{'.'.join(map(str, path))} = {str(value)[:40]!r}")


@text_change
def a_key_lost(attempt: Attempt, draw: random.Random) -> None:
    path = draw.choice([path for path in _nodes(attempt.config) if isinstance(path[-1], str)])
    del _parent(attempt.config, path)[path[-1]]
    attempt.said.append(".".join(map(str, path)))


@text_change
def a_key_more(attempt: Attempt, draw: random.Random) -> None:
    path = draw.choice([path for path in _nodes(attempt.config) if isinstance(path[-1], str)])
    node = _parent(attempt.config, path)
    node[draw.choice(["nothing", "", "null", "x" * 1000, "file", "user", "a.b", "__class__", "model_fields"])] = draw.choice(
        ODD_VALUES
    )
    attempt.said.append(f"{'.'.join(map(str, path[:-1]))} has {list(node)[-1][:30]!r}")


@text_change
def yaml_damaged(attempt: Attempt, draw: random.Random) -> None:
    change = draw.choice([_flip, _flip, _cut, _without_block, _block_doubled, _with_junk])
    seed = draw.random()
    attempt.yaml_changes.append(lambda text: change(text.encode(), random.Random(seed)).decode("utf-8", "surrogateescape"))
    attempt.said.append(change.__name__)


@text_change
def odd_yaml(attempt: Attempt, draw: random.Random) -> None:
    odd = draw.choice(ODD_YAML)
    forms: list[Callable[[str], str]] = [lambda _: odd, lambda text: text + odd, lambda text: odd + text]
    attempt.yaml_changes.append(draw.choice(forms))
    attempt.said.append(repr(odd[:40]))


@text_change
def odd_options(attempt: Attempt, draw: random.Random) -> None:
    for options in draw.sample(ODD_OPTIONS, draw.choice([1, 1, 1, 2])):
        attempt.arguments += options
        attempt.said.append(" ".join(options)[:60])

    def prepare(folder: Path) -> None:
        import os

        (folder / "full").mkdir()
        (folder / "full" / "diary.txt").write_text("mine")
        os.mkfifo(folder / "fifo")

    attempt.folder_changes.append(prepare)
