"""What is chosen by name: models, losses, metrics. Ours stand in a Registry; other packages add theirs through entry points.

A package adds to a registry with a line of its pyproject.toml (docs/add-a-model.md):

    [project.entry-points."attnrec_dist.models"]
    my_model = "my_package.my_model:MyModel"
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from attnrec_dist.errors import ConfigError
from attnrec_dist.settings import Section

Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """Entries by name. As a dictionary it holds those of this package; `find` and `everything` know the others too.

    Args:
        key: the config path that chooses one, for messages
        group: name of the entry points by which other packages add theirs
        entries: those of this package
    """

    def __init__(self, key: str, group: str, entries: dict[str, Entry]):
        super().__init__(entries)
        self.key, self.group = key, group

    def find(self, name: object) -> Entry:
        """The entry of that name. Raises ConfigError with the nearest known name.

        >>> Registry("model.name", "attnrec_dist.none", {"sasrec": 1}).find("sasrek")
        Traceback (most recent call last):
        attnrec_dist.errors.ConfigError: model.name: there is no 'sasrek'; did you mean sasrec?
        """
        others = plugins(self.group)
        if isinstance(name, str) and name in self:
            return self[name]
        if isinstance(name, str) and name in others:
            return self._loaded(others[name])
        close = difflib.get_close_matches(str(name), [*self, *others], 1, 0.5)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted([*self, *others]))}"
        raise ConfigError(f"{self.key}: there is no {name!r}; {hint}")

    def everything(self) -> dict[str, Entry]:
        """All entries, those of other packages loaded. Raises ConfigError where one cannot be."""
        return {**{name: self._loaded(each) for name, each in plugins(self.group).items()}, **self}

    def names(self) -> list[str]:
        """Of all entries; nothing is loaded."""
        return [*self, *(name for name in plugins(self.group) if name not in self)]

    def _loaded(self, plugin: EntryPoint) -> Entry:
        try:
            found: Entry = plugin.load()
        except Exception as error:
            package = plugin.dist.name if plugin.dist else plugin.value
            raise ConfigError(
                f"{self.key}: {plugin.name} is added by the package {package}, which cannot be loaded: "
                f"{type(error).__name__}: {error}; mend it, or uninstall it"
            ) from error
        return found


@functools.cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of other packages, by name. Read once a process: it looks through all that is installed."""
    return {each.name: each for each in entry_points(group=group)}


class Declared:
    """Base of contracts: classes that others derive from, such as `class Model(Declared, contract=True)`.

    What a class may declare are their public names. A misspelt one would leave a default in force unnoticed, so it is an
    error when the class is defined.
    """

    def __init_subclass__(cls, contract: bool = False, **options: object) -> None:
        super().__init_subclass__(**options)
        if not contract:
            contracts = [base for base in cls.__mro__[1:] if vars(base).get("_is_contract")]
            refuse_misspelt(cls, contracts)
        cls._is_contract = contract

    _is_contract = False


class DeclaredSection(Section):
    """The same for settings: the contracts are the classes that derive from this one directly."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, [base for base in cls.__mro__[1:] if DeclaredSection in base.__bases__])


def refuse_misspelt(cls: type, contracts: Iterable[type]) -> None:
    """Raises TypeError where a public name of the class is nearly one that its contracts declare."""
    declared = {name for contract in contracts for name in _names(contract)}
    for name in _names(cls):
        close = difflib.get_close_matches(name, declared, 1, 0.85)
        if name not in declared and close:
            raise TypeError(f"{cls.__module__}.{cls.__qualname__}.{name}: did you mean {close[0]}?")


def _names(cls: type) -> set[str]:
    return {name for name in {*vars(cls), *vars(cls).get("__annotations__", {})} if not name.startswith("_")}
