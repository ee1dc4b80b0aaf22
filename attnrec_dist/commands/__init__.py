"""The commands, a file each: its arguments and what it runs. A new one is a file here that defines COMMAND, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil

from attnrec_dist.commands.base import Command


def all_commands() -> list[Command]:
    """Of every file here, in the order of the help."""
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    return sorted((module.COMMAND for module in modules if hasattr(module, "COMMAND")), key=lambda command: command.place)
