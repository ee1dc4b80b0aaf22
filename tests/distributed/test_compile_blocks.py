"""train.compile of blocks of self-attention: the same computation but for rounding, resumed to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_strategies import KEYS, losses, single, trained  # noqa: F401

pytestmark = [pytest.mark.distributed, pytest.mark.slow]  # each compiles for half a minute


def test_resumed_on_two_processes_and_recomputed(single: Path, config: Path, tmp_path: Path) -> None:  # noqa: F811
    """Their second halves: FSDP2 gathers a block's weights around them, and activation checkpointing runs them twice."""
    keys = {**KEYS, "train__compile": True}
    folder = trained(2, tmp_path, config, ["ddp:ddp:7", "ddp:ddp:12", "ddp:whole:12", "fsdp2:fsdp2:12"], keys)
    (tmp_path / "recomputed").mkdir()
    keys |= {"train__activation_checkpointing": True}
    again = trained(2, tmp_path / "recomputed", config, ["ddp:ddp:12", "fsdp2:fsdp2:12"], keys)
    assert losses(folder / "ddp") == losses(folder / "whole")
    for run in (folder / "ddp", folder / "fsdp2", again / "ddp", again / "fsdp2"):
        assert losses(run) == pytest.approx(losses(single), rel=2e-5, abs=0), run
