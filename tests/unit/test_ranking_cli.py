"""The ranking task by command: a tiny shop with labelled examples, trained, measured, drawn; and the mistakes a user can make."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from tiny_examples import add_examples
from tiny_shop import attnrec_in_process

from attnrec_dist.storage.stored import sealed

RUN = """\
data: {{path: {data}, max_length: 8, block_size: 8}}
model: {{name: feature_attention, width: 8, moment: false}}
optimizer: {{lr: 1e-2}}
train: {{max_epochs: 4, global_batch_size: 32, threads: 1}}
"""


@pytest.fixture(scope="module")
def ranking(shop, tmp_path_factory):
    """A directory with data/, ranking.yaml and run/. Read only."""
    path = tmp_path_factory.mktemp("ranking")
    shutil.copytree(shop.data, path / "data")
    add_examples(path / "data", ("label", "cart"), per_user=10)
    (path / "ranking.yaml").write_text(RUN.format(data=path / "data"))
    assert attnrec_in_process("train", path / "ranking.yaml", "--run_dir", path / "run") == 0
    return path


def test_what_evaluate_says_to_type_next_works(ranking, attnrec):
    done = attnrec("evaluate", ranking / "run")
    words = shlex.split(done.err.splitlines()[-1])
    assert words == ["next:", "attnrec", "explain", str(ranking / "run"), "--output", str(ranking / "run" / "explained")]
    assert attnrec(*words[2:]).code == 0


def test_evaluate_tells_what_the_parquet_file_holds(ranking, attnrec, tmp_path):
    told = attnrec("evaluate", ranking / "run", "--output", tmp_path / "o.json", "--per_view", tmp_path / "o.parquet")
    assert told.code == 0
    assert "task label" in told.out
    assert "weighted avg" in told.out
    figures = json.loads((tmp_path / "o.json").read_text())["tasks"]
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.column_names == ["user", "item", "time", "task", "label", "probability"]
    for task, each in figures.items():
        rows = table.filter(np.array(table["task"]) == task)
        labels, p = rows["label"].to_numpy(), rows["probability"].to_numpy()
        assert each["rows"]["feature_attention"]["auc"] == roc_auc_score(labels, p)
        assert each["examples"] == len(labels)
        decided = p >= each["threshold"]
        assert each["rows"]["feature_attention"]["accuracy"] == pytest.approx((decided == labels).mean())
    assert figures["label"]["rows"]["feature_attention"]["auc"] > 0.8, "the signal is found"
    assert figures["label"]["rows"]["feature_attention"]["auc"] > figures["label"]["rows"]["popularity"]["auc"] + 0.2
    assert (ranking / "run" / "reliability-test.png").stat().st_size > 10_000


def test_the_threshold_is_the_one_that_validation_chose(ranking, attnrec, tmp_path):
    kept = json.loads((ranking / "run" / "best" / "progress.json").read_text())["extra"]["thresholds"]
    copy = tmp_path / "run"
    shutil.copytree(ranking / "run", copy, symlinks=True)
    outputs = [tmp_path / "kept.json", tmp_path / "anew.json"]
    assert attnrec("evaluate", copy, "--output", outputs[0]).code == 0
    progress = copy / "best" / "progress.json"
    marker = copy / "best" / "complete.json"
    tree = json.loads(progress.read_text())
    progress.write_text(json.dumps(tree | {"extra": {}}))  # as of a checkpoint that was made without validating
    record = json.loads(marker.read_text())
    del record["files"]["progress.json"]
    marker.write_text(json.dumps(sealed(record)))
    assert attnrec("evaluate", copy, "--output", outputs[1]).code == 0
    assert outputs[0].read_text() == outputs[1].read_text()
    assert {task: each["threshold"] for task, each in json.loads(outputs[0].read_text())["tasks"].items()} == kept


def test_plot_and_help(ranking, attnrec):
    assert attnrec("plot", ranking / "run").code == 0
    assert "--model.combine" in attnrec("train", ranking / "ranking.yaml", "--help-all").out
    assert "ranking" in attnrec("evaluate", "--help-all").out


def test_a_replayed_step_names_a_customer_whose_steps_hold_it(ranking, attnrec):
    told = attnrec("replay", ranking / "run", "--step", "3")
    assert (told.code, "step 3, epoch " in told.out) == (0, True)
    sample, user = told.out.splitlines()[-1].split()[1::2]
    assert re.search(rf"^step 3  epoch \d+  sample {sample}$", attnrec("when", ranking / "run", "--user", user).out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loss.name", "softmax"], "type --loss.name binary"),
        (["--evaluation.metric", "label/acu"], "did you mean auc?"),
        (["--evaluation.metric", "auc"], "write task/metric, for example label/auc"),
        (["--evaluation.metric", "lable/auc"], "did you mean label/auc? Its tasks: label, cart"),
        (["--evaluation.metric", "next_basket/all/ndcg@10"], "unknown metric 'ndcg@10' of the ranking task"),
        (["--data.targets", "last"], "data.targets: says which samples next_item trains"),
        (["--model.context", "[colur]"], "there is no field 'colur'"),
        (["--loss.name", "binary", "--loss.task_weights", "{crat: 2}"], "no task 'crat'"),
    ],
)
def test_mistakes_of_a_configuration(ranking, attnrec, tmp_path, options, message):
    told = attnrec("train", ranking / "ranking.yaml", "--run_dir", tmp_path / "run", *options)
    assert told.code == 2
    assert message in told.err
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_examples_and_a_model_of_the_other_task(ranking, shop, attnrec, tmp_path):
    told = attnrec("train", ranking / "ranking.yaml", "--run_dir", tmp_path / "run", "--data", shop.data)
    assert (told.code, "no labelled examples" in told.err) == (2, True)
    told = attnrec("train", shop.run_yaml, "--run_dir", tmp_path / "run", "--data", shop.data, "--loss.name", "binary")
    assert (told.code, "type --loss.name softmax" in told.err) == (2, True)
    told = attnrec("recommend", ranking / "run", "--output", tmp_path / "lists.parquet")
    assert (told.code, "of the task ranking" in told.err) == (2, True)
