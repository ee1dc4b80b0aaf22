"""One command in a forked child of this preloaded process: the imports, six seconds a process, are done once.

The child sees what `python -m attnrec_dist ...` sees, in a folder of its own, with a limit on time, memory and file size; what
it prints goes to files. At the limit of time it is asked where it stands and then killed, with all that it started.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import resource
import runpy
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

SECONDS = 60.0  # a case takes one or two on an idle core
MEMORY = 6 * 2**30  # bytes of address space beyond what the preloaded parent has
FILE_SIZE = 2**30
ANSWER = 1.0  # seconds to say where it stands
READ_ANYTHING = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root read what nobody may


@dataclass(frozen=True)
class Ended:
    """How a command ended. `code` is that of a shell: negative where a signal ended it, None where it was killed at the limit."""

    code: int | None
    out: str
    err: str
    seconds: float


def preload() -> None:
    """Everything that the commands import; nothing is computed, so that no thread is lost in a fork."""
    import datasets  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch._dynamo
    import torch.distributed.fsdp
    import torch.utils.data  # noqa: F401
    from accelerate import Accelerator  # noqa: F401

    gc.collect()
    gc.freeze()  # the collector leaves shared pages alone


def attnrec(arguments: Sequence[object], folder: Path, seconds: float = SECONDS, draws: bool = True) -> Ended:
    """`attnrec ARGUMENTS` in this folder; pictures, which take most of the time of some commands, where it `draws`."""

    def run() -> None:
        if not draws:
            sys.modules |= dict.fromkeys(["matplotlib.figure", "matplotlib.backends.backend_agg"])  # as if not installed
        sys.argv = ["attnrec", *map(str, arguments)]
        runpy.run_module("attnrec_dist", run_name="__main__")

    return forked(run, folder, seconds)


def forked(run: Callable[[], None], folder: Path, seconds: float = SECONDS) -> Ended:
    """A function as if it were a script: what it raises is printed and ends with 1, SystemExit with its own code."""
    streams = [folder / ".stdout", folder / ".stderr"]
    sys.stdout.flush()
    sys.stderr.flush()
    begin = monotonic()
    pid = os.fork()
    if pid == 0:
        _child(run, folder, streams)
    ended = os.pidfd_open(pid)
    try:
        in_time = bool(select.select([ended], [], [], seconds)[0])
        if not in_time:
            os.kill(pid, signal.SIGUSR2)
            select.select([ended], [], [], ANSWER)
        _kill_group(pid)  # what it started and left behind, too
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(ended)
    texts = [path.read_bytes().decode(errors="replace") if path.exists() else "" for path in streams]
    for path in streams:
        path.unlink(missing_ok=True)
    for report in folder.glob("attnrec-fault-*.txt"):  # of what nobody foresaw
        texts[1] += f"\n{report.read_text()}"
        report.unlink()
    return Ended(os.waitstatus_to_exitcode(status) if in_time else None, *texts, monotonic() - begin)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)  # not yet waited for, so the number is still the child's
    except ProcessLookupError:
        pass


def _child(run: Callable[[], None], folder: Path, streams: list[Path]) -> NoReturn:
    code: Any = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for place, path in enumerate(streams, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), place)
        faulthandler.register(signal.SIGUSR2, all_threads=True, file=2)
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder)
        _limit()
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as an interpreter does at its end
    finally:
        os._exit(code or 0)


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        _read_as_others_do()


def _read_as_others_do() -> None:
    """Takes root's right to read and write what the permissions forbid."""
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of capabilities 0 to 31, then of 32 to 63
    if libc.capget(header, sets) == 0:
        for capability in READ_ANYTHING:
            sets[0] &= ~(1 << capability)
        libc.capset(header, sets)
