"""The attack on stored files: a data set or a run is damaged, or made to lie, and then a command that reads it.

Refused, or the same outcome to the last bit, or told and healed: anything else is a silent change.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import BYTE_CHANGES, _cut, _flip, _zeroed
from inputs import snapshot
from lies import SEALED, a_forged_lie, a_lie, a_sealed_lie, forge, frozen
from oracle import Fault, Verdict, how_it_ended
from store import MODELS, OF_RUN, Command, Outcome, Store, commands_of

Damage = Callable[[Path, random.Random], str]  # of a file; what was done, "" where nothing can be
TOLD = (
    "damaged",
    "cannot be",
    "missing",
    "rebuilt",
    "built anew",
    "passed over",
    "going on from",
    "ignored",
    "is no ",
    "hole",
    "warning",
    "note:",
    "gone",
)
HARD = ("weights", "figures", "of each", "lists", "replayed")  # no word makes another value of these right
READERS = {  # of these files, the commands that look at them; of others: all
    "index/*.bin": {"resume", "replay", "replay --recompute", "when"},
    "index/*.json": {"resume", "replay", "replay --recompute", "when"},
    "metrics.jsonl": {"resume", "refit", "replay", "plot"},
    "status.json": {"resume", "refit", "when", "evaluate"},
    "jobs.jsonl": {"resume", "refit"},
    "figures.json": {"resume", "refit"},
}
OTHERS = 0.1  # share of the cases with another command than these
MAY_DIFFER = {"metrics.jsonl": {"logged", "picture", "curve"}, "config.yaml": {"picture"}}  # the file is the only one that knows


def bytes_changed(path: Path, draw: random.Random) -> str:
    change = draw.choice([_flip, _flip, _flip, _zeroed, _cut, *BYTE_CHANGES])
    data = path.read_bytes()
    path.write_bytes(change(data, draw))
    return change.__name__ if path.read_bytes() != data else ""


def one_bit(path: Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if not data:
        return ""
    place = draw.randrange(len(data))
    data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return f"one bit of byte {place}"


def appended(path: Path, draw: random.Random) -> str:
    more = draw.choice([b"\0", b"\n", b"x", b"\xff", b"{}\n", b"\n\n", path.read_bytes(), b"\0" * 4096, b'{"step": 7, "lo'])
    path.write_bytes(path.read_bytes() + more)
    return repr(more[:10])


def deleted(path: Path, draw: random.Random) -> str:
    path.unlink()
    return "deleted"


def emptied(path: Path, draw: random.Random) -> str:
    path.write_bytes(b"")
    return "emptied"


def another_text(path: Path, draw: random.Random) -> str:
    text = draw.choice(
        [
            "null",
            "[]",
            "{}",
            "1",
            '"a"',
            "nothing",
            "[[[",
            "{" * 50_000,
            '{"a": NaN}',
            "9" * 5000,
            "\ufeff{}",
            "\0",
            '{"step": "x"}',
            "true",
            "<html>",
        ]
    )
    path.write_text(text)
    return repr(text[:20])


def fifo(path: Path, draw: random.Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a FIFO"


def folder(path: Path, draw: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def link(path: Path, draw: random.Random) -> str:
    """To a copy, which is the same file; to nothing; to itself; to something else."""
    kind = draw.choice(["copy", "nothing", "itself", "/dev/null", "/dev/zero"])
    target = {"copy": path.with_name(path.name + ".moved"), "nothing": Path("nowhere"), "itself": Path(path.name)}.get(
        kind, Path(kind)
    )
    if kind == "copy":
        path.rename(target)
    else:
        path.unlink()
    path.symlink_to(target.name if kind == "copy" else target)
    return f"a link to {kind}"


def forbidden(path: Path, draw: random.Random) -> str:
    kind = draw.choice([0o000, 0o200, 0o444])
    path.chmod(kind)
    return f"permissions {kind:o}"


def swapped(path: Path, draw: random.Random) -> str:
    """With the file of the same name of another checkpoint, run or shop; else with a neighbour."""
    root = next(each for each in path.parents if (each / "other-shop").is_dir())
    others = [
        each for each in root.rglob(path.name) if each.is_file() and each != path and each.read_bytes() != path.read_bytes()
    ]
    others = others or [each for each in path.parent.iterdir() if each.is_file() and each.suffix == path.suffix and each != path]
    if not others:
        return ""
    other = draw.choice(sorted(others))
    shutil.copyfile(other, path)
    return f"replaced by {other.relative_to(root)}"


DAMAGES = [bytes_changed, one_bit, appended, deleted, emptied, another_text, fifo, folder, link, forbidden, swapped]


# what is not a file


def stray(path: Path, draw: random.Random) -> str:
    """Something that nobody wrote, in a folder."""
    name = draw.choice(
        [
            "step-",
            "step-abc",
            ".DS_Store",
            "step-00000009",
            "step-00000006.bak",
            "step-99999999",
            "x.tmp",
            "é",
            "status.json.tmp",
            "part-00009.arrow",
            "core.1234",
        ]
    )
    new = path / name
    if new.exists():
        return ""
    kind = draw.choice(["file", "folder", "copy", "link"])
    if kind == "file":
        new.write_text("stray")
    elif kind == "link":
        new.symlink_to("nowhere")
    else:
        new.mkdir()
        first = next((each for each in sorted(path.iterdir()) if each.is_dir() and each != new and not each.is_symlink()), None)
        if kind == "copy" and first is not None:
            shutil.copytree(first, new, dirs_exist_ok=True)
    return f"a stray {kind} {name}"


def folder_gone(path: Path, draw: random.Random) -> str:
    kind = draw.choice(["removed", "emptied", "forbidden", "a file", "moved behind a link"])
    if kind == "forbidden":
        path.chmod(draw.choice([0o000, 0o500]))
    elif kind == "moved behind a link":
        moved = path.with_name(path.name + ".moved")
        path.rename(moved)
        path.symlink_to(moved.name)
    else:
        shutil.rmtree(path)
        if kind == "emptied":
            path.mkdir()
        if kind == "a file":
            path.write_text("")
    return kind


def relinked(path: Path, draw: random.Random) -> str:
    """To nothing, to itself, to what is no checkpoint. Another whole checkpoint is the user's choice: commands print its name."""
    target = draw.choice(["nowhere", path.name, ".", "/", "config.yaml", "checkpoints/step-00000000"])
    path.unlink()
    kind = draw.choice(["link", "link", "nothing", "file", "folder"])
    if kind == "link":
        path.symlink_to(target)
    elif kind == "file":
        path.write_text(target)
    elif kind == "folder":
        path.mkdir()
    return f"{kind} {target if kind == 'link' else ''}"


class Damages:
    def __init__(self, store: Store, seed: int):
        self._store, self.seed = store, seed
        self.right: dict[tuple[str, str], tuple[Outcome, str]] = {}  # of (run, command): outcome and what was said

    @property
    def store(self) -> Path:
        return self._store.path

    def attack(self, place: int, folder: Path) -> tuple[str, str, Verdict, str]:
        """The case at this place: its kind, what was done, the verdict, a digest of what was tried."""
        draw = random.Random(f"{self.seed} damage {place}")
        run, kind, target, do = self._chosen(place, draw)
        command = self._command(draw, run, kind, target)
        right = self._right(run, command, folder)
        shutil.copytree(self.store, folder, symlinks=True)
        done = do(folder / target, draw)
        what = f"{command.name} of {run}: {target}: {done or 'nothing could be done'}"
        digest = hashlib.sha256(f"{what} {snapshot(folder)}".encode()).hexdigest()
        before = snapshot(folder)
        ended = command.ended_in(folder, draws=command.name == "plot")
        verdict = how_it_ended(ended)
        if not verdict.faults and not (SEALED in done and trusted(command, target)):
            self._judge(verdict, folder, command, ended, right, target)
        if ended.code:
            self._unchanged(verdict, folder, command, ended.code, before)
        return f"damage: {kind}", what, verdict, digest

    def _chosen(self, place: int, draw: random.Random) -> tuple[str, str, str, Damage]:
        """A run, the kind of file, the file, what is done to it. Every pair of file and damage comes before one comes twice."""
        run = list(MODELS)[place % len(MODELS)]
        pairs = [(target, do) for target in targets(self.store, run) for do in fitting(self.store / target)]
        passed, index = divmod(place // len(MODELS), len(pairs))
        target, do = random.Random(f"{self.seed} {run} {passed}").sample(pairs, len(pairs))[index]
        return run, kind_of(target), target, do

    @staticmethod
    def _command(draw: random.Random, run: str, kind: str, target: str) -> Command:
        """One that looks at what was damaged, now and then another."""
        of_data = target.split("/", maxsplit=1)[0] == OF_RUN[run]
        readers = {"inspect", "train"} if of_data else READERS.get(kind, set())
        commands = commands_of(run)
        chosen = [
            each for each in commands if each.name in readers or not (READERS.get(kind) or each.name in ("inspect", "train"))
        ]
        return draw.choice(commands if draw.random() < OTHERS else chosen)

    def _right(self, run: str, command: Command, folder: Path) -> tuple[Outcome, str]:
        """What the command gives on the undamaged store."""
        key = (run, command.name)
        if key not in self.right:
            shutil.copytree(self.store, folder, symlinks=True)
            ended = command.ended_in(folder, draws=command.name == "plot")
            if ended.code != 0:
                raise RuntimeError(f"{key} fails on the undamaged store: {ended.err}")
            self.right[key] = command.outcome(folder, ended), ended.err
            shutil.rmtree(folder)
        return self.right[key]

    def _judge(
        self, verdict: Verdict, folder: Path, command: Command, ended: Any, right: tuple[Outcome, str], target: str
    ) -> None:
        if ended.code != 0:
            return
        known = without_numbers(right[1])
        told = [
            line for line in without_numbers(ended.err).splitlines() if line not in known and any(word in line for word in TOLD)
        ]
        verdict.outcome = "told" if told else "read"
        try:
            found = command.outcome(folder, ended)
        except (OSError, ValueError, KeyError, TypeError) as error:
            found = {"nothing": repr(error)}
        differing = {key for key in right[0].keys() | found.keys() if right[0].get(key) != found.get(key)}
        differing -= MAY_DIFFER.get(Path(target).name, set())
        if target.endswith("config.yaml") and frozen(folder / target) == frozen(self.store / target):
            return
        if told:
            differing &= set(HARD)
        if differing:
            shown = "; ".join(f"{key} {_difference(right[0].get(key), found.get(key))}" for key in sorted(differing))
            verdict.fail(Fault.SILENT, shown[:500])

    def _unchanged(self, verdict: Verdict, folder: Path, command: Command, code: int, before: dict[str, str]) -> None:
        """A refused command leaves everything as it was. A training that a fault ends may say so in its run."""
        after = snapshot(folder)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        changed = {path for path in changed if Path(path).name != "lock" and (self.store / path.split("/")[0]).exists()}
        if command.writes and code != 2:
            changed = {path for path in changed if path.split("/")[0] != command.writes}
        if changed:
            verdict.fail(Fault.LOST, f"refused, yet changed: {', '.join(sorted(changed)[:5])}")


def trusted(command: Command, target: str) -> bool:
    """Whether nothing can tell a lie whose checksum is right: of a manifest only a run can, and nothing of the others."""
    return Path(target).name != "manifest.json" or command.name == "train"


def without_numbers(text: str) -> str:
    return re.sub(r"[0-9.]+", "#", text)


def targets(store: Path, run: str) -> list[str]:
    """Every file, folder and link of a run and of its data set."""
    found = [path for name in (run, OF_RUN[run]) for path in sorted((store / name).rglob("*"))]
    return [str(path.relative_to(store)) for path in found if path.name != "lock"]


def fitting(path: Path) -> list[Damage]:
    """What can be done to it; what is most likely to pass unseen several times."""
    if path.is_symlink():
        return [relinked] * 3
    if path.is_dir():
        return [stray] * 3 + [folder_gone] * 2
    if path.suffix == ".bin":
        return DAMAGES + [one_bit] * 6
    if path.suffix in (".arrow", ".parquet", ".safetensors"):
        return [*DAMAGES, _flipped_and_forged]
    return DAMAGES + [a_lie, a_forged_lie, a_sealed_lie] * (4 if path.name == "manifest.json" else 2)


def _flipped_and_forged(path: Path, draw: random.Random) -> str:
    """Whoever holds its checksum is made to agree."""
    done = one_bit(path, draw)
    return f"{done}, {forge(path)}" if done else ""


def kind_of(target: str) -> str:
    path = Path(target)
    kinds = {".arrow": "*.arrow", ".parquet": "*.parquet", ".safetensors": "*.safetensors", ".bin": "index/*.bin"}
    if path.name in ("best", "last"):
        return "links"
    if not path.suffix:
        return "folders"
    return "index/*.json" if path.parent.name == "index" and path.suffix == ".json" else kinds.get(path.suffix, path.name)


def _difference(right: Any, found: Any) -> str:
    """The first place where two values differ."""
    if isinstance(right, list) and isinstance(found, list):
        for place, (a, b) in enumerate(zip(right, found, strict=False)):
            if a != b:
                return f"[{place}] {_difference(a, b)}"
        return f"has {len(found)} entries, not {len(right)}"
    if isinstance(right, dict) and isinstance(found, dict):
        for key in right.keys() | found.keys():
            if right.get(key) != found.get(key):
                return f".{key} {_difference(right.get(key), found.get(key))}"
    if isinstance(right, str) and isinstance(found, str) and "\n" in right:
        return _difference(right.splitlines(), found.splitlines())
    return f"{str(right)[:80]!r} became {str(found)[:80]!r}"
