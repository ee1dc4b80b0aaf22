"""What the command line says of itself: versions, and what was meant by a misspelt word. Imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
import platform
from collections.abc import Iterable, Sequence

from attnrec_dist.errors import ConfigError
from attnrec_dist.storage.yaml_text import shortened
from attnrec_dist.terminal.fault_report import version_of


def versions() -> str:
    """The package, Python and torch, which is not imported for it."""
    return f"attnrec {version_of('attnrec_dist')}, Python {platform.python_version()}, torch {version_of('torch')}"


def check_command(word: str | None, commands: Iterable[str]) -> None:
    """Raises ConfigError for a first word that is no command, with the nearest one."""
    if word is None or word.startswith("-") or word in commands:
        return
    close = difflib.get_close_matches(word.lower(), commands, 1, 0.6)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(commands)}"
    raise ConfigError(f"{shortened(word)} is no command; {hint}")


def check_options(words: Sequence[str], command: argparse.ArgumentParser) -> None:
    """Raises ConfigError for an option that is not the command's, where one of these was meant; others may be keys."""
    options = {_bare(option): option for option in command._option_string_actions if option.startswith("--")}
    for word in words:
        option = word.partition("=")[0]
        if not option.startswith("--") or "." in option:
            continue
        close = difflib.get_close_matches(_bare(option), options, 1, 0.75)
        if close:
            raise ConfigError(f"unknown argument {shortened(option)}; did you mean {options[close[0]]}?")


def _bare(option: str) -> str:
    """--top-k, --TopK and --top_k are one."""
    return option.lower().replace("-", "").replace("_", "")
