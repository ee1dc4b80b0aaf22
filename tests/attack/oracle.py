"""What may come out of `prepare`, and what of any command. Nothing here uses the package: pyarrow, JSON and reader.py."""

from __future__ import annotations

import enum
import glob
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import reader
from forked import Ended
from logs import Attempt, Expected

LONGEST_MESSAGE = 10_000  # letters
PLAIN_DICTS = ("rename", "where", "features", "columns_of_entity")
UNFORESEEN = re.compile(r"nobody foresaw|please report", re.IGNORECASE)
BARE = re.compile(r"^(\w+\.)*\w*(Error|Exception)\b(?!\w)", re.MULTILINE)


class Fault(enum.StrEnum):
    """Kinds of failures, the worst first."""

    SILENT = "silent change"
    TRACEBACK = "traceback"
    HANG = "hang"
    CRASH = "crash"
    LOST = "something written was changed or lost"
    WRONGLY = "refused what is promised"
    MESSAGE = "unclear message"
    ITSELF = "the attack failed"


@dataclass
class Verdict:
    outcome: str  # read, refused, told
    faults: list[tuple[Fault, str]] = field(default_factory=list)

    def fail(self, fault: Fault, what: str) -> None:
        self.faults.append((fault, what))


def how_it_ended(ended: Ended) -> Verdict:
    """What holds for every command: an end in time, code 0, 1 or 2, a message in words where it is not 0."""
    verdict = Verdict("read" if ended.code == 0 else "refused")
    both = ended.err + ended.out
    if ended.code is None:
        verdict.fail(Fault.HANG, f"killed after {ended.seconds:.0f} s, at {_where(ended.err)}")
    elif ended.code < 0:
        verdict.fail(Fault.CRASH, f"ended by signal {-ended.code}")
    elif "Traceback (most recent call last)" in both:
        verdict.fail(Fault.TRACEBACK, _last_lines(ended.err if "Traceback" in ended.err else ended.out))
    elif ended.code not in (0, 1, 2):
        verdict.fail(Fault.CRASH, f"exit code {ended.code}")
    elif ended.code == 1 and UNFORESEEN.search(ended.err):
        verdict.fail(Fault.TRACEBACK, f"unforeseen: {_last_lines(ended.err)}")
    elif ended.code and "error: " not in ended.err:
        verdict.fail(Fault.MESSAGE, f"no message: {_last_lines(ended.err)}")
    elif ended.code and (BARE.search(ended.err) or len(ended.err) > LONGEST_MESSAGE):
        verdict.fail(Fault.MESSAGE, f"{len(ended.err):,} letters: {_last_lines(ended.err)}")
    return verdict


def _where(text: str) -> str:
    """The innermost lines of what faulthandler says of the main thread."""
    main = text.rpartition("Current thread")[2] or text
    frames = [line.strip() for line in main.splitlines() if line.strip().startswith("File ")]
    return " < ".join(re.sub(r'File ".*?([\w.-]+/[\w.-]+)", line (\d+) in (\S+)', r"\1:\2 \3", frame) for frame in frames[:4])


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    raised = [line for line in lines if BARE.match(line)]
    frames = [line for line in lines if "attnrec_dist" in line and line.startswith("File ")]
    place = re.sub(r'File ".*?(attnrec_dist/[\w./-]+)", line (\d+), in (\S+)', r" at \1:\2 \3", frames[-1]) if frames else ""
    return (raised or lines or ["nothing said"])[-1][:300] + place


def judge(attempt: Attempt, folder: Path, ended: Ended, inspected: Ended | None, base: str) -> Verdict:
    """`base` is the fingerprint of the unchanged log's data set; `inspected` how `inspect` of the result ended."""
    verdict = how_it_ended(ended)
    output = folder / "data"
    if list(folder.glob(".*.preparing")) and ended.code is not None:
        verdict.fail(Fault.LOST, "the scratch directory is left behind")
    if verdict.faults:
        return verdict
    if ended.code:
        if output.exists():
            verdict.fail(Fault.LOST, "refused, yet there is an output")
        if attempt.expected == Expected.SAME:
            verdict.fail(Fault.WRONGLY, _last_lines(ended.err))
        return verdict
    if any(option in attempt.arguments for option in ("--help", "--print_config")):
        return verdict
    found = stored_data_sets(folder)
    if not found:
        verdict.fail(Fault.SILENT, "exit code 0 and no data set")
        return verdict
    manifest = json.loads((found[0] / "manifest.json").read_text())
    if attempt.expected == Expected.REFUSED:
        verdict.fail(Fault.SILENT, "read, though it cannot be meant")
    elif attempt.expected == Expected.SAME_OR_REFUSED and manifest["fingerprint"] != base and "warning: " in ended.err:
        verdict.outcome = "told"
    elif attempt.expected < Expected.COUNTED and manifest["fingerprint"] != base:
        verdict.fail(Fault.SILENT, "another data set than from the unchanged log")
    elif attempt.expected == Expected.COUNTED and manifest["fingerprint"] != base:
        compare(attempt, folder, found[0], manifest, verdict)
    if inspected is not None and inspected.code != 0:
        verdict.fail(Fault.SILENT, f"inspect refuses what prepare wrote: {_last_lines(inspected.err)}")
    return verdict


def stored_data_sets(folder: Path) -> list[Path]:
    """Wherever --output has put them."""
    return [path.parent for path in sorted(folder.rglob("manifest.json"))]


def compare(attempt: Attempt, folder: Path, stored: Path, manifest: dict[str, Any], verdict: Verdict) -> None:
    """What prepare says it did, what is stored, and what the independent reader finds."""
    report = dict(manifest["cleaning"])
    rows, kept = report.pop("rows read"), report.pop("events kept")
    if rows != kept + sum(report.values()):
        verdict.fail(Fault.SILENT, f"{rows} rows read, {kept} kept and {report} left out do not add up")
    events, count = stored_events(stored, manifest)
    if count != kept:
        verdict.fail(Fault.SILENT, f"{count} events stored, {kept} kept")
    files = files_read(attempt, folder)
    if files is None:
        return
    try:
        log = reader.read(files, _tree(manifest["config"]))
    except reader.Unreadable as why:
        verdict.fail(Fault.SILENT, f"read, though an independent reader refuses it: {why}")
        return
    if not log.sure_count:
        return
    if log.rows != rows:
        verdict.fail(Fault.SILENT, f"{rows} rows read, an independent reader finds {log.rows}")
    filters = manifest["config"]["filters"]
    if filters["min_item_events"] > 1 or filters["min_user_events"] > 1:
        return
    missing, more = log.events - events, events - log.events
    if missing or len(more) > log.doubtful:
        shown = f"{sorted(missing)[:1]} missing, {sorted(more)[:1]} too many"
        verdict.fail(
            Fault.SILENT, f"{len(missing)} sure events missing, {len(more)} others ({log.doubtful} doubtful): {shown[:300]}"
        )


def stored_events(stored: Path, manifest: dict[str, Any]) -> tuple[set[tuple[str, str, int, str]], int]:
    users = pq.read_table(stored / "users.parquet")["id"].to_pylist()
    items = pq.read_table(stored / "items.parquet")["id"].to_pylist()
    kinds = manifest["event_types"] or [""]
    events, count = set(), 0
    for shard in manifest["shards"]:
        with pa.ipc.open_stream(stored / "sequences" / shard["name"]) as stream:
            for row in stream.read_all().to_pylist():
                count += len(row["items"])
                for item, time, kind in zip(row["items"], row["times"], row["events"], strict=True):
                    events.add((users[row["user"]], items[item], time, kinds[kind]))
    return events, count


def files_read(attempt: Attempt, folder: Path) -> list[Path] | None:
    """The log's files, from the last --input, else all that are called so. None where that cannot be told."""
    arguments = attempt.arguments
    if "--input" not in arguments:
        if any(argument.startswith("--input.files") for argument in arguments) or attempt.yaml_changes:
            return None
        files = [
            path
            for path in folder.iterdir()
            if path.name.startswith(attempt.layout.name) and path.name.endswith(_suffix(attempt))
        ]
        return sorted(files)
    last = len(arguments) - 1 - arguments[::-1].index("--input")
    names: list[str] = []
    for name in arguments[last + 1 :]:
        if name.startswith("--"):
            break
        names.append(name)
    found = {
        Path(match)
        for name in names
        for match in ([folder / name] if (folder / name).exists() else glob.glob(str(folder / name)))
    }
    return sorted(found) if all(path.is_file() for path in found) else None


def _suffix(attempt: Attempt) -> str:
    packed = attempt.layout.pack.split()[0] if attempt.layout.pack and attempt.is_text else ""
    return f".{attempt.layout.suffix}" + (f".{packed}" if packed else "")


def _tree(value: Any, key: str = "") -> Any:
    """Nested mappings as attributes, but for those whose keys are the user's own."""
    if isinstance(value, dict) and key not in PLAIN_DICTS:
        return SimpleNamespace(**{name: _tree(each, name) for name, each in value.items()})
    return value
