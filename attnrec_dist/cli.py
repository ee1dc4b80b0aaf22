"""The command line: `attnrec COMMAND ...`. Nothing else reads argv; the commands are in commands/, a file each."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

from attnrec_dist.commands import all_commands
from attnrec_dist.commands.base import Command, is_main_process
from attnrec_dist.commands.help import check_command, check_options, versions
from attnrec_dist.errors import (
    LITTLE,
    AttnrecError,
    ConfigError,
    ExitCode,
    FaultError,
    StorageError,
    address_limit,
    refused_resource,
)
from attnrec_dist.settings import take_overrides
from attnrec_dist.storage.yaml_text import shortened
from attnrec_dist.terminal.fault_report import told
from attnrec_dist.terminal.interrupts import was_interrupted
from attnrec_dist.terminal.streams import forgiving_streams

INTERRUPTED = 130  # as shells have it
LATER = 2.0  # seconds: a launcher ends all processes as soon as one leaves, and rank 0 may still be about to tell the error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 2 the user's mistake, 75 stopped on request, 1 a fault, 130 Ctrl-C."""
    # Threads that wait shall sleep: spinning ones make training many times slower on a machine that does anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if argv is None else argv)
    with forgiving_streams() as out:
        code = answered(words)
        out.flush()
        if out.lost and code == ExitCode.DONE:
            say(StorageError.of(out.lost, "writing to the standard output; what was to go into files is there"))
            return ExitCode.FAULT
    return code


def answered(words: list[str]) -> int:
    """The exit code of one command; whatever goes wrong is told in a line."""
    command = None
    try:
        check_words(words)
        parser = make_parser()
        overrides, others = take_overrides(words)
        check_command(next(iter(others), None), parser.get_default("commands"))
        arguments, rest = parser.parse_known_args(others)
        command = arguments.command
        if command is None:
            print(versions() if arguments.version else parser.format_help().rstrip())
            return ExitCode.DONE
        check_options(rest, arguments.parser)
        note = address_limit(below=LITTLE)
        if note and is_main_process():
            print(f"attnrec: note: {note}; libraries may hang, or end without a word", file=sys.stderr)
        return run_command(arguments, rest + overrides)
    except SystemExit as stop:  # argparse has told what is wrong, or how to
        return int(stop.code or 0)
    except KeyboardInterrupt as error:
        return ended_by(error, words, command)
    except Exception as error:
        if os.environ.get("ATTNREC_DEBUG") and not isinstance(error, AttnrecError | OSError):
            raise
        return ended_by(error, words, command)


def ended_by(error: BaseException, words: list[str], command: str | None) -> int:
    """Tells what ended a command, in one line, and gives its exit code."""
    if was_interrupted(error):
        if is_main_process():
            print("attnrec: interrupted", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, AttnrecError):
        if is_main_process() or isinstance(error, FaultError):
            say(error)
        else:
            time.sleep(LATER)
        return error.exit_code
    known = StorageError.of(error, f"attnrec {command}") if isinstance(error, OSError) else None
    say(refused_resource(error) or known or told(error, words, command))
    return ExitCode.FAULT


def check_words(words: list[str]) -> None:
    """Raises ConfigError for what is no text, before it comes into a configuration, or no path."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            of_files = sys.getfilesystemencoding()
            hint = "rename what it names" if of_files == "utf-8" else f"Python reads {of_files} here: type PYTHONUTF8=1 before it"
            raise ConfigError(f"the argument {shortened(word)} is not text in UTF-8; {hint}") from None
        if "\0" in word:
            raise ConfigError(f"the argument {shortened(word)} holds the character NUL, which no path has")


def say(problem: object) -> None:
    who = "attnrec" if is_main_process() else f"attnrec, rank {os.environ['RANK']}"
    print(f"{who}: error: {problem}", file=sys.stderr)


def run_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    """The command's exit code, or 0 after its help."""
    command: Command = arguments.definition
    if arguments.help or arguments.help_all:
        keys = command.keys(arguments) if arguments.help_all else ""  # brings torch
        print(command.head_of_help() * (not keys) + arguments.parser.format_help() + keys, end="")
        return ExitCode.DONE
    return int(command.run(arguments, rest))


def leave(code: int) -> NoReturn:
    """Ends the process. Under a launcher at once: the network's threads now and then abort a process that is being torn down
    after all its work is done (seen in 2 tests of one run of the suite, over gloo), which the launcher takes for a failed job.
    So too where a tracker has not taken everything in its time: its library would wait on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while Python ends, it would be told as a traceback
    if "LOCAL_RANK" in os.environ or any(thread.name.startswith("tracker ") for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnrec",
        allow_abbrev=False,
        description="Attention recommenders: prepare a log, train on any number of processes, evaluate, recommend.",
    )
    parser.add_argument("--version", action="store_true", help="show the versions of this, Python and torch")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    for command in all_commands():
        command.add_to(commands)
    parser.set_defaults(commands=list(commands.choices))
    return parser
