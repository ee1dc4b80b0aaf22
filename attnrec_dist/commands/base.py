"""What a command is, and what several of them do: arguments that must be there, notes, the head of the list of keys."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from attnrec_dist.errors import ConfigError
from attnrec_dist.storage.yaml_text import shortened

OVERRIDES = "--any.key VALUE overrides a key of the YAML file. All keys, with their defaults:\n\n"
RequestT = TypeVar("RequestT")
ALWAYS_REQUIRED = ("CONFIG.yaml", "RUN_DIR ...", "RUN_DIR", "DATA_DIR")


def no_keys(arguments: argparse.Namespace) -> str:
    return ""


@dataclass(frozen=True)
class Command:
    """One command. Its file imports nothing heavy; `run` and `keys` may."""

    name: str
    place: int  # in the list of commands, ascending
    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, list[str]], int]  # (arguments, overrides and what was not understood) -> exit code
    keys: Callable[[argparse.Namespace], str] = no_keys  # every key, for --help-all
    main_keys: str = ""  # those that matter most, for --help: repeated here, since their sections bring torch
    required: tuple[str, ...] = ()  # options that must be given, as argparse prints them

    def add_to(self, commands: Any) -> None:
        """Adds its parser to argparse's subparsers. For argparse all arguments are optional: --help works without them."""
        parser = commands.add_parser(self.name, help=self.summary, description=self.summary, add_help=False, allow_abbrev=False)
        parser.add_argument("-h", "--help", action="store_true", help="show an example, the keys that matter most and this")
        parser.add_argument("--help-all", action="store_true", help="show every key, with default and meaning")
        self.add_arguments(parser)
        usage = parser.format_usage().removeprefix("usage: ")
        for needed in (*ALWAYS_REQUIRED, *self.required):
            usage = usage.replace(f"[{needed}]", needed)
        parser.usage = usage.strip()
        parser.set_defaults(definition=self, parser=parser)

    def head_of_help(self) -> str:
        """An example and, where the command has keys, those that matter most."""
        text = f"for example: {self.example}\n\n"
        if self.main_keys:
            keys = self.main_keys.strip("\n")
            text += f"Keys that matter most, for the YAML or as options (--help-all shows all):\n{keys}\n\n"
        return text


def required(value: Any, name: str, command: str) -> Any:
    """The value of an argument. Raises ConfigError where it is missing."""
    if value is None:
        raise ConfigError(f"{name} is missing; type attnrec {command} --help")
    return value


def fill(request: type[RequestT], arguments: argparse.Namespace) -> RequestT:
    """The dataclass of a command's request, each field from the argument of its name."""
    return request(**{each.name: getattr(arguments, each.name) for each in fields(request)})  # type: ignore[arg-type]


def no_more(rest: list[str]) -> None:
    """Raises ConfigError for an argument that the command does not have."""
    if rest:
        raise ConfigError(f"unknown argument {shortened(rest[0].partition('=')[0])}; --help lists what there is")


def is_main_process() -> bool:
    """Before the processes of a job know one another, the launcher's RANK tells who speaks."""
    return os.environ.get("RANK", "0") == "0"


def note(text: str) -> None:
    if is_main_process():
        print(f"attnrec: note: {text}", file=sys.stderr)
