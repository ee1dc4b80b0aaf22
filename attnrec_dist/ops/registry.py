"""Looking a name up in a registry, with an error that says what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from attnrec_dist.errors import ConfigError

Entry = TypeVar("Entry")


def lookup(registry: Mapping[str, Entry], name: object, key: str) -> Entry:
    """The entry called `name`; `key` is the config path that chose it. Raises ConfigError with the nearest known name.

    >>> lookup({"sasrec": 1}, "sasrek", "model.name")
    Traceback (most recent call last):
    attnrec_dist.errors.ConfigError: model.name: there is no 'sasrek'; did you mean sasrec?
    """
    if isinstance(name, str) and name in registry:
        return registry[name]
    close = difflib.get_close_matches(str(name), registry, 1, 0.5)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(registry))}"
    raise ConfigError(f"{key}: there is no {name!r}; {hint}")
