"""The last handler's: what nobody foresaw becomes one line for the terminal and a file to send.

The file tells versions, the command and where in the program it happened; no variables, and of the command no words that might
be secrets, paths or ids.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("attnrec_dist", "torch", "accelerate", "deepspeed", "datasets", "duckdb", "pyarrow", "numpy", "pydantic")
SHOWN = 200  # characters of a message, which may quote data


def told(error: BaseException, arguments: Sequence[str], command: str | None) -> str:
    """The line to print; writes the report into the current directory or, where that cannot be, the temporary one."""
    what = _headline(error)
    head = f"attnrec{f' {command}' if command else ''} met what nobody foresaw ({what})"
    try:
        path = write(_report(error, arguments, command))
    except (OSError, MemoryError, RecursionError) as second:
        return f"{head}, and no report could be written ({_headline(second)}); with ATTNREC_DEBUG=1 before it, it shows where"
    return f"{head}; please send {path} to whoever maintains this, with what you did: it is short, read it before"


def write(text: str) -> Path:
    """Into a fresh file that its owner alone may read. Raises OSError."""
    try:
        number, name = tempfile.mkstemp(".txt", "attnrec-fault-", Path.cwd())
    except OSError:
        number, name = tempfile.mkstemp(".txt", "attnrec-fault-")
    with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)


def _report(error: BaseException, arguments: Sequence[str], command: str | None) -> str:
    versions = [f"python {platform.python_version()}", platform.platform()]
    versions += [f"{name} {version_of(name)}" for name in PACKAGES]
    rank = f"rank {os.environ['RANK']} of {os.environ.get('WORLD_SIZE', '?')}" if "RANK" in os.environ else "one process"
    lines = traceback.TracebackException.from_exception(error, limit=-50, compact=True).format()
    home = str(Path.home())
    return "\n".join(
        [
            "attnrec: a fault that nobody foresaw. Messages below may quote your data: read this before you send it.",
            "",
            f"command: {' '.join(['attnrec', *masked(arguments, command)])} ({rank})",
            f"versions: {', '.join(versions)}",
            "",
            *(_short(line).replace(home, "~").rstrip() for line in lines),
            "",
        ]
    )


def masked(arguments: Sequence[str], command: str | None) -> list[str]:
    """The command line with its command, its options and the numbers behind --section.key; * stands for all other words."""
    shown, dotted = [], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if re.fullmatch(r"--?[A-Za-z][\w.-]*", name):
            dotted = "." in name
            shown.append(name + (f"={_masked_value(value, dotted)}" if equals else ""))
        else:
            shown.append(argument if argument == command else _masked_value(argument, dotted))
            dotted = False
    return shown


def _masked_value(value: str, dotted: bool) -> str:
    return value if dotted and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false|null", value) else "*"


def _headline(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {text[:SHOWN]}' if text else ''}"


def _short(line: str) -> str:
    return line if len(line) <= 5 * SHOWN else f"{line[: 5 * SHOWN]} ..."


def version_of(package: str) -> str:
    """The installed version, read without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
