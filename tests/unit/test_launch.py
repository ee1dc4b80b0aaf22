"""The wrappers of launch/ and slurm/: what they run, printed first; what they answer without their numbers. The job script with
stand-ins for Slurm's commands (tests/slurm has it on a real one)."""

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
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


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


def test_to_debug_what_nobody_foresaw_is_a_plain_traceback():
    assert call("launch/debug.sh", PYTHON="bash -c env").stdout.count("ATTNREC_DEBUG=1\n") == 1


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
    done = call("launch/cpu.sh", "2", "train", PYTHON="bash -c env")
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


STANDS_IN = {
    "srun": """echo "$*" >$FAKE/words
[[ -e $RUN/STOP ]] && cp $RUN/STOP $FAKE/seen
printf '{\n "state": "stopped",\n "step": 7,\n "reason": "signal SIGTERM"\n}\n' >$RUN/status.json""",
    "scontrol": """case $1 in
  requeue) exit 1 ;; # else the script would wait to be ended
  show) [[ $2 == hostnames ]] && echo node1 || echo "JobId=5 JobName=a b $STATE Dependency=(null)" ;;
esac""",
    "squeue": """[[ "$*" == *" $ALIVE" ]] && echo there; exit 0""",
}


@pytest.fixture
def job(tmp_path):
    """job(...): slurm/job.sh as job 5 of a Slurm of stand-ins, whose run stops; what it said."""
    run, fake = tmp_path / "run", tmp_path / "bin"
    run.mkdir()
    fake.mkdir()
    for name, body in STANDS_IN.items():
        (fake / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (fake / name).chmod(0o700)

    def start(**variables: str) -> str:
        given = {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "node1", "SLURM_NNODES": "1", "STATE": "JobState=RUNNING Reason=None"}
        given |= {"FAKE": str(fake), "RUN": str(run), "ALIVE": "none", "PATH": f"{fake}:{os.environ['PATH']}"}
        done = call("bash", "-c", '. slurm/job.sh "$@"', "job", "my.yaml", "--run_dir", str(run), **given | variables)
        assert done.returncode == 75, done.stderr
        return done.stderr

    return start


@pytest.mark.parametrize(
    ("state", "requeued"),
    [
        ("JobState=RUNNING Reason=None", True),
        ("JobState=COMPLETING Reason=TimeLimit", True),
        ("JobState=TIMEOUT Reason=TimeLimit", True),
        ("JobState=COMPLETING Reason=None", False),
        ("JobState=CANCELLED Reason=None", False),
        ("JobState=CANCELLED,COMPLETING Reason=None", False),
    ],
)
def test_a_job_that_was_cancelled_is_not_requeued(job, state, requeued):
    said = job(STATE=state)
    assert ("job 5: requeued" in said) == requeued
    assert ("job 5: cancelled" in said) != requeued


@pytest.mark.parametrize(
    ("text", "obeyed"),
    [
        ("job 5\n", False),  # an earlier turn of this job
        ("job 4\n", False),  # a job that is over
        ("job 3\n", True),  # one that still runs
        ("", True),  # touch STOP
        ("enough\n", True),
    ],
)
def test_a_job_removes_the_stop_of_a_turn_that_is_over_and_no_other(job, tmp_path, text, obeyed):
    (tmp_path / "run" / "STOP").write_text(text)
    job(ALIVE="3")
    assert (tmp_path / "bin" / "seen").exists() == obeyed


def test_the_step_has_the_cpus_of_the_job(job, tmp_path):
    job(SLURM_CPUS_PER_TASK="32")
    assert " --cpus-per-task=32 bash -c " in (tmp_path / "bin" / "words").read_text()
    job()
    assert "--cpus-per-task" not in (tmp_path / "bin" / "words").read_text()
