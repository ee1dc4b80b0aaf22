"""What checking all that is stored costs: CPU time of a start, an evaluation and the loader, with the checks and without.

    attnrec prepare configs/prepare/online-retail.yaml
    attnrec train configs/online-retail-sasrec.yaml --run_dir runs/cost --train.max_steps 20
    python benchmarks/checking_cost.py runs/cost
    python benchmarks/checking_cost.py runs/cost --before CHECKOUT RUN     beside an older commit and a finished run that it made

Each figure is of a process of its own that starts with nothing checked, imports included; the two kinds take turns. "Without"
compares no block, no sum of a manifest, no index: less than the version before did, whose start compared the sha256 of every
file. "in checks" is the time inside the checks themselves, in the same processes: what is left where the noise is larger.

With --before whole commands of the two versions take turns: `train` on the finished run, which is a start and no step, and
`evaluate`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import stamp, write_result

KINDS = ("start", "evaluate", "loader")
LOADER_STEPS = 200


class Clock:
    """CPU seconds inside some functions, however they call one another."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    def around(self, owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **keys: Any) -> Any:
            began = time.process_time()
            self.depth += 1
            try:
                return original(*arguments, **keys)
            finally:
                self.depth -= 1
                self.seconds += 0.0 if self.depth else time.process_time() - began

        setattr(owner, name, timed)


def switch_off() -> None:
    from attnrec_dist.data import windows
    from attnrec_dist.data.blocks import StoredFile
    from attnrec_dist.storage import stored

    real = windows.open_index
    StoredFile._compare = lambda self, wanted: setattr(self, "done", True)  # type: ignore[method-assign,assignment]
    StoredFile.check_headers = lambda self: None  # type: ignore[method-assign]
    stored.checksum_of = lambda tree: tree[stored.CHECKSUM]  # type: ignore[assignment]
    windows.open_index = lambda *arguments, **keys: real(*arguments, **{**keys, "check": False})  # type: ignore[assignment]


def clocked() -> Clock:
    from attnrec_dist.data import windows
    from attnrec_dist.data.blocks import StoredFile
    from attnrec_dist.storage import stored

    clock = Clock()
    for owner, name in ((StoredFile, "check"), (StoredFile, "check_all"), (StoredFile, "check_headers")):
        clock.around(owner, name)
    clock.around(stored, "checksum_of")
    clock.around(windows, "sha256_of")
    return clock


def child(kind: str, checked: bool, run: Path) -> dict[str, float]:
    """What one process takes."""
    clock = clocked() if checked else Clock()
    if not checked:
        switch_off()
    if kind == "evaluate":
        from attnrec_dist.evaluation.run import EvaluateRequest, evaluate_run

        evaluate_run(run, EvaluateRequest(), {})
    else:
        from attnrec_dist.engine.config import load_run_config
        from attnrec_dist.engine.replay import reopen
        from attnrec_dist.run_dir import RunDir

        config = load_run_config(run / "config.yaml", {"data.verify": kind == "start"})
        past = reopen(RunDir(run), config)
        for step in range(LOADER_STEPS if kind == "loader" else 0):
            past.steps[step]
    return {"cpu_seconds": time.process_time(), "in_checks": clock.seconds}


def measured(kind: str, run: Path, rounds: int) -> dict[str, float]:
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for _ in range(rounds):
        for checked, figures in found.items():
            command = [sys.executable, __file__, str(run), "--child", kind, *([] if checked else ["--off"])]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    on, off = (statistics.median(each["cpu_seconds"] for each in found[checked]) for checked in (True, False))
    inside = statistics.median(each["in_checks"] for each in found[True])
    print(f"{kind:9} {off:7.2f} s without, {on:7.2f} s with: {on / off - 1:+.2%}; in checks {inside:.3f} s, {inside / off:.2%}")
    return {"without": off, "with": on, "share": on / off - 1, "in_checks": inside, "share_in_checks": inside / off}


def command_seconds(checkout: Path, words: list[str]) -> float:
    """CPU seconds of one command of a version, its children's too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "attnrec_dist", *words]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(checkout)}, cwd="/")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def against(checkout: Path, old_run: Path, run: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Whole commands of this version and of another, each on a run of its own."""
    versions = {"before": (checkout, old_run), "now": (Path(__file__).parents[1], run)}
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for version, (place, finished) in versions.items():
            of = finished.absolute()
            for kind, words in (
                ("start", ["train", f"{of}/config.yaml", "--run_dir", str(of)]),
                ("evaluate", ["evaluate", str(of)]),
            ):
                found.setdefault(kind, {}).setdefault(version, []).append(command_seconds(place.absolute(), words))
    result = {}
    for kind, seconds in found.items():
        old, new = statistics.median(seconds["before"]), statistics.median(seconds["now"])
        print(f"{kind:9} {old:7.2f} s before, {new:7.2f} s now: {new / old - 1:+.2%}")
        result[kind] = {"before": old, "now": new, "share": new / old - 1}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory with a checkpoint; its data set must be where it was")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--before", nargs=2, type=Path, metavar=("CHECKOUT", "RUN"), help="an older version, and a run that it made"
    )
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--off", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(asked.child, not asked.off, asked.run)))
        return
    from attnrec_dist.data.manifest import read_manifest
    from attnrec_dist.settings import read_yaml

    manifest = read_manifest(Path(read_yaml(asked.run / "config.yaml")["data"]["path"]))
    size = sum(file.bytes for file in manifest.shards + manifest.tables)
    result = stamp() | {"events": manifest.counts.events, "bytes": size, "rounds": asked.rounds, "loader_steps": LOADER_STEPS}
    if asked.before:
        write_result(result | against(*asked.before, asked.run, asked.rounds), "checking-cost-before")
        return
    write_result(result | {kind: measured(kind, asked.run, asked.rounds) for kind in KINDS}, "checking-cost")


if __name__ == "__main__":
    main()
