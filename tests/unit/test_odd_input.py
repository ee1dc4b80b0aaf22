"""Odd command lines and configurations, as a mistake or an attack may bring them: code 2 and one line, whatever it is; and
streams that take nothing. In this process, so that a hundred of them take seconds."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import yaml
from tiny_shop import PREPARE, RUN

from attnrec_dist import errors
from attnrec_dist.cli import main
from attnrec_dist.commands import plot
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.errors import ConfigError, ExitCode
from attnrec_dist.storage.yaml_text import MOST_BYTES, parse_yaml, read_yaml
from attnrec_dist.terminal import fault_report, interrupts
from attnrec_dist.terminal.streams import Stream, forgiving_streams

LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(9))
WRITTEN = {
    "a list as key": "? [a]\n: 1\n",
    "a mapping as key": "? {a: 1}\n: 1\n",
    "a number as key": RUN + "1: x\n",
    "null as key": RUN + "null: x\n",
    "true as key": RUN + "true: x\n",
    "1,000 brackets": "data: " + "[" * 1000 + "]" * 1000,
    "100,000 brackets": "[" * 100_000,
    "100 braces": "data: " + "{a: " * 100 + "1" + "}" * 100,
    "1,000 levels by indentation": "".join(" " * n + "a:\n" for n in range(1000)),
    "an integer of 4,301 digits": f"train: {{seed: {'9' * 4301}}}\n",
    "an integer of 400 digits for a number": RUN + f"loss: {{label_smoothing: {'9' * 400}}}\n",
    "a number beyond all": RUN + "loss: {label_smoothing: 1e999}\n",
    "no number": RUN + "loss: {label_smoothing: .nan}\n",
    "NUL": "data: {path: a\0b}\n",
    "NUL, escaped": 'data: {path: "a\\0b"}\n',
    "half a pair": 'data: {path: "a\\ud800b"}\n',
    "a control character": "data: {path: a\x07b}\n",
    "a billion laughs": LAUGHS,
    "a billion merges": MERGED,
    "a merge": "data: &d {path: d}\nmodel: {<<: *d}\n",
    "an alias inside itself": "data: &d [*d]\n",
    "an alias inside itself, deeper": "data: &d {path: {a: [1, *d]}}\n",
    "an alias of nothing": "data: *d\n",
    "a python object": "data: !!python/object/apply:os.system [echo]\n",
    "a python name": "data: !!python/name:os.system\n",
    "binary": "data: !!binary aGk=\n",
    "a set": "data: !!set {path}\n",
    "a timestamp": "data: !!timestamp 2001-01-01\n",
    "no timestamp": "data: !!timestamp x\n",
    "no integer": "train: {seed: !!int x}\n",
    "no number by tag": "train: {seed: !!float x}\n",
    "neither true nor false": "train: {compile: !!bool x}\n",
    "a list by tag": "train: !!seq x\n",
    "an unknown tag": "data: !x y\n",
    "a directive": "%YAML 9.9\n---\ndata: 1\n",
    "two documents": RUN + "---\n" + RUN,
    "three dots and more": RUN + "...\nmore\n",
    "tabs": "data:\n\tpath: d\n",
    "a list": "- data\n",
    "a text": "data\n",
    "a number": "5\n",
    "nothing": "",
    "a comment": "# data\n",
    "a list for a section": RUN + "loss: [softmax]\n",
    "a text for a section": "data: d\nmodel: {name: sasrec}\n",
    "a text for the model": "data: {path: d}\nmodel: sasrec\n",
    "a mapping for a text": "data: {path: {a: b}}\nmodel: {name: sasrec}\n",
    "a list for a text": "data: {path: [a]}\nmodel: {name: sasrec}\n",
    "a list for the model's name": "data: {path: d}\nmodel: {name: [sasrec]}\n",
    "a mapping for a number": "data: {path: d}\nmodel: {name: sasrec, width: {a: 1}}\n",
    "a number for the loss": RUN + "loss: 5\n",
    "null for the data": "data:\nmodel: {name: sasrec}\n",
    "a key with a dot": RUN + "train.seed: 1\n",
    "a key of 10,000 letters": RUN + f"{'k' * 10_000}: 1\n",
    "a value of 10,000 letters": RUN + f"loss: {{name: {'k' * 10_000}}}\n",
    "a key of two lines": RUN + '"a\\nb": 1\n',
    "an emoji": RUN + "\U0001f600: \U0001f600\n",
    "a right-to-left mark": RUN + "\u202etrain: 1\n",
    "an open quote": "data: 'd\n",
    "an open bracket": "data: [d\n",
    "a colon too many": "data: path: d\n",
    "a million threads": RUN.replace("threads: 1", "threads: 1000000"),
}


def one_line(code: int, capfd: pytest.CaptureFixture[str]) -> str:
    """What was told, where it is as it should be."""
    told = capfd.readouterr()
    assert (code, told.out) == (ExitCode.USER_ERROR, ""), told.err[-1000:]
    assert told.err.startswith("attnrec: error: "), told.err[:1000]
    assert told.err.count("\n") == 1, told.err[:1000]
    assert len(told.err) < 11_000
    return told.err


@pytest.mark.parametrize("command", ["train", "prepare"])
@pytest.mark.parametrize("what", WRITTEN)
def test_an_odd_configuration_is_refused_in_a_line(what, command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.yaml").write_text(WRITTEN[what], encoding="utf-8", errors="surrogatepass")
    capfd.readouterr()
    code = main([command, "odd.yaml"])
    assert "odd.yaml" in one_line(code, capfd) or what == "an emoji"
    assert [path.name for path in tmp_path.iterdir()] == ["odd.yaml"]


@pytest.mark.parametrize(
    "options",
    [
        ["--train.seed=["],
        ["--train.seed", "{"],
        ["--train.seed", "9" * 4301],
        ["--train.seed", "[" * 1000],
        ["--train.seed", "? [a]"],
        ["--train.seed", "&a [*a]"],
        ["--train.seed", "!!int x"],
        ["--train.seed", "a: b: c"],
        ["--train.seed", "1\n---\n2"],
        ["--train.seed", "\U0001f600"],
        ["--train.seed", "caf\udcc3"],
        ["--train.seed", "a\0b"],
        ["--train.seed", '"a\\0b"'],
        ["--train.seed.x", "1"],
        ["--train.seed." + ".".join("x" * 2000), "1"],
        ["--train.seed"],
        ["--train", "5"],
        ["--train", "[1]"],
        ["--train", "null"],
        ["--model", "5"],
        ["--model.name", "[a]"],
        ["--model.name", "null"],
        ["--loss.name", "{a: b}"],
        ["--="],
        ["--=5"],
        ["--.", "1"],
        ["--.a", "1"],
        ["--a.", "1"],
        ["--a..b", "1"],
        ["--...", "1"],
        ["---train.seed", "1"],
        ["--train.\U0001f600", "1"],
        ["--\U0001f600.seed", "1"],
        ["--train.seed\n", "1"],
        ["-x"],
        ["-"],
        [""],
        ["\udcff"],
        ["--data", "a\0b"],
        ["--data", "d\udcff"],
        ["--run_dir", "a\0b"],
        ["--run_dir", "r\udcff"],
        ["--train.threads", "1000000"],
        ["--evaluation.threads", "1000000"],
        ["--data.workers", "1000000"],
    ],
)
def test_an_odd_option_is_refused_in_a_line(options, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN)
    capfd.readouterr()
    one_line(main(["train", "run.yaml", *options]), capfd)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_what_is_no_file_of_text_is_refused_at_once(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    Path("folder.yaml").mkdir()
    with open("huge.yaml", "wb") as file:
        file.truncate(100 * 2**20)
    Path("latin.yaml").write_bytes("data: {path: caf\xe9}".encode("latin-1"))
    Path("cut.yaml").write_bytes("data".encode("utf-16")[:-1])
    names = ["pipe.yaml", "folder.yaml", "huge.yaml", "latin.yaml", "cut.yaml", "/dev/zero", "/dev/null", "/dev/tty", "n" * 300]
    for name in [*names, "a\0b.yaml", "caf\udcc3.yaml", ".", "/", "none/none.yaml", "latin.yaml/x"]:
        capfd.readouterr()
        assert repr(name)[1:9].rstrip("'") in one_line(main([command, name]), capfd)


def test_other_encodings_and_a_pipe_of_the_shell_are_read(tmp_path):
    text = "data: {path: caf\xe9}\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "run.yaml").write_text(text, encoding=encoding)
        assert read_yaml(tmp_path / "run.yaml") == {"data": {"path": "caf\xe9"}}, encoding
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    assert read_yaml(Path(f"/dev/fd/{reading}")) == {"data": {"path": "caf\xe9"}}
    os.close(reading)


def test_anchors_within_reason_and_tags_of_plain_values_are_read():
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: {d: *x}\n", "t") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}
    assert parse_yaml("{a: !!str 1, b: !!int '2', c: !!float 1, '1': !!null '', 'true': !!bool true}", "t") == {
        "a": "1",
        "b": 2,
        "c": 1.0,
        "1": None,
        "true": True,
    }
    assert parse_yaml(yaml.safe_dump([[1] * 300] * 300), "t") == [[1] * 300] * 300
    assert MOST_BYTES >= 2**20
    with pytest.raises(ConfigError, match="line 2, column 1: not valid YAML: the key 1 is no text; write it in quotes"):
        parse_yaml("a: b\n1: c", "t")


# The last handler


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """`attnrec plot` meets an error of one's choice, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNREC_DEBUG", raising=False)

    def of(error: BaseException) -> None:
        def fail(*arguments: object) -> None:
            secret_of_a_customer = "u1, 1234 5678"  # noqa: F841  (locals are not told)
            raise error

        monkeypatch.setattr(plot, "COMMAND", dataclasses.replace(plot.COMMAND, run=fail))

    return of


@pytest.mark.parametrize("error", [ValueError("what\nis this"), RecursionError("too deep"), KeyError("x"), AssertionError()])
def test_what_nobody_foresaw_is_a_line_and_a_report(error, broken, tmp_path, capsys):
    broken(error)
    assert main(["plot", str(Path.home() / "secret" / "run")]) == ExitCode.FAULT
    told = capsys.readouterr()
    (report,) = tmp_path.glob("attnrec-fault-*.txt")
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith(f"attnrec: error: attnrec plot met what nobody foresaw ({type(error).__name__}")
    assert str(report) in told.err
    text = report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600
    assert "in fail" in text, "where it happened"
    assert "command: attnrec plot * (one process)" in text
    assert re.search(r"versions: python 3.*attnrec_dist .*torch \d", text)
    assert "secret" not in text.replace("secret_of_a_customer", "")
    assert "1234" not in text.replace('"u1, 1234 5678"', "")
    assert str(Path.home()) + "/" not in text


def test_of_several_processes_each_tells_a_line(broken, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RANK", "3")
    broken(ValueError("x"))
    assert main(["plot", "x"]) == ExitCode.FAULT
    told = capsys.readouterr().err
    assert told.startswith("attnrec, rank 3: error: attnrec plot met")
    assert told.count("\n") == 1


def test_with_attnrec_debug_the_traceback_comes_at_once(broken, monkeypatch):
    monkeypatch.setenv("ATTNREC_DEBUG", "1")
    broken(ValueError("what is this"))
    with pytest.raises(ValueError, match="what is this"):
        main(["plot", "x"])


def test_where_nothing_can_be_written_the_line_says_so(broken, monkeypatch, capsys):
    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fault_report.tempfile, "mkstemp", full)
    broken(ValueError("what is this"))
    assert main(["plot", "x"]) == ExitCode.FAULT
    assert "(ValueError: what is this), and no report could be written (OSError: " in capsys.readouterr().err


def test_a_report_masks_what_may_be_a_secret():
    words = [
        "train",
        "my.yaml",
        "--train.seed",
        "1",
        "--data.path=/home/me",
        "--run_dir",
        "7",
        "--users",
        "12",
        "--optimizer.lr=1e-3",
    ]
    shown = "train * --train.seed 1 --data.path=* --run_dir * --users * --optimizer.lr=1e-3"
    assert " ".join(fault_report.masked(words, "train")) == shown


# Memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("Failed to launch worker thread: Resource temporarily unavailable"),
    ],
)
@pytest.mark.parametrize("limit", [2**31, -1])
def test_memory_that_ran_out_is_told_with_the_shells_limit(error, limit, broken, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(errors.resource, "getrlimit", lambda which: (limit, limit))
    broken(error)
    assert main(["plot", "x"]) == ExitCode.FAULT
    *notes, told = capsys.readouterr().err.splitlines()
    assert re.match(r"attnrec: error: (out of memory|no thread could be started) \(", told)
    assert ("2,097,152 KiB of address space (ulimit -v): type ulimit -v unlimited" in told) == (limit > 0)
    assert len(notes) == (limit > 0), "told before, since a library may end without a word"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [2**31, -1])
def test_training_and_preparing_without_memory_name_the_shells_limit_first(limit, monkeypatch, tmp_path):
    from attnrec_dist.engine.job import in_our_words
    from attnrec_dist.prepare.config.sections import EngineSection
    from attnrec_dist.prepare.engines.duckdb import DuckEngine

    monkeypatch.setattr(errors.resource, "getrlimit", lambda which: (limit, limit))
    (tmp_path / "run.yaml").write_text(RUN)
    advice = "type ulimit -v unlimited before it; or "
    told = str(in_our_words(MemoryError(), load_run_config(tmp_path / "run.yaml", {})))
    assert f"out of memory (MemoryError); {'this shell' if limit > 0 else 'type --train.micro_batch_tokens 50'}" in told
    assert (advice in told) == (limit > 0)
    with DuckEngine(EngineSection(), tmp_path) as engine:
        by_system = duckdb.OutOfMemoryException("Out of Memory Error: Failed to allocate block of 262144 bytes (bad allocation)")
        told = str(engine._translated(by_system))
        assert "set engine.memory_limit" in told
        assert told.endswith("and engine.threads lower")
        assert (advice in told) == (limit > 0)
        own = duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block of size 1.0 MiB (190 MiB/190 MiB used)")
        assert str(engine._translated(own)).endswith("raise it")


# Ctrl-C


def test_an_interrupt_that_a_library_made_its_own_error_is_one(broken, capsys, tmp_path):
    error = ImportError("numpy: you should not import from its source directory")
    error.__cause__ = KeyboardInterrupt()
    ours = errors.FaultError("the engine of prepare failed")
    ours.__context__ = duckdb.InterruptException("INTERRUPT Error: Interrupted!")
    for each in (error, RuntimeError("Query interrupted"), ours):
        broken(each)
        assert main(["plot", "x"]) == 130
        assert capsys.readouterr().err == "attnrec: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_a_library_swallowed_is_one(monkeypatch, tmp_path, capsys):
    """Seen: torch catches it while it imports numpy, which then cannot be imported for another reason."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNREC_DEBUG", raising=False)
    monkeypatch.setattr(interrupts, "heard", [])

    def swallow(*arguments: object) -> None:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # at once: a launcher passes on what the terminal has sent
        raise RecursionError("numpy")

    monkeypatch.setattr(plot, "COMMAND", dataclasses.replace(plot.COMMAND, run=swallow))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.hear_interrupts()
        assert main(["plot", "x"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "attnrec: interrupted\n"
    monkeypatch.setattr(interrupts, "AFTERMATH", 0.0)
    monkeypatch.setattr(plot, "COMMAND", dataclasses.replace(plot.COMMAND, run=lambda *arguments: 1 / 0))
    assert main(["plot", "x"]) == ExitCode.FAULT


def test_an_interrupt_during_the_imports_is_a_line():
    code = """
import builtins, runpy
real = builtins.__import__
def stopped(name, *rest, **more):
    if name == "yaml":
        raise KeyboardInterrupt
    return real(name, *rest, **more)
builtins.__import__ = stopped
runpy.run_module("attnrec_dist", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "attnrec: interrupted\n")


# Streams


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Left(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def prints(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    def show(*arguments: object) -> int:
        print("caf\xe9 \U0001f600 \udcff")
        print("caf\xe9", file=sys.stderr)
        sys.stdout.flush()
        done.append("to the end")
        return 0

    monkeypatch.setattr(plot, "COMMAND", dataclasses.replace(plot.COMMAND, run=show))


@pytest.mark.parametrize(
    ("stream", "code", "told"),
    [
        (
            Full(),
            1,
            "attnrec: error: writing to the standard output; what was to go into files is there: No space left on device; ",
        ),
        (Left(), 0, ""),
        (None, 0, ""),
    ],
)
def test_an_output_that_takes_nothing_ends_no_command(stream, code, told, monkeypatch, capsys):
    done: list[str] = []
    prints(monkeypatch, done)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["plot", "x"]) == code
    assert done == ["to the end"]
    assert sys.stdout is stream
    assert capsys.readouterr().err.removeprefix("caf\xe9\n").startswith(told)
    for each in (None, Full()):
        monkeypatch.setattr(sys, "stderr", each)
        assert main(["plot", "x"]) == code


def test_letters_that_a_terminal_does_not_have_are_escaped(monkeypatch):
    written = io.BytesIO()
    prints(monkeypatch, [])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["plot", "x"]) == 0
    assert written.getvalue() == b"caf\\xe9 \\U0001f600 \\udcff\n"


def test_a_wrapped_stream_is_like_the_one_inside():
    inner = io.StringIO()
    with forgiving_streams():
        assert sys.stderr.isatty() is False
        assert sys.stderr.fileno
    stream = Stream(inner)
    stream.writelines(["a", "b"])
    assert (inner.getvalue(), stream.lost) == ("ab", None)


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", ">&- 2>&-", "| head -c 1"])
def test_a_real_process_whose_output_is_not_taken(redirection, tmp_path):
    """Without words of Python's own at its end, too."""
    command = f"set -o pipefail; {sys.executable} -m attnrec_dist --help {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == (1 if "full" in redirection else 0)
    assert done.stderr.count("\n") == (1 if "full" in redirection else 0), done.stderr


@pytest.mark.parametrize("columns", ["0", "1", "20", "-5", "many", "100000"])
def test_a_terminal_of_any_width(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    for command in ("evaluate", "recommend", "compare"):
        assert main([command, "--help"]) == 0
        assert f"attnrec {command}" in " ".join(capsys.readouterr().out.split())


def test_an_ascii_terminal_loses_nothing(tmp_path):
    config = PREPARE.replace("log.csv", "caf\xe9.csv")
    (tmp_path / "p.yaml").write_text(config, encoding="utf-8")

    def attnrec(*words: str | bytes) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "attnrec_dist", *words]
        return subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT | ASCII, capture_output=True, check=False)

    done = attnrec("prepare", "p.yaml", "--print_config")
    assert done.returncode == 0, done.stderr
    assert b"- caf\\xe9.csv\n" in done.stdout
    done = attnrec("plot", "caf\xe9".encode())
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"type PYTHONUTF8=1 before it" in done.stderr
