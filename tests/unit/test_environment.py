"""What a job ran on, and mistakes that have to do with it: too little memory, too few GPUs, a file system without locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from attnrec_dist.distributed import set_up_memory
from attnrec_dist.engine import job, train
from attnrec_dist.errors import ConfigError, StorageError
from attnrec_dist.monitoring.environment import commit_of
from attnrec_dist.run_dir import RunDir
from attnrec_dist.strategies.launch import join


def test_each_job_leaves_a_line_of_what_it_ran_on(attnrec, trained, tmp_path):
    options = ["--run_dir", tmp_path / "run", "--data", trained.data]
    for steps in ("2", "4"):
        done = attnrec("train", trained.run_yaml, *options, "--train.max_steps", steps, "--train.threads", "1")
        assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "jobs.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    manifest = json.loads((trained.data / "manifest.json").read_text())
    for line in lines:
        assert line["data fingerprint"] == manifest["fingerprint"]
        assert (line["torch"], line["processes"], line["threads"]) == (torch.__version__, 1, 1)
        assert line["strategy"]["kind"] == "plain"
    told = (tmp_path / "run" / "config.yaml").read_text()
    assert told.startswith("# versions, commit, processes, data of each job: jobs.jsonl\n")
    assert yaml.safe_load(told)["train"]["threads"] == 1


def test_the_commit_is_that_of_the_package_and_of_nobody_else(tmp_path):
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    git("init", "--quiet")
    assert commit_of(package) == {"commit": None, "changed": None}  # as where an environment lies inside a repository
    git("add", "."), git("commit", "--quiet", "-m", "first")
    assert commit_of(package) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (package / "__init__.py").write_text("a = 1\n")
    assert commit_of(package)["changed"] is True


def test_a_deterministic_run_is_the_run_that_a_cpu_does_anyway(attnrec, trained, tmp_path):
    asked = []
    options = ["--run_dir", tmp_path / "run", "--data", trained.data, "--train.deterministic", "true"]
    done = attnrec("train", trained.run_yaml, *options)
    asked.append(torch.are_deterministic_algorithms_enabled())
    assert done.code == 0, done.err
    losses = [
        [json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", trained.run)
    ]
    assert losses[0] == losses[1]
    join("fp32", 60.0)
    assert [*asked, torch.are_deterministic_algorithms_enabled()] == [True, False]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nand much more"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_told_with_the_key_to_set(error, attnrec, trained, tmp_path, monkeypatch):
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(train, "train_step", fails)
    done = attnrec("train", trained.run_yaml, "--run_dir", tmp_path / "run", "--data", trained.data)
    assert done.code == 2
    assert "out of memory (" in done.err
    assert "type --train.micro_batch_tokens " in done.err
    assert "Traceback" not in done.err


def test_an_operation_that_cannot_be_repeated_is_told_with_its_name():
    """torch's own words: there is no such operation on a CPU that this package calls."""
    words = (
        "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'"
    )
    found = job.in_our_words(RuntimeError(words), None)
    assert str(found).startswith("train.deterministic: cumsum_cuda_kernel does not have a deterministic implementation; leave it")


def test_other_errors_stay_what_they_are():
    error = RuntimeError("mine")
    assert job.in_our_words(error, None) is error


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"2 processes on a machine of 1 GPUs.*--num_processes 1"):
        join("fp32", 60.0)


def test_a_file_system_without_locks_is_told_as_that(tmp_path, monkeypatch):
    def refuses(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuses)
    run = RunDir(tmp_path / "run")
    run.create()
    with pytest.raises(StorageError, match=r"takes no lock.*choose a --run_dir elsewhere"):
        run.lock()


GROWTH = """
import resource, sys, torch
from attnrec_dist.distributed import set_up_memory
if sys.argv[1] == "set up":
    set_up_memory()
weight, most = torch.ones(64, 64), []
for size in range(1000, 1600):
    torch.nn.functional.gelu(torch.ones(size, 64) @ weight)
    most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(most[-1] - most[40])
"""


def test_kernels_of_sizes_that_are_gone_take_no_memory():
    """In a process of its own each; what remains is at most a few MiB of the allocator's."""

    def growth(how: str) -> float:
        done = subprocess.run([sys.executable, "-c", GROWTH, how], capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert growth("set up") < 10, "MiB, after 600 sizes"


def test_the_users_own_number_of_kernels_stays(monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
    set_up_memory()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "100"
