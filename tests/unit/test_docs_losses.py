"""docs/add-a-loss.md does what it says: its block is a loss that keeps the contract."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch
from strategies import make_batch, take_rows

from attnrec_dist.batch import DataSpec, Output
from attnrec_dist.losses import LOSSES, build_loss, loss_config_class
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.settings import build

PAGE = (Path(__file__).resolve().parents[2] / "docs/add-a-loss.md").read_text()


@pytest.fixture
def bpr(monkeypatch):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    module = types.ModuleType("bpr")
    monkeypatch.setitem(sys.modules, "bpr", module)
    exec(compile(block, "bpr.py", "exec"), module.__dict__)
    monkeypatch.setitem(LOSSES, "bpr", module.BPR)
    return build_loss(build(loss_config_class("bpr"), {"name": "bpr", "negatives": 5}, "loss"), DataSpec(30, 40))


def test_the_example_is_a_loss(bpr):
    batch, table = make_batch([[1, 2], [3]]), ItemTable(30, 4).double()
    hidden = torch.randn(batch.num_tokens, 4, dtype=torch.float64)
    total = bpr(Output(hidden=hidden), batch, table)
    parts = [bpr(Output(hidden=hidden[rows]), take_rows(batch, [row]), table) for row, rows in enumerate(([0, 1, 2], [3, 4, 5]))]
    torch.testing.assert_close(sum(parts), total)
    assert 0.5 < (total / len(batch.queries)).item() < 0.9  # scores near 0: log 2


def test_the_page_names_every_loss_and_key():
    for name in LOSSES:
        row = re.search(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)
        assert row, name
        keys = set(loss_config_class(name).model_fields) - {"name", "negatives", "distribution", "shared"}
        assert keys <= set(re.findall(r"`(\w+)`", row[0])), name
