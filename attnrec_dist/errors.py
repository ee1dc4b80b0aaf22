"""The error tree. Everything this package raises on purpose is one of these.

AttnrecError
├── UserError                 the user's mistake: exit code 2, nothing written is lost
│   ├── ConfigError           a YAML file, a key, a value, an override
│   ├── InputError            the raw log that `prepare` reads
│   ├── DataError             a prepared data set: damaged, foreign, or of another format
│   ├── RunDirError           a run directory: missing, locked, of another configuration
│   │   └── CheckpointError   a checkpoint: of other data, another model or format
│   │       └── DamagedError  truncated, or not as its checksums say
│   └── MissingExtraError     an optional package that is not installed
├── FaultError                not the user's mistake: exit code 1
│   ├── StorageError          disk full, read-only, vanished
│   ├── WorkerError           a loader worker died or timed out
│   └── PeerError             another process of the job died or timed out
└── StopRequested             nobody's: a stop request cut short what can be done later

A message says what is wrong, where (file, row, column, config path) and what to type next.
"""

from __future__ import annotations

import enum
import errno
import resource


class ExitCode(enum.IntEnum):
    """Exit codes of plain `attnrec`; under a launcher read status.json instead."""

    DONE = 0
    FAULT = 1
    USER_ERROR = 2
    RUN_AGAIN = 75  # stopped on request with a checkpoint; the same command goes on


class AttnrecError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command ends with."""

    exit_code = ExitCode.FAULT


class UserError(AttnrecError):
    exit_code = ExitCode.USER_ERROR


class ConfigError(UserError):
    pass


class InputError(UserError):
    pass


class DataError(UserError):
    pass


class RunDirError(UserError):
    pass


class CheckpointError(RunDirError):
    pass


class DamagedError(CheckpointError):
    pass


class MissingExtraError(UserError):
    """An optional package is not installed; the message holds the line to type."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package {package}: pip install 'attnrec_dist[{extra}]'")


class FaultError(AttnrecError):
    pass


class StorageError(FaultError):
    """The operating system refused a read or a write."""

    @classmethod
    def of(cls, error: OSError, doing: str) -> StorageError:
        hint = {
            errno.ENOSPC: "free some space and run the same command again",
            errno.EDQUOT: "your quota is used up; free some space and run the same command again",
            errno.EROFS: "the file system is read-only; choose another directory",
            errno.EACCES: "check the permissions of the path",
        }.get(error.errno or 0, "run the same command again once this is mended")
        where = f" ({error.filename})" if error.filename else ""
        return cls(f"{doing}: {error.strerror or error}{where}; {hint}")


class WorkerError(FaultError):
    pass


class PeerError(FaultError):
    pass


class StopRequested(AttnrecError):
    exit_code = ExitCode.RUN_AGAIN


OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "llocate memory", "to map segment", "unable to mmap")
NO_THREAD = ("start new thread", "launch worker thread", "Resource temporarily unavailable")
LITTLE = 4 * 2**30  # bytes of address space, of which torch and its threads take a good part


def refused_resource(error: BaseException) -> str | None:
    """In words: memory or a thread that the system did not give, with what to type; None for other errors. Libraries tell it in
    many ways."""
    text = " ".join(str(error).split())
    headline = f"{type(error).__name__}{f': {text[:120]}' if text else ''}"
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return f"out of memory ({headline}); {address_limit() or 'free some, or run it on a machine with more'}"
    if any(sign in text for sign in NO_THREAD):
        most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        threads = f"this user may have {most:,} processes and threads (ulimit -u): end others, or raise it"
        return f"no thread could be started ({headline}); {address_limit() or threads}"
    return None


def address_limit(below: float = float("inf")) -> str | None:
    """In words: the shell's limit on address space, with what to type; None where there is none, or none below so many bytes."""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY or most >= below:
        return None
    return f"this shell allows a process {most // 1024:,} KiB of address space (ulimit -v): type ulimit -v unlimited before it"
