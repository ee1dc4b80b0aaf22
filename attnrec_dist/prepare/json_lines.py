"""JSON Lines: which fields the objects have, and SQL that takes them out as text. A nested field is named `product.id`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.sql import text
from attnrec_dist.prepare.text_files import TextFormat, head_of

COMPRESSIONS = {"none": "uncompressed"}  # in the engine's words, others as files.COMPRESSIONS has them
LARGEST = 2**24  # bytes of an object
LOOKED_AT = 1_000  # lines, for the fields' names


def columns(path: Path, layout: TextFormat) -> tuple[tuple[str, str], ...]:
    """(name, "json", or "list" or "struct" where no value is plain) of the fields in the first lines. Raises InputError."""
    lines = [line for line in head_of(path, layout).splitlines()[:LOOKED_AT] if line.strip()]
    found: dict[str, set[str]] = {}
    objects = 0
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            objects += 1
            _note(value, "", found)
    if not objects:
        raise InputError(f"{path}: {_instead(lines)}")
    plain = {name: kinds - {"null"} for name, kinds in found.items()}
    return tuple((name, next(iter(kinds)) if len(kinds) == 1 else "json") for name, kinds in plain.items())


def _note(value: dict[str, Any], prefix: str, found: dict[str, set[str]]) -> None:
    kinds = {list: "list", dict: "struct", type(None): "null"}
    for key, inner in value.items():
        found.setdefault(prefix + key, set()).add(kinds.get(type(inner), "json"))
        if isinstance(inner, dict) and prefix.count(".") < 8:
            _note(inner, f"{prefix}{key}.", found)


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


def reader(files: str, compression: str, more: str) -> str:
    """SQL: a table with the column `json`, NULL where a line is damaged; `files` is a list in SQL, `more` further arguments."""
    return (
        f"read_ndjson_objects({files}, ignore_errors = true, maximum_object_size = {LARGEST}, "
        f"compression = {text(COMPRESSIONS.get(compression, compression))}, hive_partitioning = false{more})"
    )


def fields(names: list[str], known: set[str]) -> tuple[str, str]:
    """SQL of the values and of the types of these fields of `json`, two lists. A field with a point in its own name is one of
    those that are known but not nested."""
    paths = ", ".join(text(_path(name, known)) for name in names)
    return f"json_extract_string(json, [{paths}])", f"json_type(json, [{paths}])"


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
