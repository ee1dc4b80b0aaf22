"""The curves are read as logged and drawn without a display."""

import doctest
import json
import math
import struct
import sys

import numpy as np
import pytest

from attnrec_dist.errors import MissingExtraError, RunDirError
from attnrec_dist.evaluation import curves as plots
from attnrec_dist.evaluation.curves import curves, read_curves


def write(path, records, tail=""):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return path


def test_a_log_cut_in_a_line_and_continued_is_read(tmp_path):
    records = [
        {"step": 1, "loss": 8.0},
        {"step": 2, "loss": 7.5},
        {"step": 2, "eval/period/all/ndcg@10": 0.1},
        {"step": 2, "loss": 7.0},
    ]
    losses, evaluations = read_curves(write(tmp_path / "metrics.jsonl", records, '{"step": 3, "lo'))
    assert losses == {1: 8.0, 2: 7.0}
    assert evaluations == {"eval/period/all/ndcg@10": {2: 0.1}}


@pytest.mark.parametrize("what", ["both", "loss", "evaluation"])
def test_a_picture_comes_out(tmp_path, what):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    loss = [{"step": s, "loss": 3 + 5 / s if s != 40 else math.nan} for s in range(1, 100)]
    evaluation = [{"step": s, "eval/next_basket/all/ndcg@10": 0.3 - (s - 60) ** 2 / 1e5} for s in range(20, 100, 20)]
    write(tmp_path / "metrics.jsonl", {"both": loss + evaluation, "loss": loss, "evaluation": evaluation}[what])
    curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    content = (tmp_path / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1320, 504)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_nothing_to_draw_is_told(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    with pytest.raises(RunDirError, match="once training has begun"):
        curves(write(tmp_path / "metrics.jsonl", []), tmp_path / "curves.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"attnrec_dist\[plots\]"):
        curves(write(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 1.0}]), tmp_path / "curves.png")


def test_docstring_examples():
    assert doctest.testmod(plots, extraglobs={"np": np}).failed == 0
