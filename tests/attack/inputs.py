"""The attack on what is read from outside: one or two changes to a log, its YAML or its options; then `prepare`, `inspect`."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from pathlib import Path

import forked
import histories
import times  # noqa: F401  (joins NEUTRAL)
from hostile import HOSTILE
from logs import Attempt, made, write
from neutral import NEUTRAL
from oracle import Fault, Verdict, judge, stored_data_sets
from store import Store
from texts import TEXTS

SAME, ODD, WORDS = "log written otherwise", "log damaged or odd", "YAML and options"
KINDS = {SAME: NEUTRAL, ODD: HOSTILE, WORDS: TEXTS}
OF_SEVEN = [SAME, ODD, WORDS, ODD, SAME, ODD, WORDS]  # the kinds of seven cases in a row
PICTURES = 8  # inspect draws in every so many cases


HISTORIES = 10  # of so many cases one is of fresh histories


class Inputs:
    def __init__(self, scratch: Path, store: Store, seed: int):
        self.scratch, self.store, self.seed = scratch, store, seed
        self.fingerprints: dict[str, str] = {}
        self.right: list[object] = []  # lists of the unchanged histories

    def attack(self, place: int, folder: Path) -> tuple[str, str, Verdict, str]:
        """The case at this place: its kind, what was done, the verdict, a digest of what was tried."""
        if place % HISTORIES == HISTORIES - 1:
            what, verdict = self._of_histories(place // HISTORIES, folder)
            return "inputs: fresh histories", what, verdict, what
        kind, attempt = attempt_at(self.seed, place)
        base = self._fingerprint(attempt.base)
        folder.mkdir()
        write(attempt, folder)
        before = snapshot(folder)
        arguments = ["prepare", "prepare.yaml", *attempt.arguments]
        ended = forked.attnrec(arguments, folder)
        found = stored_data_sets(folder) if ended.code == 0 else []
        inspected = forked.attnrec(["inspect", found[0]], folder, draws=place % PICTURES == 0) if found else None
        verdict = judge(attempt, folder, ended, inspected, base)
        changed = [path for path, was in before.items() if snapshot_of(folder / path) != was]
        if changed:
            verdict.fail(Fault.LOST, f"changed: {', '.join(changed[:3])}")
        what = f"{attempt.base}: {' + '.join(attempt.said)}"
        digest = hashlib.sha256(repr((sorted(before.items()), attempt.arguments)).encode()).hexdigest()
        return f"inputs: {kind}", what, verdict, digest

    def _of_histories(self, place: int, folder: Path) -> tuple[str, Verdict]:
        shutil.copytree(self.store.path, folder, symlinks=True)
        if not self.right:
            ended = histories.ask(histories.histories(), folder)
            if ended.code != 0:
                raise RuntimeError(f"recommend refuses the unchanged histories: {ended.err}")
            self.right = histories.lists(folder)
            (folder / "lists.parquet").unlink()
        return histories.attack(place, folder, self.seed, self.right)

    def _fingerprint(self, base: str) -> str:
        """Of the unchanged log's data set."""
        if base not in self.fingerprints:
            folder = self.scratch / f"base-{base}"
            folder.mkdir()
            write(made(base), folder)
            ended = forked.attnrec(["prepare", "prepare.yaml"], folder)
            if ended.code != 0:
                raise RuntimeError(f"prepare refuses the unchanged log {base}: {ended.err}")
            self.fingerprints[base] = json.loads((folder / "data" / "manifest.json").read_text())["fingerprint"]
        return self.fingerprints[base]


def attempt_at(seed: int, place: int) -> tuple[str, Attempt]:
    """The kind and the log of a case. All changes of a kind come before one comes twice; every third case has a second one."""
    sevens, rest = divmod(place, len(OF_SEVEN))
    kind = OF_SEVEN[rest]
    of_kind = sevens * OF_SEVEN.count(kind) + OF_SEVEN[:rest].count(kind)
    passed, index = divmod(of_kind, len(KINDS[kind]))
    name = random.Random(f"{seed} {kind} {passed}").sample(list(KINDS[kind]), len(KINDS[kind]))[index]
    draw = random.Random(f"{seed} input {place}")
    change, bases = KINDS[kind][name]
    chosen = [(name, change)]
    if place % 3 == 2:
        other = draw.choice([each for changes in KINDS.values() for each in changes.items() if set(each[1][1]) & set(bases)])
        bases = tuple(set(bases) & set(other[1][1]))
        chosen.append((other[0], other[1][0]))
    attempt = made(draw.choice(sorted(bases)))
    for count, (each, function) in enumerate(chosen):
        before = copy.deepcopy(attempt)
        attempt.said.append(each)
        try:
            function(attempt, draw)
        except (KeyError, IndexError, TypeError, AttributeError):
            if not count:
                raise
            return kind, before  # the first change took away what the second needs, such as columns or whole rows
    return kind, attempt


def snapshot(folder: Path) -> dict[str, str]:
    """What lies in a folder: path -> kind and content."""
    return {str(path.relative_to(folder)): snapshot_of(path) for path in sorted(folder.rglob("*"))}


def snapshot_of(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return "folder"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "other" if path.exists() else "nothing"
