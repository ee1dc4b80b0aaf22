"""What the launch YAML asks for: each of ours is understood as its comment says, and what would be ignored is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from attnrec_dist.errors import ConfigError
from attnrec_dist.strategies.launch import Asked
from attnrec_dist.strategies.precision import Precision

LAUNCH = Path(__file__).parents[2] / "launch"
CPU = torch.device("cpu")
ASKED = {
    "ddp": Asked(),
    "fsdp2": Asked("fsdp2"),
    "fsdp2-hybrid": Asked("fsdp2", replicas=2),
    "zero1": Asked("zero", 1),
    "zero2": Asked("zero", 2),
    "zero3": Asked("zero", 3),
}
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
HYBRID = {**FSDP2, "ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2"}


def environment_of(launch_yaml: Path) -> dict[str, str]:
    """What the launcher tells its workers."""
    arguments = launch_command_parser().parse_args(["--config_file", str(launch_yaml), "train.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ""  # which the launcher sets meanwhile
    if arguments.use_deepspeed:
        return prepare_deepspeed_cmd_env(arguments)[1]
    return prepare_multi_gpu_env(arguments)


@pytest.fixture
def launched(monkeypatch):
    """launched(variables): as if a launcher had set these."""

    def become(variables: dict[str, str]) -> None:
        for name in os.environ:
            if name.startswith(("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return become


@pytest.mark.parametrize("name", ASKED)
def test_our_yamls_ask_for_what_they_are_named_after(name, launched):
    file = LAUNCH / f"{name}.yaml"
    processes = yaml.safe_load(file.read_text())["num_processes"]
    launched(environment_of(file))
    assert Asked.from_environment(processes) == ASKED[name]


def test_every_yaml_is_tested():
    assert {file.stem for file in LAUNCH.glob("*.yaml")} == {*ASKED, "single"}


@pytest.mark.parametrize(
    ("variables", "processes", "message"),
    [
        ({**FSDP2, "FSDP_VERSION": "1"}, 2, r"asks for FSDP 1; only fsdp_version: 2 is run: launch/fsdp2\.yaml"),
        ({**FSDP2, "FSDP_OFFLOAD_PARAMS": "true"}, 2, "sets FSDP_OFFLOAD_PARAMS to true, which is not read there"),
        ({**FSDP2, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, 2, "FSDP_ACTIVATION_CHECKPOINTING to true"),
        ({**FSDP2, "FSDP_RESHARD_AFTER_FORWARD": "FULL_SHARD"}, 2, "full_shard is a word of FSDP 1"),
        ({**HYBRID, "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2"}, 6, "2 replicas of 2 shards, but there are 6 processes"),
        ({**HYBRID, "PARALLELISM_CONFIG_TP_SIZE": "2"}, 2, "asks for tp_size 2; only dp_replicate_size"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, 2, "zero_stage 0; 1, 2 and 3 are run"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "nvme"}, 2, "offload_optimizer_device nvme; none and cpu"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"}, 2, "offload_param_device: none"),
        ({**ZERO, "ACCELERATE_GRADIENT_CLIPPING": "1.0"}, 2, r"type --optimizer\.clip_norm"),
        ({**ZERO, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, 2, r"follows from train\.micro_batch_tokens"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, 2, "the YAML's own keys are read"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, 2, "Megatron-LM, which this version does not run"),
        ({"ACCELERATE_DYNAMO_BACKEND": "inductor"}, 2, "leave dynamo_config out"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_is_refused(variables, processes, message, launched):
    launched(variables)
    with pytest.raises(ConfigError, match=message):
        Asked.from_environment(processes)


def test_precision_belongs_to_the_run_and_to_what_the_device_has(launched):
    launched({"ACCELERATE_MIXED_PRECISION": "bf16"})
    assert Precision.on("bf16", CPU).name == "bf16"
    with pytest.raises(ConfigError, match=r"mixed_precision bf16, the run for train\.precision fp32"):
        Precision.on("fp32", CPU)
    launched({"ACCELERATE_MIXED_PRECISION": "no"})
    with pytest.raises(ConfigError, match=r"tf32: TF32 is a mode of NVIDIA GPUs, .* type --train\.precision fp32"):
        Precision.on("tf32", CPU)
