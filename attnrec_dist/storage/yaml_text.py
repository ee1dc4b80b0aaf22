"""YAML text -> a tree, and the other way: strict, and safe against what a mistake or an attack may hold."""

from __future__ import annotations

import codecs
import difflib
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from attnrec_dist.errors import ConfigError

MOST_BYTES = 2**20  # of a YAML file: some ten thousand lines; pure Python takes seconds for more
MOST_NODES, MOST_LEVELS = 100_000, 50  # of a YAML text, its aliases written out
TOO_DEEP = f"more than {MOST_LEVELS} levels inside one another"
SHOWN = 80  # characters of a value in a message
MARKS_OF_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars: `no`, 1:30 and dates are text, 1e-3 and 010 are numbers. Keys are texts, each given once.

    What only an attack, or a mistake, would hold is refused: aliases that grow without end, merge keys, tags of other kinds.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._level += 1
        if self._level > MOST_LEVELS:
            raise yaml.composer.ComposerError(None, None, TOO_DEEP, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _look_over(node, {})
        return node


def _look_over(node: yaml.Node, known: dict[yaml.Node, tuple[int, int] | None]) -> tuple[int, int]:
    """(nodes, levels) of a tree with its aliases written out; each node is looked at once. Raises YAMLError."""
    if node in known:
        extent = known[node]
        if extent is None:
            raise _refusal(node, "an alias stands inside what it names")
        return extent
    known[node] = None
    if isinstance(node, yaml.ScalarNode):
        if re.search("[\0\ud800-\udfff]", node.value):
            raise _refusal(node, "a text holds a character that no file can hold (NUL, or half of a pair)")
    elif isinstance(node, yaml.MappingNode):
        _check_keys([key for key, _ in node.value])
    inner = [] if isinstance(node, yaml.ScalarNode) else node.value
    children = [child for entry in inner for child in (entry if isinstance(entry, tuple) else (entry,))]
    below = [_look_over(child, known) for child in children]
    nodes, levels = 1 + sum(size for size, _ in below), 1 + max((depth for _, depth in below), default=0)
    if nodes > MOST_NODES or levels > MOST_LEVELS:
        raise _refusal(node, f"more than {MOST_NODES:,} values" if nodes > MOST_NODES else TOO_DEEP)
    known[node] = nodes, levels
    return nodes, levels


def _check_keys(keys: list[yaml.Node]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key.tag == "tag:yaml.org,2002:merge":
            raise _refusal(key, "the merge key << is not read; write the merged keys out")
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            shown = f" {key.value[:SHOWN]}" if isinstance(key, yaml.ScalarNode) else ""
            raise _refusal(key, f"the key{shown} is no text; write it in quotes, or as `key: value`")
        if key.value in seen:
            raise _refusal(key, f"key {shortened(key.value)} is given twice")
        seen.add(key.value)


def _refusal(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _as(kind: str, read: Callable[[Loader, yaml.ScalarNode], Any]) -> Callable[[Loader, yaml.ScalarNode], Any]:
    def construct(loader: Loader, node: yaml.ScalarNode) -> Any:
        try:
            return read(loader, node)
        except (ValueError, KeyError):  # an explicit tag before something else; more digits than Python reads
            raise _refusal(node, f"{shortened(node.value)} cannot be read as {kind}") from None

    return construct


def shortened(value: Any) -> str:
    """A value for a message, at most SHOWN characters of it."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}... ({len(text):,} characters)"


def in_a_line(name: str) -> str:
    """A name as it is or, where it would break or flood a line, quoted and shortened."""
    return name if name.isprintable() and len(name) <= SHOWN else shortened(name)


class Dumper(yaml.SafeDumper):
    """Quotes every text that either YAML 1.1 or `Loader` would read as something else."""


_REPLACED = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "value"))
Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)
_READ = {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": _as("true or false", yaml.SafeLoader.construct_yaml_bool),
    "int": _as("an integer", lambda loader, node: int(loader.construct_scalar(node))),
    "float": _as("a number", yaml.SafeLoader.construct_yaml_float),
    "str": yaml.SafeLoader.construct_yaml_str,
    "seq": yaml.SafeLoader.construct_yaml_seq,
    "map": yaml.SafeLoader.construct_yaml_map,
}
Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,
    **{f"tag:yaml.org,2002:{kind}": construct for kind, construct in _READ.items()},
}
Dumper.yaml_implicit_resolvers = {
    first: yaml.SafeDumper.yaml_implicit_resolvers.get(first, []) + Loader.yaml_implicit_resolvers.get(first, [])
    for first in yaml.SafeDumper.yaml_implicit_resolvers | Loader.yaml_implicit_resolvers
}


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; `where` names it in the message when it does not parse."""
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{where}{place}: not valid YAML: {problem}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, in UTF-8 or, with its mark, UTF-16. Raises ConfigError when it is missing, unreadable or not a
    mapping."""
    try:
        content = _content(path)
        text = content.decode("utf-16" if content.startswith(MARKS_OF_UTF16) else "utf-8-sig")
    except FileNotFoundError:
        close = difflib.get_close_matches(path.name, _neighbours(path), 1, 0.5)
        hint = f"; did you mean {path.with_name(close[0])}?" if close else ""
        raise ConfigError(f"{path}: no such config file{hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory; name the YAML file in it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as `data:` at the top level, found {_kind(tree)}")
    return tree


def _content(path: Path) -> bytes:
    """Of a file, or of a pipe that the shell made: <(...) or /dev/stdin. Any other would be waited for without end."""
    mode = path.stat().st_mode
    from_shell = stat.S_ISFIFO(mode) and path.is_relative_to("/dev")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or from_shell):
        raise ConfigError(f"{path}: is a device or a pipe; name a YAML file")
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: has more than {MOST_BYTES // 1024:,} KiB, so it is no configuration; name the YAML file")
    return content


def _neighbours(path: Path) -> list[str]:
    try:
        return [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    except OSError:
        return []


def _kind(value: Any) -> str:
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(value), type(value).__name__)
