"""What a job ran on, a line of RUN_DIR/jobs.jsonl each: with config.yaml all that its losses depend on. No secret, no address."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from attnrec_dist.errors import StorageError
from attnrec_dist.storage.stored import append_line
from attnrec_dist.strategies.launch import Job

PACKAGES = ("attnrec_dist", "torch", "accelerate", "deepspeed", "datasets", "numpy", "pyarrow", "safetensors")
SOURCE = Path(__file__).parent.parent


def note_job(path: Path, job: Job, fingerprint: str) -> None:
    """Adds this job's line. Raises StorageError."""
    try:
        append_line(path, json.dumps(environment(job) | {"data fingerprint": fingerprint}))
    except OSError as error:
        raise StorageError.of(error, f"writing {path}") from None


def environment(job: Job) -> dict[str, Any]:
    device = job.world.device
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **commit_of(SOURCE),
        "python": platform.python_version(),
        **{name: version_of(name) for name in PACKAGES},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": f"{platform.system()} {platform.machine()}",
        "strategy": dataclasses.asdict(job.asked),
        "processes": job.world.size,
        "threads": torch.get_num_threads(),
    }


def commit_of(source: Path) -> dict[str, Any]:
    """The commit that the package runs from and whether its files were changed; None where it is installed without its history,
    also in an environment that lies inside somebody else's repository."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(source), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "changed": None}
    changes = git("status", "--porcelain", "--", ".")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changes is None else bool(changes)}


def version_of(name: str) -> str | None:
    """Of an installed package; None of one that is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
