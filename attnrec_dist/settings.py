"""Strict base of all configuration sections: YAML in, `--any.key value` over it, "did you mean" out.

A section is a pydantic model that owns its keys, each with a type, a default and a description. Unknown keys are
errors everywhere. Nothing here reads the environment.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from attnrec_dist.errors import ConfigError
from attnrec_dist.storage.yaml_text import Dumper, in_a_line, parse_yaml, read_yaml, shortened

__all__ = ["Section", "apply_overrides", "build", "describe", "flatten", "iterate_keys", "parse_overrides", "parse_yaml"]
__all__ += ["read_yaml", "take_overrides", "to_yaml"]


class Section(BaseModel):
    """A block of keys in a YAML file; unknown keys and infinite numbers are refused, and instances are immutable.

    A text where a list of texts is wanted is a list of one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _one_text_is_a_list(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        lists = {name for name, field in cls.model_fields.items() if list[str] in _options(field.annotation)}
        return {key: [value] if key in lists and isinstance(value, str) else value for key, value in tree.items()}


SectionT = TypeVar("SectionT", bound=Section)


def take_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into `--section.key value` (or `=value`) pairs and the rest, wherever they stand."""
    taken: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not re.match(r"--\w+\.", argument):
            others.append(argument)
            continue
        taken.append(argument)
        if "=" not in argument and rest and not _is_option(rest[0]):
            taken.append(rest.pop(0))
    return taken, others


def _is_option(argument: str) -> bool:
    """Whether this cannot be the value of the option before it: -1 can, and so can --5."""
    return argument.startswith("--") and not re.match(r"--\d", argument)


def parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """`["--train.seed", "1", "--data.basket=none"]` -> {"train.seed": 1, "data.basket": "none"}; values are YAML."""
    overrides: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        key, equals, value = argument[2:].partition("=")
        if not argument.startswith("--") or not all(key.split(".")) or not key.isprintable():
            raise ConfigError(f"unexpected argument {shortened(argument)}: overrides read --section.key value")
        if not equals:
            if not rest or _is_option(rest[0]):
                raise ConfigError(f"--{in_a_line(key)}: a value is missing; type --{in_a_line(key)} VALUE")
            value = rest.pop(0)
        overrides[key] = value if _is_bare(value) else parse_yaml(value, f"--{in_a_line(key)}")
    return overrides


def _is_bare(value: str) -> bool:
    """Whether a value is the text that it is, though YAML would take it for something else: %d/%m/%Y, *.csv, | or ','."""
    signs = value != "" and not any(letter.isalnum() or letter.isspace() for letter in value)
    return value[:1] in tuple("%@`*&|>#,!?") or (signs and value != "~" and (len(value) == 1 or value[:1] not in tuple("[{'\"")))


def apply_overrides(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tree with dotted keys set; intermediate sections are made where they are missing."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        node = result
        for part in path:
            child = node.get(part)
            node[part] = dict(child) if isinstance(child, dict) else {}
            node = node[part]
        node[last] = value
    return result


def build(section: type[SectionT], tree: dict[str, Any], where: str, overrides: Iterable[str] = ()) -> SectionT:
    """Validates a tree; every problem is told in one ConfigError, with its path and a suggestion.

    Problems of the keys in `overrides` are told as those of options, all others as those of the file `where`.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        problems = [_explain(section, problem, where, list(overrides)) for problem in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def _explain(section: type[Section], problem: Any, where: str, overrides: list[str]) -> str:
    location = [part for part in problem["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    path = ".".join(str(part) for part in location)
    is_unknown = problem["type"] == "extra_forbidden"
    for option in overrides:
        if is_unknown and option.startswith(f"{path}."):  # the section of the option is unknown already
            path = option
        if path == option or path.startswith(f"{option}."):
            return f"--{_what_is_wrong(section, problem, path, '--')}"
    return f"{where}: {_what_is_wrong(section, problem, path)}"


def _what_is_wrong(section: type[Section], problem: Any, path: str, dashes: str = "") -> str:
    if problem["type"] == "extra_forbidden":
        return f"{in_a_line(path)}: unknown key{_did_you_mean(section, path, dashes)}"
    if problem["type"] == "missing":
        return f"{in_a_line(path)}: this key is required"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = problem.get("input")
    shown = f" (got {shortened(given)})" if isinstance(given, str | int | float | bool | type(None)) and path else ""
    return f"{in_a_line(path)}: {message}{shown}" if path else message


def _did_you_mean(section: type[Section], path: str, dashes: str) -> str:
    """The same key of another section, else the nearest one of its own section, else of all."""
    known = [key for key, _ in iterate_keys(section)]
    leaf = path.rsplit(".", 1)[-1]
    parent = path.rpartition(".")[0]
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    leaves = {key.rsplit(".", 1)[-1]: key for key in reversed(known)}
    names = [key.rsplit(".", 1)[-1] for key in siblings]
    prefix = f"{parent}." if parent else ""
    close = [leaves[leaf]] if leaf in leaves else []
    close = close or [prefix + name for name in difflib.get_close_matches(leaf, names, 1, 0.65)]
    close = close or [leaves[name] for name in difflib.get_close_matches(leaf, leaves, 1, 0.7)]
    if not siblings:  # the section itself is misspelt
        close = close or difflib.get_close_matches(path, known, 1, 0.6)
    if close:
        return f"; did you mean {dashes}{close[0]}?"
    return f"; known here: {', '.join(names)}" if names else ""


def iterate_keys(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All keys of a section, depth first, as ("train.seed", field); sections themselves are not listed twice."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        inner = _section_in(field.annotation)
        yield key, field
        if inner is not None:
            yield from iterate_keys(inner, f"{key}.")


def _section_in(annotation: Any) -> type[Section] | None:
    sections = [each for each in _options(annotation) if isinstance(each, type) and issubclass(each, Section)]
    return sections[0] if sections else None


def _options(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def describe(section: type[Section], prefix: str = "") -> str:
    """One line a key: name, type, default, meaning; what `--help-all` prints."""
    lines = []
    for key, field in iterate_keys(section, prefix):
        if field.annotation is Any or _section_in(field.annotation) is not None:
            lines.append(f"{key}:" + (f"  {field.description}" if field.description else ""))
            continue
        default = "required" if field.is_required() else f"default {_shown(field.get_default(call_default_factory=True))}"
        lines.append(f"  --{key}  {_type_name(field.annotation)}, {default}\n      {field.description or ''}".rstrip())
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is typing.Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if option is type(None) else _type_name(option) for option in arguments)
    if origin in (list, dict, tuple):
        inner = ", ".join(_type_name(argument) for argument in arguments)
        return f"{origin.__name__}[{inner}]"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "/".join(annotation.model_fields)
    words = {str: "text", int: "integer", float: "number", bool: "true|false"}
    return words.get(annotation, str(annotation))


def to_yaml(section: Section) -> str:
    """The whole section with all defaults, as YAML that reads back to an equal section."""
    tree = section.model_dump(mode="json")
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"seed": 1}} -> {"train.seed": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
