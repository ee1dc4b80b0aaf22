"""Reading back what this package has stored: regular files only, JSON by a schema, a JSON file's checksum of itself."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

CHECKSUM = "checksum"  # the key of a JSON file that holds its own
KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
SchemaT = TypeVar("SchemaT", bound=BaseModel)


class NotAFileError(OSError):
    """Something else stands in a file's place, of which reading might never end."""


def size_of(path: Path) -> int:
    """Bytes of a regular file. Raises OSError; NotAFileError for a directory, a FIFO, a device, a socket."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise NotAFileError(errno.EINVAL, f"is {KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file", str(path))
    return found.st_size


def read_text(path: Path) -> str:
    """Raises OSError, and ValueError where it is not UTF-8."""
    size_of(path)
    return path.read_text(encoding="utf-8")


def read_tree(path: Path) -> dict[str, Any]:
    """A JSON object, compared with its own checksum where it holds one. Raises OSError; ValueError, which says what is wrong."""
    try:
        tree = json.loads(read_text(path))
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise ValueError("it holds no JSON object")
    if CHECKSUM in tree and tree[CHECKSUM] != checksum_of(tree):
        raise ValueError("it does not agree with the checksum that it has of itself")
    return tree


def as_schema(schema: type[SchemaT], tree: dict[str, Any]) -> SchemaT:
    """Raises ValueError, which says what is wrong."""
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {what[:1].lower()}{what[1:]}" if place else what) from None


def read_json(path: Path, schema: type[SchemaT]) -> SchemaT:
    """What `read_tree` gives, by a schema. Raises OSError, ValueError."""
    return as_schema(schema, read_tree(path))


def json_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line of a file of JSON objects, and the object, None where the line holds none: a killed job leaves half a line, a bad
    disk worse. A file that is not there has no lines; raises OSError for whatever else."""
    try:
        size_of(path)
    except FileNotFoundError:
        return
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line.decode())
            except (ValueError, RecursionError):
                found = None
            yield line, found if isinstance(found, dict) else None


def checksum_of(tree: dict[str, Any]) -> str:
    """sha256 of a JSON object without its checksum: keys in order, no blanks, ASCII; so white space does not count."""
    content = {key: value for key, value in tree.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(tree: dict[str, Any]) -> dict[str, Any]:
    """The object with its checksum, as the last key."""
    content = {key: value for key, value in tree.items() if key != CHECKSUM}
    return {**content, CHECKSUM: checksum_of(content)}


def sha256_of(path: Path) -> str:
    """Raises OSError."""
    size_of(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file; half a line that a killed job has left is ended first. Raises OSError."""
    if path.exists():
        size_of(path)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())
