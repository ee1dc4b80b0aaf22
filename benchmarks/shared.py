"""What the benchmark scripts share: running the command line and what that costs, and the head of a result."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(os.environ.get("ATTNREC_RESULTS") or Path(__file__).parent / "results")


@dataclass(frozen=True)
class Cost:
    seconds: float  # wall time
    peak_mb: float  # largest resident memory of the process, or of one that it waited for
    cpu_seconds: float = 0.0  # which other jobs of the machine hardly touch


def attnrec(*arguments: object, log: Path | None = None) -> Cost:
    """`attnrec ARGUMENTS` in a process of its own; stops this script, with what it said last, where that fails."""
    started = datetime.datetime.now()
    command = [sys.executable, "-m", "attnrec_dist", *map(str, arguments)]
    with (log or Path(os.devnull)).open("w") as sink:
        process = subprocess.Popen(command, stdout=sink if log else subprocess.DEVNULL, stderr=sink if log else None)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text()[-2000:] if log else ""
        sys.exit(f"{said}\nattnrec {' '.join(command[3:])} ended with {process.returncode}")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    wall = (datetime.datetime.now() - started).total_seconds()
    return Cost(wall, usage.ru_maxrss / unit, usage.ru_utime + usage.ru_stime)


def stamp() -> dict[str, object]:
    """How a result came about."""
    import numpy
    import scipy
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {platform.processor() or platform.system()}, {os.cpu_count()} cores",
        "versions": {**versions, "scipy": scipy.__version__},
        "date": datetime.date.today().isoformat(),
    }


def write_result(result: dict, name: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.date.today().isoformat()}-{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{path}")
    return path
