"""JSON Lines: which fields the objects have, and SQL that takes them out as text. A nested field is named `product.id`, also
where `product` is the list that input.unnest names, a row for each of its values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.reading.text_files import TextFormat, head_of, lines
from attnrec_dist.prepare.sql import text

COMPRESSIONS = {"none": "uncompressed"}  # in the engine's words, others as files.COMPRESSIONS has them
LARGEST = 2**24  # bytes of an object
LOOKED_AT = 1_000  # lines, for the fields' names


def columns(path: Path, layout: TextFormat) -> tuple[tuple[str, str], ...]:
    """(name, "json", or "list" or "struct" where no value is plain) of the fields in the first lines; those of what
    layout.unnest lists are named as if each value stood in the list's place. Raises InputError."""
    head = [line for line in head_of(path, layout).splitlines()[:LOOKED_AT] if line.strip()]
    found: dict[str, set[str]] = {}
    objects = 0
    for line in head:
        value = _object(line)
        if value is not None:
            objects += 1
            _note(value, "", found, layout.unnest)
    if not objects:
        raise InputError(f"{path}: {_instead(head)}")
    if layout.unnest and layout.unnest not in found:
        lists = ", ".join(name for name, kinds in found.items() if "list" in kinds) or "none there"
        raise InputError(f"{path}: no list {layout.unnest!r}, which {layout.where}.unnest names; fields with lists: {lists}")
    plain = {name: kinds - {"null"} for name, kinds in found.items()}
    return tuple((name, next(iter(kinds)) if len(kinds) == 1 else "json") for name, kinds in plain.items())


def later_columns(path: Path, layout: TextFormat, wanted: list[str]) -> list[str]:
    """Those of the wanted fields that an object anywhere in the file has, and the fields that they are nested in."""
    missing = {name: json.dumps(name.rpartition(".")[2], ensure_ascii=False).encode() for name in wanted}
    there: dict[str, None] = {}
    for line in lines(path, layout) if missing else ():
        if any(key in line for key in missing.values()):  # much faster than to read each line
            found: dict[str, set[str]] = {}
            _note(_object(line) or {}, "", found, layout.unnest)
            for name in [name for name in missing if name in found]:
                there |= dict.fromkeys(outer for outer in found if f"{name}.".startswith(f"{outer}."))
                del missing[name]
            if not missing:
                break
    return list(there)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _note(value: dict[str, Any], prefix: str, found: dict[str, set[str]], unnest: str | None) -> None:
    kinds = {list: "list", dict: "struct", type(None): "null"}
    for key, inner in value.items():
        name = prefix + key
        for each in inner if name == unnest and isinstance(inner, list) else [inner]:
            found.setdefault(name, set()).add(kinds.get(type(each), "json"))
            if isinstance(each, dict) and prefix.count(".") < 8:
                _note(each, f"{name}.", found, unnest)


def _instead(lines: list[bytes]) -> str:
    """What a file without an object in its first lines is."""
    start = lines[0].lstrip()[:3] if lines else b""
    if start.startswith((b"{'", b"{u'")):
        return (
            "is Python's notation, no JSON: write it anew, a line at a time, with json.dumps(ast.literal_eval(line)) from "
            "Python's json and ast"
        )
    if start.startswith(b"["):
        return "is one JSON list, not an object a line; write it anew, for example with jq -c '.[]'"
    if start.strip() == b"{":
        return "its objects go over several lines, not one a line; write it anew, for example with jq -c ."
    return "none of its first lines is a JSON object; is this the right format?"


def reader(files: str, compression: str, more: str, unnest: str | None, known: set[str]) -> str:
    """SQL: a table with the column `json`, NULL where a line is damaged; `files` is a list in SQL, `more` further arguments.

    With `unnest` a row a value of that list, `element`, beside `line`, the number of its object; of an empty list one, NULL.
    """
    objects = (
        f"read_ndjson_objects({files}, ignore_errors = true, maximum_object_size = {LARGEST}, "
        f"compression = {text(COMPRESSIONS.get(compression, compression))}, hive_partitioning = false{more})"
    )
    if unnest is None:
        return objects
    listed = f"json_extract(json, {text(_path(unnest, known) + '[*]')})"
    return f"(SELECT *, row_number() OVER () AS line, unnest(coalesce(nullif({listed}, []), [NULL])) AS element FROM {objects})"


def in_order(names: list[str], unnest: str | None) -> list[str]:
    """The fields as `fields` has them: each once, those of the list last."""
    return sorted(dict.fromkeys(names), key=lambda name: _is_within(name, unnest))


def _is_within(name: str, unnest: str | None) -> bool:
    return unnest is not None and (name == unnest or name.startswith(f"{unnest}."))


def fields(names: list[str], known: set[str], unnest: str | None) -> tuple[str, str]:
    """SQL of the values and of the types of these fields of `json`, two lists, in_order. A field with a point in its own name
    is one of those that are known but not nested."""
    paths: dict[str, list[str]] = {}
    for name in in_order(names, unnest):
        if _is_within(name, unnest):
            inner = {each.removeprefix(f"{unnest}.") for each in known if each.startswith(f"{unnest}.")}
            paths.setdefault("element", []).append("$" if name == unnest else _path(name.removeprefix(f"{unnest}."), inner))
        else:
            paths.setdefault("json", []).append(_path(name, known))
    asked = [f"({column}, [{', '.join(map(text, each))}])" for column, each in (paths or {"json": []}).items()]
    calls = [[function + each for each in asked] for function in ("json_extract_string", "json_type")]
    values, types = (each[0] if len(each) == 1 else f"list_concat({', '.join(each)})" for each in calls)
    return values, types


def _path(name: str, known: set[str]) -> str:
    """`a.b` is the field b of a, unless a itself is not known: then it is one name."""
    keys: list[str] = []
    parts, done = name.split("."), ""
    while parts:
        count = next((count for count in range(1, len(parts) + 1) if done + ".".join(parts[:count]) in known), 1)
        keys.append(".".join(parts[:count]))
        parts, done = parts[count:], f"{done}{keys[-1]}."
    return "$" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in keys)


def as_text(value: str, kind: str) -> str:
    """SQL of a field's value as text; a whole float loses its `.0`, as in Parquet; lists, objects and empty texts are NULL."""
    number = f"TRY_CAST({value} AS DOUBLE)"
    whole = f"{number} = floor({number}) AND abs({number}) < 9007199254740992"
    return (
        f"CASE WHEN {kind} = 'DOUBLE' AND {whole} THEN CAST(CAST({number} AS BIGINT) AS VARCHAR) "
        f"WHEN {kind} NOT IN ('ARRAY', 'OBJECT') THEN nullif({value}, '') END"
    )
