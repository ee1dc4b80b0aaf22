"""What a command says to type next works as it is printed: from any directory, in paths with blanks, on data that moved."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

from attnrec_dist.terminal.hints import next_step


def hint(done) -> list[str]:
    """The words behind attnrec in the last line of stderr."""
    assert done.code == 0, done.err
    found = re.search(r"next: (.*)\n$", done.err)
    return shlex.split(found[1])[1:] if found else []


def test_every_hint_works_as_printed(attnrec, shop, tmp_path, monkeypatch):
    """On the tiny shop, in a directory with a blank in its name, by relative paths."""
    here = tmp_path / "my shop's"
    shutil.copytree(shop.path, here, ignore=shutil.ignore_patterns("data", "run"))
    monkeypatch.chdir(here)
    monkeypatch.setattr("attnrec_dist.inspection.plots.draw", lambda *_: None)  # pictures take their time
    monkeypatch.setattr("attnrec_dist.engine.plot.curves", lambda *_: None)
    tiny = ["--train.max_steps", "2", "--model.body.width", "8", "--evaluation.threads", "1"]
    words = hint(attnrec("prepare", "prepare.yaml", "--output", "my data"))
    assert words == ["inspect", "my data"]
    words = hint(attnrec(*words))
    assert words == [
        "train",
        str(Path(__file__).parents[2] / "configs/quickstart-mixture.yaml"),
        *("--data", "my data", "--run_dir", "runs/my data"),
    ]
    words = hint(attnrec(*words, *tiny))
    assert words == ["evaluate", "runs/my data"]
    words = hint(attnrec(*words))
    assert words == ["recommend", "runs/my data", "--output", "runs/my data/recommendations.parquet"]
    assert hint(attnrec(*words)) == []
    assert Path("runs/my data/recommendations.parquet").is_file()

    assert hint(attnrec("inspect", "my data")) == [], "there is such a run"
    words = hint(attnrec("plot", "runs/my data"))
    assert words == ["evaluate", "runs/my data"]
    assert attnrec("prepare", "prepare.yaml", "--output", "all", "--split.train", "0.85", "--split.validation", "0").code == 0
    words = hint(attnrec("refit", "runs/my data", "--data", "all", *tiny))
    assert words == ["evaluate", "runs/my data-refit"]
    assert attnrec(*words).code == 0
    shutil.copytree("runs/my data", "runs/copy", symlinks=True)
    assert hint(attnrec("compare", "runs/my data", "runs/copy")) == []
    assert hint(attnrec("explain", "runs/my data", "--output", "why")) == []
    assert hint(attnrec("recommend", "runs/my data", "--users", "u1")) == []

    Path("my data").rename("moved data")
    words = hint(attnrec("evaluate", "runs/my data", "--data", "moved data", "--checkpoint", "last"))
    assert words[4:] == ["--data", "moved data", "--checkpoint", "last"]
    assert attnrec(*words).code == 0
    assert hint(attnrec("plot", "runs/my data")) == [], "evaluate would not find the data"


def test_where_the_shell_knows_no_attnrec_the_whole_path_is_printed(monkeypatch, tmp_path, tmp_path_factory):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    programs = Path("my env/bin")
    programs.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / programs / "python"))
    assert next_step("plot", "a b") == "next: 'my env/bin/python' -m attnrec_dist plot 'a b'"
    (programs / "attnrec").touch()
    assert next_step("plot", "ab") == "next: 'my env/bin/attnrec' plot ab"
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert next_step("plot", "ab") == f"next: '{tmp_path / programs / 'attnrec'}' plot ab"
