"""Which files an input is, and their bytes: found, plain files, unpacked to the end, and the same from first to last."""

from __future__ import annotations

import difflib
import glob
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from attnrec_dist.errors import InputError, StorageError
from attnrec_dist.paths import absolute
from attnrec_dist.terminal.layout import counted

COMPRESSIONS = {"gz": "gzip", "zst": "zstd"}  # what can be read; Parquet brings its own

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

# The first bytes of files that are not what their name says. No text begins so.
_BEGINNINGS = {
    b"\x1f\x8b": "gzip data; let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "zstd data; let its name end in .zst",
    b"BZh91AY&SY": "bzip2 data; unpack it",
    b"\xfd7zXZ\x00": "xz data; unpack it",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"PAR1\x15": "a Parquet file; set format: parquet, or let its name end in .parquet",
    b"ARROW1\x00": "an Arrow file; save it as Parquet",
    b"Obj\x01": "an Avro file; save it as Parquet",
    b"SQLite format 3\x00": "an SQLite database; export the table as CSV",
    b"\x89HDF": "an HDF5 file; save it as Parquet",
    b"%PDF-": "a PDF",
    b"version https://git-lfs": "a Git LFS pointer; type git lfs pull",
    b"<!DOCTYPE": "a web page; fetch the file itself",
    b"<!doctype": "a web page; fetch the file itself",
    b"<html": "a web page; fetch the file itself",
    b"\xff\xfe": "UTF-16 text; set encoding: utf-16",
    b"\xfe\xff": "UTF-16 text; set encoding: utf-16",
}


@dataclass(frozen=True)
class Stamp:
    """What tells whether a file is still the one that was looked at."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        try:
            found = path.stat()
        except OSError as error:
            raise StorageError.of(error, f"reading {path}") from None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


def require_same(stamps: dict[Path, Stamp]) -> None:
    """Raises InputError when a file is another than at its stamp."""
    for path, before in stamps.items():
        if (now := Stamp.of(path)) != before:
            sizes = f"{before.size:,} bytes before, {now.size:,} now" if now.size != before.size else "written to, or replaced"
            raise InputError(f"{path}: changed while it was read ({sizes}); wait until it is complete and run the same again")


def find_files(
    patterns: list[str],
    base: Path,
    where: str,
    in_order: bool = False,
    of_one_kind: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[Path, dict[str, str | None]]:
    """{file that the patterns match: the columns that its directories' names give}, sorted, each file once.

    Of a directory, all files below it are meant. Of these, and of what a pattern matches, names that begin with . or _ are no
    data; it is told. With `in_order` they come as they are listed; a directory, or a pattern of several, is refused. With
    `of_one_kind` those of a directory or pattern must have names that end alike. Raises InputError for one that matches none,
    and for what is no plain file: it is read more than once.
    """
    found: dict[Path, dict[str, str | None]] = {}
    for pattern in patterns:
        path = _placed(pattern, base, where)
        is_pattern = not path.exists() and glob.has_magic(pattern)
        if in_order and (path.is_dir() or (is_pattern and len(glob.glob(str(path), recursive=True)) > 1)):
            kind = "directory" if path.is_dir() else "pattern"
            raise InputError(
                f"{where}: the order of the lines is the time, and the {kind} {pattern} does not tell the order of its files; "
                "list them one by one, the earliest first"
            )
        matches, passed_over = _matches(path, pattern, where)
        if passed_over:
            shown = f"{', '.join(file.name for file in passed_over[:3])}{', ...' if len(passed_over) > 3 else ''}"
            tell(f"note: {where}: {pattern}: {counted(len(passed_over), 'file')} passed over, no data by name: {shown}")
        if of_one_kind:
            _require_one_kind(matches, pattern, where)
        for match in matches:
            found.setdefault(_plain(match, where), partition_of(match))
    return found if in_order else dict(sorted(found.items()))


def _matches(path: Path, pattern: str, where: str) -> tuple[list[Path], list[Path]]:
    """The files that are meant, and those that are passed over by their names."""
    matches = [path] if path.exists() else [Path(match) for match in glob.glob(str(path), recursive=True)]
    directories = [match for match in matches if match.is_dir()]
    root = path
    if directories and len(directories) == len(matches):  # else ** has met the files in them, too
        matches = [file for directory in directories for file in _files_below(directory)]
    while glob.has_magic(str(root)) and not root.exists():
        root = root.parent
    files = [match for match in matches if not match.is_dir()]
    kept = [file for file in files if _is_data(file, root) or any(part[0] in "._" for part in path.relative_to(root).parts)]
    if not kept and directories:
        raise InputError(f"{where}: the directory {directories[0]} holds no file to read; name another, or type --{where} PATH")
    if not kept:
        what = "no file matches" if glob.has_magic(pattern) else "no such file:"
        raise InputError(f"{where}: {what} {path}{_similar_file(path)}; set it, or type --{where} PATH")
    return kept, sorted(set(files) - set(kept))


def _files_below(directory: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(directory, followlinks=True) for name in names]


def _is_data(file: Path, root: Path) -> bool:
    """Whether no name below `root` is one of those that Spark, Hive and others give to what is no data."""
    return not any(part[0] in "._" for part in file.relative_to(root).parts)


def _require_one_kind(files: list[Path], pattern: str, where: str) -> None:
    """Raises InputError where a file's name ends otherwise than those of the others."""
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        suffix, _ = suffixes_of(file)
        by_suffix.setdefault(suffix if suffix.isalpha() else "", []).append(file)
    if len(by_suffix) > 1:
        usual, *_, rare = sorted(by_suffix, key=lambda suffix: (-len(by_suffix[suffix]), suffix))
        raise InputError(
            f"{where}: {by_suffix[rare][0]} is not named like the other files of {pattern}, such as {by_suffix[usual][0].name}; "
            "if it is no data, set it aside; else list the files, or patterns of them"
        )


def partition_of(path: Path) -> dict[str, str | None]:
    """The columns that directories called `name=value` give, as Hive and Spark write them.

    >>> partition_of(Path("log/day=2011-01-04/shop=a%3Db/part-0.csv"))
    {'day': '2011-01-04', 'shop': 'a=b'}
    """
    pairs = [part.partition("=") for part in path.parent.parts if "=" in part.strip("=")]
    return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, _, value in pairs}


def _placed(pattern: str, base: Path, where: str) -> Path:
    if not pattern.strip() or "\0" in pattern:
        raise InputError(f"{where}: {pattern!r} is no path; set it, or type --{where} PATH")
    try:
        path = absolute(pattern, base)
        path.exists()  # the system may refuse the name itself
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        shown = pattern if len(pattern) <= 100 else pattern[:97] + "..."
        raise InputError(f"{where}: {shown!r} is no path that can be opened ({reason}); set it, or type --{where} PATH") from None
    return path


def _plain(path: Path, where: str) -> Path:
    """The file itself, links followed."""
    try:
        mode = path.stat().st_mode
        real = path.resolve(strict=True)
    except FileNotFoundError:
        raise InputError(f"{where}: {path} is a link to a file that is not there; mend the link, or name the file") from None
    except (OSError, RuntimeError) as error:
        raise InputError(f"{where}: {path} cannot be opened ({error}); mend the link, or name the file") from None
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise InputError(f"{where}: {path} is {kind}, no file, and the log is read more than once; write it to a file first")
    try:
        str(real).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: the name {str(real)!r} is not UTF-8 text; rename the file") from None
    return real


def suffixes_of(path: Path) -> tuple[str, str]:
    """(what the name says of the format, of the compression), lower case; empty: nothing."""
    suffixes = ["", *(suffix.lower().lstrip(".") for suffix in path.suffixes)]
    compression = suffixes.pop() if suffixes[-1] in COMPRESSIONS else ""
    return suffixes[-1], compression


@contextmanager
def unpacked(path: Path) -> Iterator[pa.NativeFile]:
    """The file's bytes, decompressed by what its name says; errors on the way become ours.

    Who reads to the end knows that the file is whole: every member of gzip with its length and CRC, every frame of zstd with
    its end, and its checksum where it has one; nothing behind them.
    """
    compression = COMPRESSIONS.get(suffixes_of(path)[1])
    try:
        with pa.input_stream(str(path), compression=compression, buffer_size=1 << 16) as stream:
            yield stream
    except OSError as error:
        if error.errno is not None:
            raise StorageError.of(error, f"reading {path}") from None
        raise InputError(
            f"{path}: cannot be unpacked, it is cut off, damaged or not what its name says ({error}); fetch it again"
        ) from None


def really(head: bytes) -> str:
    """What a file with these first bytes is, and what to do; empty: nothing that is known."""
    return next((what for beginning, what in _BEGINNINGS.items() if head.startswith(beginning)), "")


def _similar_file(path: Path) -> str:
    try:
        close = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1, 0.6)
    except OSError:
        return f"; the directory {path.parent} does not exist" if not path.parent.exists() else ""
    return f"; did you mean {close[0]}?" if close else ""
