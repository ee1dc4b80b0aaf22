"""`attnrec compare` on runs of the tiny shop: table, sentence, JSON and picture; what is refused; nothing stale is used."""

from __future__ import annotations

import doctest
import json
import math
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_shop import attnrec_in_process, write_shop

from attnrec_dist.comparison import report
from attnrec_dist.comparison import run as compare_runs
from attnrec_dist.comparison.forest_plot import forest
from attnrec_dist.comparison.report import Judged, Verdict, judge, sentence, to_json, told
from attnrec_dist.evaluation import significance
from attnrec_dist.evaluation.significance import Difference, paired_difference
from attnrec_dist.evaluation.user_metrics import mean_of
from attnrec_dist.inference.provenance import stored_identity


@pytest.fixture(scope="module")
def rivals(trained, tmp_path_factory):
    """Two more runs on the tiny shop's data: another seed; wider."""
    folder = tmp_path_factory.mktemp("rivals")
    for name, options in {"seed": ["--train.seed", 5], "wide": ["--model.width", 16]}.items():
        code = attnrec_in_process("train", trained.run_yaml, "--run_dir", folder / name, "--data", trained.data, *options)
        assert code == 0
    shutil.copytree(trained.run, folder / "base", symlinks=True)
    return folder


@pytest.mark.parametrize("module", [significance, report, compare_runs], ids=lambda module: module.__name__)
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_two_runs_are_compared_view_by_view(attnrec, trained, rivals, tmp_path):
    done = attnrec("compare", rivals / "base", rivals / "seed", "--output", tmp_path / "c.json", "--plot", tmp_path / "c.png")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "c.json").read_text())
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    [only] = found["differences"]
    assert (only["run"], only["against"], only["metric"]) == ("seed", "base", "next_basket/all/ndcg@10")
    tables = {}
    for name in ("base", "seed"):
        assert attnrec("evaluate", rivals / name, "--per_view", tmp_path / f"{name}.parquet").code == 0
        rows = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
        rows = [row for row in rows if (row["recommender"], row["protocol"], row["policy"]) == ("sasrec", "next_basket", "all")]
        tables[name] = np.array([math.nan if row["ndcg@10"] is None else row["ndcg@10"] for row in rows])
    expected = paired_difference(tables["seed"], tables["base"])
    assert Difference(**only["difference"]) == expected
    assert only["p_holm"] == expected.p
    assert only["sentence"] in " ".join(done.out.split())
    assert f"{expected.mean_a:.4f}" in done.out


def test_three_runs_and_four_columns_are_corrected_together(attnrec, rivals, tmp_path):
    runs = [rivals / name for name in ("base", "seed", "wide")]
    done = attnrec("compare", *runs, "--metric", "recall@3", "all/ndcg@5", "--output", tmp_path / "c.json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "c.json").read_text())["differences"]
    assert len(found) == 3 * (4 + 2)
    assert {each["metric"] for each in found} >= {"period/new/recall@3", "next_basket/all/ndcg@5"}
    p = [each["difference"]["p"] for each in found]
    assert [each["p_holm"] for each in found] == significance.holm(p)
    assert done.out.count("by Holm over 18") == 18


def test_what_evaluate_wrote_is_used_while_it_is_of_the_same(attnrec, rivals, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(rivals / "base", own, symlinks=True)
    pair = (own, rivals / "seed")
    before = attnrec("compare", *pair)
    assert before.err.count("evaluating now") == 2
    assert attnrec("evaluate", own, "--per_view", own / "test.parquet").code == 0
    assert stored_identity(own / "test.parquet")["tested_on"]["split"] == "test"
    again = attnrec("compare", *pair)
    assert f"values read from {own / 'test.parquet'}" in again.err
    assert again.out == before.out
    assert "evaluating now" in attnrec("compare", *pair, "--metric", "recall@7").err.splitlines()[0]  # it has no such column
    assert "evaluating now" in attnrec("compare", *pair, "--split", "validation").err.splitlines()[0]
    last = attnrec("compare", *pair, "--checkpoint", "last")
    assert f"{own / 'test.parquet'} is of another checkpoint or configuration" in last.err
    values = own / "test.parquet"
    content = values.read_bytes()
    for place in range(8, len(content) - 4000, max(1, len(content) // 40)):  # of the pages
        values.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        again = attnrec("compare", *pair)
        assert again.out == before.out, place
    assert f"{values} is damaged, not used; evaluating now" in again.err
    values.unlink()
    os.mkfifo(values)
    assert attnrec("compare", *pair).out == before.out
    config = own / "config.yaml"
    config.write_text(config.read_text().replace("dropout: 0.1", "dropout: 0.2"))  # no matter which key of the model
    done = attnrec("compare", *pair)
    assert (done.code, "model.dropout: was 0.1, now 0.2" in done.err) == (2, True)
    config.write_text(config.read_text().replace("dropout: 0.2", "dropout: 0.1"))
    (own / "foreign.parquet").write_bytes(b"no parquet")
    assert attnrec("compare", *pair).code == 0


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A run on another data set."""
    shop = write_shop(tmp_path_factory.mktemp("elsewhere"), seed=1, users=40)
    assert attnrec_in_process("prepare", shop.prepare_yaml, "--output", shop.data) == 0
    code = attnrec_in_process("train", shop.run_yaml, "--run_dir", shop.run, "--data", shop.data, "--train.max_epochs", 1)
    assert code == 0
    return shop


def test_what_cannot_be_compared_is_refused_with_what_differs(attnrec, trained, rivals, elsewhere, tmp_path):
    base = rivals / "base"

    def refused(*arguments, words):
        done = attnrec("compare", *arguments)
        assert done.code == 2
        assert done.out == ""
        for word in words:
            assert word in done.err

    refused(base, elsewhere.run, words=["cannot be compared", "data fingerprint:", f"in {elsewhere.run}"])
    options = ["--data.target_events", "[buy]", "--train.max_epochs", 1]
    assert attnrec("train", trained.run_yaml, "--run_dir", tmp_path / "buys", "--data", trained.data, *options).code == 0
    refused(base, tmp_path / "buys", words=["data.target_events: ['buy', 'view'] in", "['buy'] in"])
    refused(base, words=["from two runs to 10, got 1"])
    refused(words=["RUN_DIR is missing"])
    refused(base, base, words=["named twice"])
    refused(base, base / ".." / "base" / ".", words=["name"])
    refused(base, rivals / "seeed", words=["did you mean", "seed"])
    refused(base, rivals / "seed", "--metric", "ncdg@10", words=["did you mean ndcg@10"])
    refused(base, rivals / "seed", "--metric", "periods/ndcg@10", words=["did you mean period/ndcg@10"])
    refused(base, rivals / "seed", "--metric", "ndcg", words=["lacks the length"])


# The words


def judged(gap, low, high, p, p_holm=None, **more):
    d = Difference(0.5 + gap, 0.5, gap, low, high, p, 100)
    return Judged("B", "A", more.pop("metric", "auc"), d, p if p_holm is None else p_holm, **more)


def test_sentences_say_who_is_better_and_whether_that_is_clear():
    assert sentence(judged(0.02, 0.01, 0.03, 0.001)).startswith("B beats A by 0.0200 auc (95% CI 0.0100 to 0.0300, p 0.001,")
    assert sentence(judged(-0.02, -0.03, -0.01, 0.001)).startswith("A beats B by 0.0200 auc (95% CI 0.0100 to 0.0300,")
    worse_loss = judged(0.02, 0.01, 0.03, 0.001, metric="log_loss", lower_is_better=True)
    assert sentence(worse_loss).startswith("A beats B by 0.0200 log_loss (lower is better) (95% CI 0.0100 to 0.0300")
    better_loss = judged(-0.02, -0.03, -0.01, 0.001, metric="log_loss", lower_is_better=True)
    assert sentence(better_loss).startswith("B beats A by 0.0200 log_loss (lower is better) (95% CI 0.0100 to 0.0300")
    assert "not clearly" in sentence(judged(0.02, -0.01, 0.05, 0.2))
    assert "not clearly" in sentence(judged(0.02, 0.01, 0.03, 0.02, 0.08), of=4)
    assert "are equal in auc" in sentence(judged(0.0, 0.0, 0.0, 1.0))
    empty = Judged("B", "A", "auc", Difference(*[math.nan] * 6, 0), math.nan)
    assert sentence(empty) == "B and A have no auc to compare."


def test_a_table_marks_the_best_and_reads_back(tmp_path):
    random = np.random.default_rng(0)
    metrics = {
        "label/auc": {"A": mean_of(random.random(80)), "B": mean_of(random.random(80) + 1)},
        "label/log_loss": {"A": mean_of(random.random(80)), "B": mean_of(random.random(80) + 1)},
    }
    found = judge(metrics, lower=["label/log_loss"])
    values = {run: {metric: of[run].value for metric, of in metrics.items()} for run in "AB"}
    whole = Verdict({"split": "test"}, {"A": {}, "B": {}}, values, found, {"B - A, label": significance.McNemar(3, 2, 1.0, True)})
    lines = told(whole).splitlines()
    assert lines[1].endswith(f"{values['B']['label/auc']:.4f}*")
    assert f"{values['A']['label/log_loss']:.4f}*" in lines[2]
    assert [line.split()[-3] for line in lines if line.startswith("B - A")] == ["better", "worse"]
    assert "3 right in the first alone, 2 in the second" in told(whole)
    tree = json.loads(to_json(whole))
    assert tree["differences"][1]["lower_is_better"]
    forest(whole, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 5_000


def test_many_comparisons_are_resampled_more_often_so_that_holm_can_find():
    random = np.random.default_rng(0)
    values = {name: mean_of(random.random(50) + 5 * place) for place, name in enumerate("ABCDEFGHIJ")}
    assert all(each.is_clear for each in judge({"ndcg@10": values}))
