"""`attnrec compare` and `attnrec explain` on runs of the ranking task, made by `attnrec train` on a tiny labelled data set."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk
from tiny_examples import add_examples
from tiny_shop import attnrec_in_process

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.evaluation.significance import mcnemar
from attnrec_dist.explanation import run

RUN = """\
data: {path: DATA, max_length: 12}
model: {name: feature_attention, width: 8, heads: 2, head_width: 16}
loss: {name: binary}
optimizer: {lr: 1e-2}
train: {max_epochs: 1, global_batch_size: 64, threads: 1}
evaluation: {metric: label/auc}
"""
KINDS = {"attention": [], "uniform": ["--model.attention", "uniform"], "target": ["--model.history", "gru", "--train.seed", 3]}


@pytest.fixture(scope="module")
def runs(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranking")
    shutil.copytree(shop.data, folder / "data")
    add_examples(folder / "data", tasks=("label", "cart"), per_user=10)
    (folder / "run.yaml").write_text(RUN.replace("DATA", str(folder / "data")))
    for name, options in KINDS.items():
        assert attnrec_in_process("train", folder / "run.yaml", "--run_dir", folder / name, *options) == 0
    return folder


def test_two_classifiers_are_compared_by_user(attnrec, runs, tmp_path):
    pair = [runs / "uniform", runs / "attention"]
    wanted = ["auc", "label/log_loss", "label/f1"]
    done = attnrec("compare", *pair, "--metric", *wanted, "--output", tmp_path / "c.json", "--plot", tmp_path / "c.png")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "c.json").read_text())
    assert [each["metric"] for each in found["differences"]] == ["label/auc", "cart/auc", "label/log_loss", "label/f1"]
    assert found["tested_on"].keys() == {"task", "data fingerprint", "split"}
    assert (tmp_path / "c.png").stat().st_size > 5_000
    right = {}
    for name in ("uniform", "attention"):
        file = tmp_path / f"{name}.parquet"
        assert attnrec("evaluate", runs / name, "--per_view", file, "--output", tmp_path / f"{name}.json").code == 0
        rows = pq.read_table(file).to_pandas()
        rows = rows[rows["task"] == "label"]
        values = found["values"][name]
        assert values["label/auc"] == pytest.approx(sk.roc_auc_score(rows["label"], rows["probability"]), rel=1e-9)
        assert values["label/log_loss"] == pytest.approx(sk.log_loss(rows["label"], rows["probability"]), rel=1e-9)
        said = rows["probability"] >= found["runs"][name]["thresholds"]["label"]
        assert values["label/f1"] == pytest.approx(sk.f1_score(rows["label"], said), rel=1e-9)
        right[name] = (said == (rows["label"] == 1)).to_numpy()
        users = rows["user"].nunique()
    assert {each["difference"]["views"] for each in found["differences"] if each["metric"].startswith("label")} == {users}
    test = mcnemar(right["attention"], right["uniform"])
    kept = found["mcnemar"]["attention - uniform, label"]
    assert (kept["only_a"], kept["only_b"]) == (test.only_a, test.only_b)
    assert kept["p"] == pytest.approx(test.p)
    assert "McNemar, attention - uniform, label" in done.out
    assert "label/log_loss (lower is better)" in done.out


def test_what_evaluate_wrote_of_a_ranking_run_is_used(attnrec, runs, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(runs / "target", own, symlinks=True)
    before = attnrec("compare", runs / "uniform", own)
    assert before.err.count("evaluating now") == 2
    assert attnrec("evaluate", own, "--per_view", own / "test.parquet").code == 0
    after = attnrec("compare", runs / "uniform", own)
    assert "values read from" in after.err
    assert after.out == before.out


def test_mistakes_are_told(attnrec, runs, trained):
    def refused(*arguments, words):
        done = attnrec("compare", *arguments)
        assert done.code == 2
        for word in words:
            assert word in done.err

    refused(runs / "uniform", trained.run, words=["task: ranking in", "next_item in"])
    refused(runs / "uniform", runs / "attention", "--metric", "acu", words=["did you mean auc"])
    refused(runs / "uniform", runs / "attention", "--metric", "card/auc", words=["did you mean cart/auc", "label, cart"])


# explain


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing is looked at once; it takes longer than all the rest."""
    monkeypatch.setattr(run, "heat_map", lambda picture, png: None)


def test_explain_writes_a_page_a_heat_map_and_text(attnrec, runs, tmp_path):
    done = attnrec("explain", runs / "attention", "--output", tmp_path / "why", "--show", 4, "--sample", 200)
    assert done.code == 0, done.err
    text = (tmp_path / "why" / "index.html").read_text()
    assert (tmp_path / "why" / "weights.png").read_bytes().startswith(b"\x89PNG")
    assert done.out.count("probability 0.") + done.out.count("probability 1.") == 4
    assert text.count("<section") == 4
    assert "The field with the highest weight, given the value of another example, moves the log odds" in " ".join(
        done.out.split()
    )
    assert "The past event with the highest weight, left out, moves the log odds" in " ".join(done.out.split())
    assert "Thing, no." in text
    again = attnrec("explain", runs / "attention", "--output", tmp_path / "again", "--show", 4, "--sample", 200)
    assert again.out == done.out


def test_customers_can_be_asked_for_and_mistakes_are_told(attnrec, runs, trained, tmp_path, no_picture):
    data = DataSet.open(runs / "data")
    user = data.users()["id"][int(ExampleSet.open(data, "test").column("user")[0])].as_py()
    (tmp_path / "t.parquet").write_text("")
    done = attnrec("explain", runs / "attention", "--output", tmp_path / "why", "--users", user, "--sample", 50)
    assert done.code == 0, done.err
    assert done.out.count(f"customer {user}:") == 5

    def refused(*arguments, words):
        done = attnrec("explain", *arguments)
        assert done.code == 2
        for word in words:
            assert word in done.err

    refused(runs / "attention", words=["--output DIR is missing"])
    refused(runs / "attention", "--output", tmp_path / "t.parquet", words=["is a file; name a directory"])
    refused(runs / "attention", "--output", tmp_path / "no", "--users", "nobody", words=["nobody: not among the customers"])
    refused(runs / "attention", "--output", tmp_path / "no", "--show", 0, words=["--show 0: at least 1"])
    refused(trained.run, "--output", tmp_path / "no", words=["model sasrec gives no weights to look at"])
    refused(runs / "attenton", "--output", tmp_path / "no", words=["did you mean"])
    assert not (tmp_path / "no").exists()


def test_uniform_attention_and_recurrent_histories_say_what_is_not_told(attnrec, runs, tmp_path, no_picture):
    uniform = attnrec("explain", runs / "uniform", "--output", tmp_path / "u", "--sample", 100)
    assert uniform.code == 0, uniform.err
    assert "All fields have the same weight in every example" in uniform.out
    recurrent = attnrec("explain", runs / "target", "--output", tmp_path / "g", "--sample", 100)
    assert recurrent.code == 0, recurrent.err
    assert "past event" not in recurrent.out
    assert np.char.count(recurrent.out, "history") > 0


MIXTURE = """\
data: {path: DATA, max_length: 12}
model: {name: mixture, body: {name: sasrec, width: 8, heads: 1, blocks: 1, dropout: 0.1}}
optimizer: {lr: 1e-2}
train: {max_epochs: 1, global_batch_size: 16, threads: 1}
evaluation: {baselines: {graph_events: 0}}
"""


def test_a_mixture_tells_its_experts_shares(attnrec, shop, tmp_path, no_picture):
    (tmp_path / "m.yaml").write_text(MIXTURE.replace("DATA", str(shop.data)))
    assert attnrec("train", tmp_path / "m.yaml", "--run_dir", tmp_path / "mixture").code == 0
    done = attnrec("explain", tmp_path / "mixture", "--output", tmp_path / "why", "--show", 2)
    assert done.code == 0, done.err
    assert done.out.count("(place 1 of the list)") == 2
    for expert in ("copy", "trend", "graph", "sequence"):
        assert expert in done.out
    assert "the shares are exact" in (tmp_path / "why" / "index.html").read_text()
    one = attnrec("explain", tmp_path / "mixture", "--output", tmp_path / "one", "--users", "u1")
    assert one.out.count("customer u1:") == 3
    assert attnrec("explain", tmp_path / "mixture", "--output", tmp_path / "one", "--users", "nobody").code == 2
