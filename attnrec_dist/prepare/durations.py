"""What sections of a prepare YAML share: lengths of time such as 7d, names, and which keys a kind takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator

from attnrec_dist.settings import Section
from attnrec_dist.times.timestamps import seconds

NAME = re.compile(r"[a-z][a-z0-9_]*")


def _duration(value: Any) -> Any:
    if isinstance(value, bool) or not re.fullmatch(r"[-+]?\d+[smhdw]", str(value)):
        raise ValueError("write a whole number and a unit, as in 45s, 30m, 12h, 7d or 4w")
    if seconds(value) <= 0:
        raise ValueError("a window must have a length above 0, as in 7d or 12h")
    return value


Duration = Annotated[str, BeforeValidator(_duration)]


def check_keys(kind: str, section: Section, needed: Iterable[str], allowed: Iterable[str]) -> None:
    """Raises ValueError for a key that is missing, or given though it means nothing for this kind."""
    defaults = {key: field.default for key, field in type(section).model_fields.items()}
    given = {key for key in defaults if getattr(section, key) != defaults[key]}
    missing = [key for key in needed if key not in given]
    if missing:
        raise ValueError(f"kind {kind} needs {' and '.join(missing)}")
    foreign = sorted(given - {"kind", "name", "tasks", *needed, *allowed})
    if foreign:
        known = ", ".join([*needed, *allowed]) or "none"
        raise ValueError(f"{foreign[0]} means nothing for kind {kind}; leave it out (its keys: {known})")


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a name: lower-case letters, digits and _, a letter in front")
