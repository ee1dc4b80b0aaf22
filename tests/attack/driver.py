"""The attack's order, its cases one after another, and the table at the end. `python tests/attack --help`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import forked
import pyarrow as pa
from damage import Damages
from inputs import Inputs
from oracle import Fault, Verdict
from store import Store

OF_FIVE = {"inputs": 2, "damage": 3}  # of five cases in a row


@dataclass
class Told:
    """One case, done."""

    number: int
    kind: str
    what: str
    verdict: Verdict
    digest: str  # of what was tried: equal ones are one


@dataclass
class Totals:
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    different: dict[str, set[str]] = field(default_factory=dict)
    failed: list[Told] = field(default_factory=list)

    def add(self, told: Told) -> None:
        counts = self.outcomes.setdefault(told.kind, Counter())
        counts["tried"] += 1
        counts[told.verdict.outcome] += 1
        counts.update({fault for fault, _ in told.verdict.faults})
        self.different.setdefault(told.kind.partition(":")[0], set()).add(told.digest)
        if told.verdict.faults:
            self.failed.append(told)

    def table(self) -> str:
        columns = ["tried", "read", "refused", "told", *Fault]
        total: Counter[str] = sum(self.outcomes.values(), Counter())
        width = max(map(len, [*self.outcomes, "all"]), default=3)
        lines = [" " * width + "".join(f"  {name[:14]:>14}" for name in columns)]
        for kind, counts in [*sorted(self.outcomes.items()), ("all", total)]:
            lines.append(f"{kind:<{width}}" + "".join(f"  {counts[name]:>14}" for name in columns))
        lines += [f"{len(different)} different of {area}" for area, different in sorted(self.different.items())]
        return "\n".join(lines)


def main(description: str) -> int:
    """The exit code: 1 where a case failed."""
    options = _options(description)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    begin = monotonic()
    forked.preload()
    totals = Totals()
    with tempfile.TemporaryDirectory(prefix="attnrec-attack-") as scratch:
        store = Store(Path(scratch))
        areas = {"inputs": Inputs(Path(scratch), store, options.seed), "damage": Damages(store, options.seed)}
        numbers = [options.case] if options.case is not None else range(options.first, options.first + (options.count or 10**9))
        for number in numbers:
            if options.seconds and monotonic() - begin > options.seconds:
                break
            area, place = area_of(number)
            if options.only not in ("", area):
                continue
            folder = Path(scratch) / "case"
            told = _attacked(areas[area], number, place, folder)
            totals.add(told)
            _tell(told, options)
            if options.keep:
                shutil.copytree(folder, options.keep, symlinks=True, dirs_exist_ok=True, ignore=_no_fifos)
            if folder.exists():
                _remove(folder)
    print(f"\n{totals.table()}\nseed {options.seed}, {monotonic() - begin:.0f} s")
    for told in totals.failed:
        for fault, what in told.verdict.faults:
            print(f"FAILED {told.number} {told.kind} ({fault}): {told.what}: {what}")
        print(f"  again: python tests/attack --seed {options.seed} --case {told.number}")
    return 1 if totals.failed else 0


def _attacked(area: Inputs | Damages, number: int, place: int, folder: Path) -> Told:
    try:
        return Told(number, *area.attack(place, folder))
    except Exception:
        verdict = Verdict("refused")
        verdict.fail(Fault.ITSELF, traceback.format_exc())
        return Told(number, "the attack itself", "", verdict, str(number))


def area_of(number: int) -> tuple[str, int]:
    """Which area a case is of, and its place there: inputs, damage, inputs, damage, damage, and so on."""
    order = ["inputs", "damage", "inputs", "damage", "damage"]
    fives, rest = divmod(number, len(order))
    area = order[rest]
    return area, fives * OF_FIVE[area] + order[:rest].count(area)


def _tell(told: Told, options: argparse.Namespace) -> None:
    faults = "; ".join(f"{fault}: {what}" for fault, what in told.verdict.faults)
    if faults or options.case is not None or options.verbose:
        print(
            f"{told.number} {told.kind}: {told.what}: {told.verdict.outcome}{'  FAILED ' + faults if faults else ''}", flush=True
        )


def _no_fifos(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_fifo()}


def _remove(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def _options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/attack", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0, help="begin no further case after this time; 0: no limit")
    parser.add_argument("--count", type=int, default=0, help="how many cases; 0: no limit")
    parser.add_argument("--first", type=int, default=0, help="the first case's number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--only", choices=["", "inputs", "damage"], default="")
    parser.add_argument("--keep", type=Path, help="copy the case's files there")
    parser.add_argument("--verbose", action="store_true", help="a line a case")
    options = parser.parse_args()
    if not (options.seconds or options.count or options.case is not None):
        parser.error("say how long: --seconds, --count or --case")
    return options
