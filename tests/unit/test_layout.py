"""What is printed fits the terminal: 80 places and fewer, no number cut; what a run says at its start and its end."""

from __future__ import annotations

import doctest
import json
import re

import numpy as np
import pytest

from attnrec_dist.comparison.report import Judged, Verdict, told
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.samples import WindowSamples
from attnrec_dist.data.windows import build_index, open_index
from attnrec_dist.engine import announce
from attnrec_dist.evaluation.significance import Difference
from attnrec_dist.inference.histories import CustomerHistories
from attnrec_dist.inspection.report import report
from attnrec_dist.inspection.scan import inspect
from attnrec_dist.prepare.report import summary
from attnrec_dist.recommendation.recommend import Recommendation, described
from attnrec_dist.terminal import layout
from attnrec_dist.terminal.layout import broken, named, paragraph, places, table

BIG = 123_456_789_012
LONG = "2026-05-01_mixture-with-everything/seed-1_learning-rate-0.001"


def lines_fit(text: str, width: int = 80) -> None:
    too_long = [line for line in text.splitlines() if places(line) > width]
    assert not too_long


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_wide_table_goes_on_below_with_every_number_whole(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [["run", *(f"a long name of column {place}" for place in range(9))]]
    rows += [[f"{LONG}-{row}", *(f"{BIG + 100 * row + place:,}" for place in range(9))] for row in range(3)]
    text = table(rows)
    lines_fit(text, width)
    for row in rows[1:]:
        for cell in row[1:]:
            assert re.search(rf"(?<![\d,]){cell}(?![\d,])", text)
    joined = "".join(text.split())
    assert joined.count("name") >= 9


def test_names_are_broken_not_cut():
    assert "".join(broken(LONG, 20)) == LONG
    assert max(map(len, broken(LONG, 20))) <= 20
    assert "".join(broken("x" * 50, 20)) == "x" * 50


def test_wide_letters_count_twice():
    tea = "茶壶 大号 红色 不锈钢"
    lines = table([["item", "events"], [tea, "5"], ["tea", "1,234"]]).splitlines()
    assert {places(line) for line in lines} == {places(tea) + 2 + len("events")}
    lines_fit(paragraph(tea.replace(" ", "") * 12))


def test_a_data_set_of_long_names_is_told_in_80_places(shop):
    found = inspect(DataSet.open(shop.data))
    found.top = ["茶壶大号红色不锈钢" * 8, "SET OF 36 MUSHROOM PAPER DOILIES WITH GOLD EDGE"]
    found.lengths.counts = type(found.lengths.counts)({BIG: 7, 3: 1})
    text = report(found)
    lines_fit("\n".join(text.splitlines()[2:]))  # above stands the path
    assert f"{BIG:,}" in text
    assert "SET OF 36 MUSHROOM PAPER DOILIES WITH..." in text, "cut at a word"
    lines_fit(summary(found.data.manifest))


def test_runs_of_long_names_are_compared_in_80_places():
    runs = [f"{LONG}/{place}" for place in range(4)]
    d = Difference(0.312, 0.3, 0.012, -0.002, 0.022, 0.015, views=559)
    judged = [
        Judged(a, b, metric, d, 0.06)
        for metric in ("next_basket/all/capped_recall@100", "label/log_loss")
        for b in runs
        for a in runs
        if a > b
    ]
    values = {run: dict.fromkeys(("next_basket/all/capped_recall@100", "label/log_loss"), 0.3) for run in runs}
    text = told(Verdict({"split": "test"}, {run: {} for run in runs}, values, judged))
    assert text.count("+0.0120") == len(judged)
    assert text.count("-0.0020 to +0.0220") >= len(judged)
    sentences = [line for line in text.splitlines() if LONG in line]  # a name alone may be wider than a line
    lines_fit("\n".join(line for line in text.splitlines() if line not in sentences))


def test_lists_are_told_in_80_places(shop):
    title = "SET OF 36 MUSHROOM PAPER DOILIES WITH GOLD EDGE AND A RIBBON, LARGE, "
    best = [Recommendation(1, "1", title * 2, 0.1, "model", "goes with " + title)]
    history = CustomerHistories(["x"], np.array([0]), np.zeros(3, np.int64), np.arange(3), np.zeros(3, np.int64), {})
    text = described("x", history, DataSet.open(shop.data), best)
    lines_fit(text)
    assert " ".join(title.split()) in " ".join(text.split())


# A run's start and end


def test_a_run_begins_with_five_lines(attnrec, shop, trained, tmp_path):
    done = attnrec("train", shop.run_yaml, "--run_dir", tmp_path / "run", "--data", shop.data, "--train.max_steps", 3)
    assert done.code == 0, done.err
    start, end = done.err.split("step 3", 1)
    names = [line.split("  ")[0] for line in start.splitlines() if not line.startswith(" ")]
    assert names == ["data", "model", "strategy", "device", "writes to"]
    told, figures = " ".join(start.split()), json.loads((tmp_path / "run" / "figures.json").read_text())
    manifest = DataSet.open(shop.data).manifest
    assert f"{manifest.counts.train_events:,} training events" in told
    assert f"sasrec, {figures['parameters']:,} parameters, loss softmax" in told
    assert "one process; 3 steps (1 epoch), 16 samples a step" in told
    assert "device CPU, " in told
    assert f"{manifest.num_all_items - manifest.num_items} of {manifest.num_all_items} items" in told
    assert re.search(
        r"\d+ of \d+ histories to train on \(\d+\.\d%\) are longer than data.max_length 12: they are trained on in pieces", told
    )
    assert not re.search(r"goodput \d|FLOP|MFU|\b0% ", end), "nothing was lost, and a CPU has no known peak"
    assert f"next: attnrec evaluate {tmp_path / 'run'}" in end


def test_goodput_is_told_of_a_run_that_was_started_again(attnrec, shop, tmp_path):
    command = ("train", shop.run_yaml, "--run_dir", tmp_path / "run", "--data", shop.data, "--tracking.peak_tflops", 1)
    first = attnrec(*command, "--train.max_steps", 3)
    again = attnrec(*command, "--train.max_steps", 6)
    assert "(goodput" not in first.err
    assert re.search(r"all starts 2: .*\(goodput \d+\.\d%\)", " ".join(again.err.split()))
    assert "MFU" in first.err, "where the peak is given, arithmetic is told"
    assert "(goodput" not in attnrec(*command, "--train.max_steps", 6).err, "nothing was left to do"


@pytest.mark.parametrize(
    ("keys", "then"),
    [
        ({"windows": "last"}, "older events of theirs are not trained on"),
        ({"targets": "prefixes"}, "the newest 5 events before a prediction are read"),
        ({}, "they are trained on in pieces, all of their events"),
    ],
)
def test_what_max_length_cuts_is_counted(shop, tmp_path, keys, then):
    data = DataSet.open(shop.data)
    config = DataConfig(path=str(shop.data), max_length=5, **keys)
    build_index(data, config, tmp_path)
    samples = WindowSamples(data, open_index(data, config, tmp_path), config)
    (rows,) = data.scan()
    longer, of, before = 0, 0, 0
    for row in range(len(rows)):
        times = rows.times[rows.offsets[row] : rows.offsets[row] + rows.train_end[row]]
        if len(np.unique(times)) < 2:
            continue  # no target
        of += 1
        inputs = times[times < times[-1]]  # the last basket is only predicted
        longer += len(inputs) > 5
        if len(inputs) > 5:
            kept = [first for first in np.unique(inputs) if (inputs >= first).sum() <= 5]
            before += (inputs < (kept[0] if kept else inputs[-1])).sum()
    cut = samples.cut()
    assert (cut.longer, cut.of) == (longer, of)
    assert then in announce.cut_told(cut, 5)
    if keys == {"windows": "last"}:
        assert cut.told.startswith(f"{before:,} older events")


def test_a_catalogue_without_cold_items_says_nothing(shop):
    data = DataSet.open(shop.data)
    assert announce.cold_told(data)
    data.manifest = data.manifest.model_copy(update={"num_all_items": data.manifest.num_items})
    assert announce.cold_told(data) == ""


def test_docstring_examples():
    assert doctest.testmod(layout).failed == 0
    assert doctest.testmod(announce).failed == 0
    assert named([("a", "b")]) == "a  b"
