"""Where the paths lead that a YAML names: beside the YAML, else in the current directory, which is told; between two that are
there nobody guesses. A command line's paths start at the current directory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from attnrec_dist.errors import ConfigError
from attnrec_dist.settings import Section, SectionT


@dataclass(frozen=True)
class InputPath:
    """Marks a key of a section as the path of something that is read: `file: Annotated[str, InputPath()]`."""

    option: str = ""  # the short name of the key on the command line; empty: its own
    patterns: bool = False  # * and ? may stand in it


@dataclass(frozen=True)
class Place:
    """Something that is there."""

    path: str  # absolute, or a pattern that is
    files: frozenset[str]  # what it comes to, links followed


def placed(
    config: SectionT, named_by: Path, overrides: Iterable[str], say: Callable[[str], None] = lambda _: None, prefix: str = ""
) -> SectionT:
    """The configuration with its input paths absolute; one of the YAML `named_by` that leads nowhere stays as it is, for whoever
    opens it to tell.

    overrides: the keys that the command line gives. say: is told what is taken from the current directory. Raises ConfigError
    where a path may mean two things.
    """
    changed: dict[str, object] = {}
    for name, field in type(config).model_fields.items():
        key, value = f"{prefix}{name}", getattr(config, name)
        if isinstance(value, Section):
            changed[name] = placed(value, named_by, overrides, say, f"{key}.")
        mark = next((each for each in field.metadata if isinstance(each, InputPath)), None)
        if mark is None or value is None:
            continue
        typed = any(key == option or key.startswith(f"{option}.") for option in overrides)
        paths = [value] if isinstance(value, str) else value
        found = [_typed(each, mark) if typed else _located(each, key, mark, named_by, say) for each in paths]
        changed[name] = found[0] if isinstance(value, str) else found
    return config.model_copy(update={name: value for name, value in changed.items() if value != getattr(config, name)})


def absolute(given: str, base: Path) -> Path:
    """A path from a directory, `~` and `..` worked out. Raises RuntimeError for the home of nobody."""
    path = base.absolute() / Path(given).expanduser()
    tidy = Path(os.path.normpath(path))
    is_other = os.path.exists(path) and not (os.path.exists(tidy) and os.path.samefile(path, tidy))  # .. behind a link
    return path if is_other else tidy


def _typed(given: str, mark: InputPath) -> str:
    try:
        here = _there(given, mark, Path())
        if here is None and mark.patterns and given.strip():  # prepare starts at its YAML's directory, where this is not meant
            return str(absolute(given, Path()))
    except RuntimeError:
        return given
    return here.path if here else given


def _located(given: str, key: str, mark: InputPath, named_by: Path, say: Callable[[str], None]) -> str:
    try:
        beside, here = _there(given, mark, named_by.parent), _there(given, mark, Path())
    except RuntimeError:
        return given
    if beside and here and beside.files != here.files:
        raise ConfigError(
            f"{named_by}: {key}: {given} may be {beside.path}, beside this file, or {here.path}, in the current directory; "
            f"type --{mark.option or key} with the one that is meant"
        )
    if here and not beside:
        say(f"{key}: {given} is taken from the current directory, since it is not beside {named_by}")
    found = beside or here
    return found.path if found else given


def _there(given: str, mark: InputPath, base: Path) -> Place | None:
    if not given.strip() or "\0" in given:
        return None
    path = str(absolute(given, base))
    if os.path.exists(path):
        return Place(path, frozenset({os.path.realpath(path)}))
    if not mark.patterns or not glob.has_magic(given):
        return None
    pattern = os.path.join(glob.escape(str(base.absolute())), os.path.expanduser(given))
    matches = glob.glob(pattern, recursive=True)
    return Place(pattern, frozenset(map(os.path.realpath, matches))) if matches else None
