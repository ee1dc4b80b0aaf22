"""The last line of a command, where there is a natural next one: what to type, so that it works when it is pasted as it is."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def next_step(*words: object) -> str:
    """What to type next, quoted for the shell and from the directory in which the user is: attnrec, or where that is to be found
    when the shell does not know it."""
    beside = Path(sys.executable).with_name("attnrec")
    if shutil.which("attnrec"):
        program = ["attnrec"]
    elif beside.is_file():
        program = [from_here(beside)]
    else:
        program = [from_here(Path(sys.executable)), "-m", "attnrec_dist"]
    return f"next: {shlex.join([*program, *map(str, words)])}"


def from_here(path: Path) -> str:
    """A path from the current directory, where it is inside."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
