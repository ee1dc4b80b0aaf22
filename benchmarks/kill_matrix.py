"""The kill matrix as a table: tests/distributed/test_kill_matrix.py, every case of it, with what it measured.

    python benchmarks/kill_matrix.py

100 cases: five strategies on two processes, killed at five places, gone on with on two, one, three and four. Writes
benchmarks/results/DATE-kill-matrix.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from shared import stamp, write_result

ROOT = Path(__file__).parent.parent
WORLDS = (2, 1, 3, 4)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "cases.jsonl"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "slow or not slow",
            "tests/distributed/test_kill_matrix.py",
            *sys.argv[1:],
        ]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"KILL_MATRIX": str(record)}, check=False)
        cases = [json.loads(line) for line in record.read_text().splitlines()]
    print(f"{'':8}{'place of death':34}" + "".join(f"{f'on {world}':>12}" for world in WORLDS))
    for strategy, place in dict.fromkeys((case["strategy"], case["place"]) for case in cases):
        of = {case["world"]: case["losses apart"] for case in cases if (case["strategy"], case["place"]) == (strategy, place)}
        print(f"{strategy:8}{place:34}" + "".join(f"{of[world]:12.1e}" if world in of else f"{'-':>12}" for world in WORLDS))
    print(f"{len(cases)} cases; largest relative difference of a loss to the run that nobody interrupted")
    write_result({"cases": cases, "pytest": done.returncode, **stamp()}, "kill-matrix")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
