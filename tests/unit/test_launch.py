"""The wrappers of launch/ and slurm/: what they run, printed first; what they answer without their numbers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACCELERATE = "-m accelerate.commands.launch --config_file"
RUN = "-m attnrec_dist train my.yaml --train.seed 1"


def call(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """With `echo` in place of Python, so that what would be run is printed instead."""
    environment = {name: value for name, value in os.environ.items() if name != "LAUNCH"} | {"PYTHON": "echo", **variables}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("wrapper", "numbers", "expected"),
    [
        ("debug.sh", [], RUN),
        ("ddp.sh", ["4"], f"{ACCELERATE} launch/ddp.yaml --num_processes 4 --main_process_port 0 {RUN}"),
        ("cpu.sh", ["4"], f"{ACCELERATE} launch/ddp.yaml --num_processes 4 --main_process_port 0 {RUN}"),
        (
            "nodes.sh",
            ["2", "1", "10.0.0.1:29500", "8"],
            f"{ACCELERATE} launch/ddp.yaml --num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1 "
            f"--main_process_port 29500 --num_processes 16 {RUN}",
        ),
    ],
)
def test_a_wrapper_prints_what_it_runs_and_runs_it(wrapper, numbers, expected):
    done = call(f"launch/{wrapper}", *numbers, "train", "my.yaml", "--train.seed", "1")
    assert done.returncode == 0
    assert done.stdout.replace(f"{ROOT}/", "") == f"{expected}\n"
    assert done.stderr.splitlines()[-1] == f"+ echo {done.stdout.strip()}"


@pytest.mark.parametrize(("wrapper", "numbers"), [("ddp.sh", ["2"]), ("cpu.sh", ["2"]), ("nodes.sh", ["1", "0", "a:1", "1"])])
def test_a_wrapper_takes_another_strategy_from_the_environment(wrapper, numbers):
    done = call(f"launch/{wrapper}", *numbers, "train", LAUNCH="launch/other.yaml")
    assert f"{ACCELERATE} launch/other.yaml --num_" in done.stdout


def test_in_a_hybrid_shard_a_node_is_a_group_unless_the_yaml_is_the_users_own(tmp_path):
    yaml = ROOT / "launch" / "fsdp2-hybrid.yaml"
    own = tmp_path / yaml.name
    own.write_bytes(yaml.read_bytes())
    sizes = "--parallelism_config_dp_replicate_size 3 --parallelism_config_dp_shard_size 8 --num_machines 3"
    words = ["launch/nodes.sh", "3", "1", "a:1", "8", "train"]
    assert sizes in call(*words, LAUNCH="launch/fsdp2-hybrid.yaml").stdout
    assert sizes in call(*words, LAUNCH=str(yaml)).stdout
    assert "parallelism_config" not in call(*words, LAUNCH=str(own)).stdout


def test_processes_on_cpus_see_no_gpu():
    done = call("launch/cpu.sh", "2", "train", PYTHON="env")
    assert {"ACCELERATE_USE_CPU=true", "CUDA_VISIBLE_DEVICES="} <= set(done.stderr.split()), done.stderr


@pytest.mark.parametrize("wrapper", ["ddp.sh", "cpu.sh", "nodes.sh"])
@pytest.mark.parametrize("words", [[], ["train", "my.yaml"], ["2", "train", "my.yaml", "x"]])
def test_without_its_numbers_a_wrapper_says_what_to_type(wrapper, words):
    if words[:1] == ["2"] and wrapper != "nodes.sh":
        return
    done = call(f"launch/{wrapper}", *words)
    assert done.returncode == 2
    assert f"type: launch/{wrapper} 2 " in done.stderr


@pytest.mark.parametrize("template", ["train.sbatch", "train-multinode.sbatch"])
def test_a_template_can_be_read_by_bash_and_asks_for_its_signal_and_requeue(template):
    text = (ROOT / "slurm" / template).read_text()
    for option in ("--signal=B:USR2@", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option}" in text
    for script in (f"slurm/{template}", "slurm/job.sh", "slurm/site.env"):
        assert call("bash", "-n", script).returncode == 0


def test_a_job_without_a_configuration_says_what_to_type():
    done = call("bash", "-c", ". slurm/job.sh", "job")
    assert done.returncode == 2
    assert "CONFIG.yaml [--run_dir DIR]" in done.stderr
