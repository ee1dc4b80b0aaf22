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


def cpu() -> str:
    """Its name and its vectors, where the system tells them as Linux on x86 does; else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in said:
        return platform.processor() or "unknown CPU"
    flags = said.get("flags", "").split()
    vectors = [f"{'' if flag in flags else 'no '}{name}" for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX-512"))]
    return ", ".join([said["model name"], *vectors])


def commit() -> str | None:
    """Of the code that runs, with -dirty where a file in git was changed since; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


COMMIT = commit()  # when the script began: by its end there may be another


def stamp() -> dict[str, object]:
    """How a result came about."""
    import numpy
    import scipy
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores, {cpu()}",
        "commit": COMMIT,
        "versions": {**versions, "scipy": scipy.__version__},
        "date": datetime.date.today().isoformat(),
    }


def write_result(result: dict, name: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.date.today().isoformat()}-{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{path}")
    return path
