"""In which type products run, and the loss scale that fp16 needs. Weights, optimizer, sums over ranks and losses stay fp32.

fp32   as torch has it                       tf32   fp32 whose products on a GPU run in TF32
bf16   autocast: products in bfloat16        fp16   autocast: products in half precision, the loss scaled
fp64   everything in double precision, for tests

It is the same for every strategy: a strategy moves fp32 weights and fp32 gradients, whatever the products run in. So a run
computes the same under each of them, at the price of twice the traffic that a strategy with weights of 16 bits would have.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from attnrec_dist.errors import ConfigError

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16", "fp64"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE, STEPS_TO_GROW = 2.0**16, 2000  # as torch's GradScaler begins and grows (Micikevicius et al. 2018, section 3.2)


@dataclass
class LossScaler:
    """Dynamic loss scale of fp16: halved when a gradient overflows, whose step is skipped; doubled after 2000 steps without.

    Its verdict rests on the norm of the whole gradient, so all ranks come to the same one, under every strategy.
    """

    scale: float = FIRST_SCALE
    good_steps: int = 0  # since the scale last changed
    skipped: int = 0  # steps of this run that updated nothing

    def passed(self) -> None:
        self.good_steps += 1
        if self.good_steps == STEPS_TO_GROW:
            self.scale, self.good_steps = self.scale * 2, 0

    def overflowed(self) -> bool:
        """False where the scale cannot be what is wrong: at 1 the gradient is what it is."""
        if self.scale <= 1:
            return False
        self.scale, self.good_steps, self.skipped = self.scale / 2, 0, self.skipped + 1
        return True

    def state(self) -> dict[str, float]:
        return asdict(self)

    def load(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, value)


@dataclass(frozen=True)
class Precision:
    """One of the names above, on a device that has it."""

    name: PrecisionName
    device: torch.device

    @classmethod
    def on(cls, name: PrecisionName, device: torch.device) -> Precision:
        """Sets how fp32 products run. Raises ConfigError where the device lacks the type, or the launch YAML asks for another."""
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if asked not in ("no", name):
            raise ConfigError(
                f"the launch YAML asks for mixed_precision {asked}, the run for train.precision {name}; "
                "precision belongs to the run: set --train.precision and leave the launch YAML at `no`"
            )
        missing = lacks(name, device)
        if missing:
            raise ConfigError(f"train.precision {name}: {missing}; type --train.precision fp32")
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        return cls(name, device)

    @property
    def weight_dtype(self) -> torch.dtype:
        return torch.float64 if self.name == "fp64" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """Around the forward pass of model and loss."""
        return torch.autocast(self.device.type, AUTOCAST[self.name]) if self.name in AUTOCAST else nullcontext()

    def scaler(self) -> LossScaler | None:
        return LossScaler() if self.name == "fp16" else None


def lacks(name: PrecisionName, device: torch.device) -> str:
    """Why this device cannot do it; "" where it can."""
    if name == "tf32":
        if device.type != "cuda":
            return f"TF32 is a mode of NVIDIA GPUs, this process computes on {device.type}"
        if torch.cuda.get_device_capability(device)[0] < 8:
            return f"{torch.cuda.get_device_name(device)} has no TF32 (it came with compute capability 8.0)"
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"{torch.cuda.get_device_name(device)} has no bfloat16 (it came with compute capability 8.0); fp16 is there"
    return ""
