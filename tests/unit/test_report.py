"""The table, the counts under it, the comparison and the JSON, from ranks made by hand."""

import dataclasses
import doctest
import json
import math

import numpy as np
import pytest

from attnrec_dist.evaluation import report as report_module
from attnrec_dist.evaluation.report import from_json, report, styled, to_json
from attnrec_dist.evaluation.results import Result, against_the_best, summarise, view_values

METRICS = ["recall@10", "ndcg@10"]
OFFSETS = {"next_basket": np.array([0, 2, 3, 3]), "period": np.array([0, 2, 4, 5])}
RANKS = {  # three views; the second one's item is cold under next_basket
    "trend": {
        "next_basket/all": np.array([1, 20, 0]),
        "next_basket/new": np.array([-1, 20, 0]),
        "period/all": np.array([1, 2, 30, 0, 5]),
        "period/new": np.array([-1, 2, 30, 0, 5]),
    },
    "mine": {
        "next_basket/all": np.array([1, 2, 0]),
        "next_basket/new": np.array([-1, 1, 0]),
        "period/all": np.array([1, 2, 3, 0, 50]),
        "period/new": np.array([-1, 2, 3, 0, 50]),
    },
}


@pytest.fixture
def values():
    return view_values(RANKS, OFFSETS, METRICS)


@pytest.fixture
def result(values):
    group = summarise(values, RANKS, "mine")
    return Result("test", "mine", group, comparisons=against_the_best(values, "mine"), notes=("a note",))


def test_means_and_counts(result):
    group = result.customers
    assert list(group.values) == ["mine", "trend"]
    assert group.views == {"next_basket/all": 2, "next_basket/new": 2, "period/all": 3, "period/new": 3}
    assert group.relevant == {"next_basket/all": 3, "next_basket/new": 2, "period/all": 5, "period/new": 4}
    assert group.cold == {"next_basket/all": 1, "next_basket/new": 1, "period/all": 1, "period/new": 1}
    assert group.values["mine"]["next_basket/all/recall@10"] == 0.5
    assert group.values["trend"]["next_basket/all/recall@10"] == 0.25
    assert group.values["trend"]["period/new/recall@10"] == (1 + 0 + 1) / 3


def test_the_table_shows_each_value_in_its_column_and_marks_the_best(result):
    lines = report(result, METRICS).split("\n\n")[0].splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line and line.split()[0] in ("mine", "trend")}
    for row in ("mine", "trend"):
        for shown, column in zip(
            rows[row], [f"{part}/{metric}" for part in result.customers.views for metric in METRICS], strict=True
        ):
            value = result.customers.values[row][column]
            other = result.customers.values["trend" if row == "mine" else "mine"][column]
            assert shown == f"{value:.4f}" + "*" * (value >= other)
    assert lines[2].split() == ["recall", "ndcg"] * 4


def test_the_table_fits_a_terminal_and_tells_what_was_counted(result):
    text = report(result, METRICS)
    table, *rest = text.split("\n\n")
    assert max(map(len, table.splitlines())) <= 80
    assert [line.split()[-4:] for line in table.splitlines()[-3:]] == [["2", "2", "3", "3"], ["3", "2", "5", "4"], ["1"] * 4]
    assert max(map(len, text.splitlines())) <= 80
    assert "ties and NaN count against" in " ".join(rest[-1].split())
    assert "a note" in rest[-1]
    assert "without history" not in text


def test_metrics_of_several_lengths_are_named_in_full(values):
    both = ["ndcg@5", "ndcg@10"]
    values = view_values(RANKS, OFFSETS, both)
    text = report(Result("validation", "mine", summarise(values, RANKS, "mine")), both)
    assert text.splitlines()[0].startswith("validation ")
    assert [line.split() for line in text.splitlines() if "ndcg@5" in line] == [both * 2] * 2, "one protocol below the other"


def test_wide_columns_go_on_below():
    metrics = ["capped_recall@10", "ndcg@100"]
    wide = view_values(RANKS, OFFSETS, metrics)
    text = report(Result("test", "mine", summarise(wide, RANKS, "mine"), comparisons=against_the_best(wide, "mine")), metrics)
    assert max(map(len, text.splitlines())) <= 80
    values = [f"{value:.4f}" for value in summarise(wide, RANKS, "mine").values["mine"].values()]
    shown = [word.rstrip("*") for line in text.splitlines() if line.startswith("mine ") for word in line.split()[1:]]
    assert shown[: len(values)] == values, "every number, whole, in the order of the columns"
    assert text.count("capped_recall") == 4


def test_customers_without_history_stand_apart(result):
    text = report(dataclasses.replace(result, newcomers=result.customers), METRICS)
    apart = text.split("Apart, customers without history")[1].split("\n\n")[0]
    assert "new items" not in apart
    assert apart.splitlines()[-3].split() == ["customers", "2", "3"]


def test_the_model_is_compared_with_the_best_baseline_of_each_column():
    random = np.random.default_rng(0)
    base = random.random(200)
    values = {
        "mine": {"period/all/ndcg@10": base + 0.1, "period/new/ndcg@10": base - 0.1},
        "weak": {"period/all/ndcg@10": base - 0.3, "period/new/ndcg@10": base + 0.01 * random.standard_normal(200)},
        "strong": {"period/all/ndcg@10": base + 0.01 * random.standard_normal(200), "period/new/ndcg@10": base - 0.3},
    }
    compared = against_the_best(values, "mine")
    assert {column: each.baseline for column, each in compared.items()} == {
        "period/all/ndcg@10": "strong",
        "period/new/ndcg@10": "weak",
    }
    group = report_module.Group({}, {}, {}, {})
    lines = report_module._compared(Result("test", "mine", group, comparisons=compared), "ndcg@10")
    assert [line.split()[-2:] for line in lines[-2:]] == [["strong", "better"], ["weak", "worse"]]
    assert "+0.1" in lines[-2]
    assert "-0.1" in lines[-1]


def test_a_column_without_views_is_a_dash_and_null():
    ranks = {row: {"period/new": np.array([-1, -1])} for row in ("mine", "trend")}
    values = view_values(ranks, {"period": np.array([0, 1, 2])}, METRICS)
    empty = Result("test", "mine", summarise(values, ranks, "mine"), comparisons=against_the_best(values, "mine"))
    assert "- " in next(line for line in report(empty, METRICS).splitlines() if line.startswith("mine"))
    assert json.loads(to_json(empty))["customers"]["values"]["mine"]["period/new/ndcg@10"] is None
    assert math.isnan(from_json(to_json(empty)).customers.values["mine"]["period/new/ndcg@10"])


def test_json_reads_back_to_the_same_bits(result):
    whole = dataclasses.replace(result, newcomers=result.customers, coverage={"mine": 1 / 3})
    assert from_json(to_json(whole)) == whole


def test_a_terminal_sees_the_same_text_with_the_model_in_bold(result):
    text = report(result, METRICS)
    shown = styled(text, "mine")
    assert shown.plain == text
    assert any(span.style == "bold" and text[span.start : span.end].startswith("mine ") for span in shown.spans)


def test_docstring_examples():
    assert doctest.testmod(report_module).failed == 0
