"""The command line: `attnrec COMMAND ...`. Nothing else reads argv; what the commands do is in commands.py."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from attnrec_dist.commands import (
    compare_command,
    evaluate_command,
    evaluation_keys,
    explain_command,
    inspect_command,
    is_main_process,
    past_command,
    plot_command,
    prepare_command,
    prepare_keys,
    recommend_command,
    refit_command,
    train_command,
    train_keys,
)
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
from attnrec_dist.fault_report import told
from attnrec_dist.help import check_command, check_options, short_help, versions
from attnrec_dist.interrupts import was_interrupted
from attnrec_dist.settings import take_overrides
from attnrec_dist.terminal import forgiving_streams
from attnrec_dist.yaml_text import shortened

OF_PAST = {"when": ["--user ID"], "replay": ["--step N"]}
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
    if arguments.help or arguments.help_all:
        keys = arguments.keys(arguments) if arguments.help_all else ""  # brings torch
        print(short_help(arguments.command) * (not keys) + arguments.parser.format_help() + keys, end="")
        return ExitCode.DONE
    return int(arguments.run(arguments, rest))


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

    prepare = _command(commands, "prepare", "raw log -> data set", prepare_command, prepare_keys)
    prepare.add_argument("config", metavar="CONFIG.yaml", nargs="?", type=Path)
    prepare.add_argument("--output", type=Path, help="where the data set goes, instead of output.dir")
    prepare.add_argument("--input", nargs="+", help="the raw files, instead of input.files")
    prepare.add_argument("--overwrite", action="store_true", help="replace a data set that is there already")
    prepare.add_argument("--print_config", action="store_true", help="print the complete configuration and stop")

    inspect = _command(commands, "inspect", "what is in a data set, checked: a table and a picture", inspect_command)
    inspect.add_argument("data", metavar="DATA_DIR", nargs="?", type=Path)
    inspect.add_argument("--output", type=Path, help="where the picture goes (default: DATA_DIR/inspect.png)")

    train = _command(commands, "train", "train on a data set; on a run directory that exists, go on", train_command, train_keys)
    train.add_argument("config", metavar="CONFIG.yaml", nargs="?", type=Path)
    train.add_argument(
        "--run_dir",
        type=Path,
        help="where the run is kept (default: runs/ and the YAML's name; of a run's config.yaml: that run)",
    )
    train.add_argument("--data", help="the data set, instead of data.path")
    train.add_argument("--print_config", action="store_true", help="print the complete configuration and stop")
    train.add_argument(
        "--profile", action="store_true", help="--tracking.profile_steps 10: a trace, and ten lines that sum it up"
    )

    refit = _command(commands, "refit", "train a finished run once more, on data without a validation part", refit_command)
    refit.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    refit.add_argument("--data", type=Path, help="the data set: the same log, nothing held back for validation (required)")
    refit.add_argument("--output", type=Path, help="the run directory to write (default: RUN_DIR-refit)")

    evaluate = _command(commands, "evaluate", "measure a run beside the baselines", evaluate_command, evaluation_keys)
    evaluate.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    evaluate.add_argument("--split", choices=["validation", "test"], default="test")
    evaluate.add_argument("--checkpoint", default="best", help="best, last, or a name such as step-00000100 (default: best)")
    evaluate.add_argument("--data", help="the data set, instead of the run's data.path")
    evaluate.add_argument("--output", type=Path, help="write the figures to this JSON file too")
    evaluate.add_argument(
        "--per_view", type=Path, help="write each customer's values, or each example's probability, to this Parquet file"
    )

    _add_compare(commands)
    _add_explain(commands)

    _add_recommend(commands)
    _add_past(commands)

    plot = _command(commands, "plot", "draw loss and metrics of a run to RUN_DIR/curves.png", plot_command)
    plot.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    for command in commands.choices.values():
        command.usage = _usage(command)
    parser.set_defaults(commands=list(commands.choices))
    return parser


def _add_compare(commands: Any) -> None:
    compare = _command(commands, "compare", "which of two or more runs is better, and how surely", compare_command)
    compare.add_argument("run_dirs", metavar="RUN_DIR", nargs="*", type=Path, help="two runs or more of one data set")
    compare.add_argument(
        "--metric", nargs="+", help="such as ndcg@10 or period/new/recall@20 (default: what chose the first run's checkpoint)"
    )
    compare.add_argument("--split", choices=["validation", "test"], default="test")
    compare.add_argument("--checkpoint", default="best", help="best, last, or a name such as step-00000100 (default: best)")
    compare.add_argument("--data", help="the data set, instead of the runs' data.path")
    compare.add_argument("--output", type=Path, help="write everything to this JSON file too")
    compare.add_argument("--plot", type=Path, help="draw the differences with their intervals to this PNG")


def _add_explain(commands: Any) -> None:
    explain = _command(commands, "explain", "which features and past behaviours a model weighed, checked", explain_command)
    explain.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    explain.add_argument("--output", type=Path, help="the directory for index.html and weights.png (required)")
    explain.add_argument("--users", nargs="+", metavar="ID", help="show the newest examples of these customers")
    explain.add_argument(
        "--show", type=int, default=8, metavar="N", help="without --users: examples of the sample that are shown"
    )
    explain.add_argument(
        "--sample", type=int, default=2000, metavar="N", help="examples that means and check are over (default: 2000)"
    )
    explain.add_argument("--seed", type=int, default=0, help="of the sample and of what is changed at random (default: 0)")
    explain.add_argument("--split", choices=["validation", "test"], default="test")
    explain.add_argument("--checkpoint", default="best", help="best, last, or a name such as step-00000100 (default: best)")
    explain.add_argument("--data", help="the data set, instead of the run's data.path")


def _add_recommend(commands: Any) -> None:
    recommend = _command(commands, "recommend", "the best items for customers, to a file or printed", recommend_command)
    recommend.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
    recommend.add_argument(
        "--output", type=Path, help="the file to write, .parquet, .csv or .jsonl; with --users it may be left out"
    )
    recommend.add_argument("--top_k", type=int, default=10, help="items a customer (default: 10)")
    recommend.add_argument(
        "--users",
        nargs="+",
        metavar="ID",
        help="these customers only (without --output: printed); unknown ones get the trend and are marked",
    )
    recommend.add_argument("--users_file", type=Path, help="a text file with one customer id a line")
    recommend.add_argument(
        "--histories",
        type=Path,
        help="fresh histories instead of the data set's: CSV, TSV or Parquet with the columns user, item, "
        "timestamp (as in the log; unix times, ISO 8601) and, optionally, event (one of the data set's types)",
    )
    recommend.add_argument("--exclude", type=Path, help="a text file with one item id a line, never recommended")
    recommend.add_argument(
        "--new_only", action="store_true", help="leave out what the customer already had among events of the predicted types"
    )
    recommend.add_argument("--checkpoint", default="best", help="best, last, or a name (default: best)")
    recommend.add_argument("--data", help="the data set, instead of the run's data.path")
    recommend.add_argument("--show", type=int, default=0, metavar="N", help="print histories and lists of N customers as well")


def _add_past(commands: Any) -> None:
    when = _command(commands, "when", "which steps of a run trained on a customer", past_command)
    when.add_argument("--user", metavar="ID", help="the customer, as the log names him (required)")
    replay = _command(commands, "replay", "what a step of a run trained on", past_command)
    replay.add_argument("--step", type=int, metavar="N", help="as metrics.jsonl counts, from 1 (required)")
    replay.add_argument("--output", type=Path, help="write the answer to this JSON file too")
    replay.add_argument("--recompute", action="store_true", help="compute its loss again, from the newest checkpoint before it")
    for command in (when, replay):
        command.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path)
        command.add_argument("--data", help="the data set, instead of the run's data.path")


def _usage(command: argparse.ArgumentParser) -> str:
    """What must be given stands without brackets; for argparse all is optional, so that --help works without it."""
    usage = command.format_usage().removeprefix("usage: ")
    for required in ("CONFIG.yaml", "RUN_DIR ...", "RUN_DIR", "DATA_DIR", *_also_required(command.prog)):
        usage = usage.replace(f"[{required}]", required)
    return usage.strip()


def _also_required(command: str) -> list[str]:
    return {"explain": ["--output OUTPUT"], "refit": ["--data DATA"], **OF_PAST}.get(command.rsplit(maxsplit=1)[-1], [])


def _command(commands: Any, name: str, text: str, run: Callable[..., int], keys: Callable[..., str] | None = None) -> Any:
    command = commands.add_parser(name, help=text, description=text, add_help=False, allow_abbrev=False)
    command.add_argument("-h", "--help", action="store_true", help="show an example, the keys that matter most and this")
    command.add_argument("--help-all", action="store_true", help="show every key, with default and meaning")
    command.set_defaults(run=run, parser=command, keys=keys or (lambda arguments: ""))
    return command
