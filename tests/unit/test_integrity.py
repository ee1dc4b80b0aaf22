"""What is stored is checked, by every command; a refused command leaves a run as it was; what is expendable is made anew."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from prepare_helpers import edit_manifest, flip_byte
from tiny_shop import Shop, write_shop

from attnrec_dist import load
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import ExitCode
from attnrec_dist.run_dir import MARKER, RunDir
from attnrec_dist.storage.stored import sealed


@pytest.fixture
def copy(trained, tmp_path) -> Shop:
    """A shop of one's own, to break, with a finished run."""
    shutil.copytree(trained.path, tmp_path / "shop", symlinks=True)
    return Shop(tmp_path / "shop")


def train(attnrec, shop: Shop, *options: object):
    return attnrec("train", shop.run_yaml, "--run_dir", shop.run, "--data", shop.data, *options)


def evaluate(attnrec, shop: Shop, *options: object):
    return attnrec("evaluate", shop.run, "--data", shop.data, *options)


def tree(path: Path) -> dict[str, bytes | str | None]:
    """Every file's bytes, every link's target, every folder."""
    found: dict[str, bytes | str | None] = {}
    for each in sorted(path.rglob("*")):
        name = str(each.relative_to(path))
        found[name] = os.readlink(each) if each.is_symlink() else each.read_bytes() if each.is_file() else None
    return found


def refused(done, *parts: str) -> None:
    assert done.code == ExitCode.USER_ERROR, done
    assert done.err.count("attnrec: error: ") == 1, done.err
    for part in parts:
        assert part in done.err
    assert "Traceback" not in done.err


def curve(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


# A refused command changes nothing


def other_data(shop: Shop) -> tuple:
    (shop.path / "other").mkdir()
    other = write_shop(shop.path / "other", seed=1)
    from tiny_shop import attnrec_in_process

    assert attnrec_in_process("prepare", other.prepare_yaml, "--output", other.data) == 0
    return ("--data", other.data)


def all_damaged(shop: Shop) -> tuple:
    for path in RunDir(shop.run).complete_checkpoints():
        os.truncate(path / "objective.safetensors", 9)
    return ("--train.max_epochs", "3")


def damaged_and_refused(shop: Shop) -> tuple:
    os.truncate(RunDir(shop.run).complete_checkpoints()[-1] / "objective.safetensors", 9)
    return ("--train.max_epochs", "3", "--data.target_events", "[nothing]")


def damaged_and_of_other_data(shop: Shop) -> tuple:
    os.truncate(RunDir(shop.run).complete_checkpoints()[-1] / "objective.safetensors", 9)
    return other_data(shop)


def edited_config(shop: Shop) -> tuple:
    """config.yaml and the command agree; the checkpoint knows better."""
    for file in (shop.run / "config.yaml", shop.run_yaml):
        file.write_text(file.read_text().replace("max_length: 12", "max_length: 11"))
    return ("--train.max_epochs", "3")


def another_model(shop: Shop) -> tuple:
    shop.run_yaml.write_text(shop.run_yaml.read_text().replace("name: sasrec", "name: bsarec"))
    return ()


def damaged_data(shop: Shop) -> tuple:
    (shard,) = (shop.data / "sequences").iterdir()
    flip_byte(shard, 1000)
    return ("--train.max_epochs", "3")


def metrics_are_a_folder(shop: Shop) -> tuple:
    (shop.run / "metrics.jsonl").unlink()
    (shop.run / "metrics.jsonl").mkdir()
    return ("--train.max_epochs", "3")


def without_index(shop: Shop) -> tuple:
    """An older copy of a run: what is made before the refusal goes again."""
    shutil.rmtree(shop.run / "index")
    (shop.run / "lock").unlink()
    return ("--data", "d_plian")


@pytest.mark.parametrize(
    ("prepared", "said"),
    [
        (("--data", "d_plian"), "d_plian: no such data set"),
        (("--train.max_epochs", "3", "--data.max_length", "11"), "data.max_length: was 12, now 11"),
        (("--train.max_epochs", "3", "--optimizer.betas", "[0.5, 0.9]"), "optimizer.betas"),
        (("--train.max_epochs", "3", "--model.witdh", "4"), "did you mean --model.width?"),
        (("--train.global_batch_size", "0"), "global_batch_size"),
        (("--tracking.mlflow", "true"), "pip install"),
        (other_data, "was written with data fingerprint"),
        (all_damaged, "none is left that is whole: remove"),
        (damaged_and_refused, "data.target_events: was None"),
        (damaged_and_of_other_data, "was written with data fingerprint"),
        (edited_config, "data.max_length: was 12, now 11"),
        (another_model, "model.name: was 'sasrec', now 'bsarec'"),
        (damaged_data, "damaged: bytes 0 to"),
        (without_index, "d_plian"),
        (metrics_are_a_folder, "metrics.jsonl: cannot be read"),
    ],
)
def test_a_refused_command_leaves_the_run_as_it_was(attnrec, copy, monkeypatch, prepared, said):
    monkeypatch.setattr("attnrec_dist.engine.run.require", require_nothing_but_mlflow)
    options = prepared(copy) if callable(prepared) else prepared
    before = tree(copy.run)
    done = train(attnrec, copy, *options)
    refused(done, said)
    assert tree(copy.run) == before
    assert ("remove" in done.err) == (prepared is all_damaged), "checkpoints that are whole are not to be removed"


def require_nothing_but_mlflow(names: list[str]) -> None:
    from attnrec_dist.errors import MissingExtraError

    if "mlflow" in names:
        raise MissingExtraError("mlflow", "mlflow", "tracking.mlflow")


def test_a_refused_start_of_a_new_run_leaves_nothing(attnrec, copy, tmp_path):
    refused(attnrec("train", copy.run_yaml, "--run_dir", tmp_path / "new", "--data", "nowhere"), "no such data set")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    refused(attnrec("train", copy.run_yaml, "--run_dir", tmp_path / "mine", "--data", "nowhere"), "no such data set")
    assert tree(tmp_path / "mine") == {}


@pytest.mark.parametrize(
    "options", [(), ("--train.max_epochs", "1"), ("--evaluation.patience", "1", "--tracking.log_every", "3")]
)
def test_a_finished_run_says_so_and_stays_as_it_is(attnrec, copy, options):
    before = tree(copy.run)
    done = train(attnrec, copy, *options)
    assert done.code == 0, done.err
    if "--evaluation.patience" not in options or "nothing left to do" in done.err:
        assert "nothing left to do" in done.err
        assert {name: text for name, text in tree(copy.run).items() if name != "status.json"} == {
            name: text for name, text in before.items() if name != "status.json"
        }
        assert json.loads((copy.run / "status.json").read_text())["state"] == "done"


# What is expendable does not stop a run


def foreign_byte(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = b"\xff" + lines[1]
    (run / "metrics.jsonl").write_bytes(b"".join(lines))


def stray_names(run: Path) -> None:
    (run / "checkpoints" / "step-00000099").write_text("a file")
    for name in ("step-abc", "step-1", "notes"):
        (run / "checkpoints" / name).mkdir()
        (run / "checkpoints" / name / MARKER).write_text("{}")
    (run / "checkpoints" / "step-00000098").symlink_to("nowhere")


def replaced(name: str, make):
    def change(run: Path) -> None:
        place = run / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        make(place)

    return change


def damaged_marker(text: str):
    return lambda run: (RunDir(run).complete_checkpoints()[-1] / MARKER).write_text(text)


def damaged_index(run: Path) -> None:
    (windows,) = (run / "index").glob("*.windows.bin")
    flip_byte(windows, 41)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (foreign_byte, "the curve has a hole"),
        (stray_names, "going on from step 6"),
        (damaged_marker(""), "going on from the one before it"),
        (damaged_marker("[]"), "going on from the one before it"),
        (damaged_marker('{"files": 3}'), "going on from the one before it"),
        (lambda run: (run / "status.json").write_text(""), "going on from step 6"),
        (lambda run: (run / "status.json").write_text("[]"), "going on from step 6"),
        (replaced("status.json", os.mkfifo), "going on from step 6"),
        (replaced("best", lambda path: path.symlink_to("/nowhere")), "going on from step 6"),
        (replaced("last", lambda path: path.symlink_to("last")), "going on from step 6"),
        (replaced("best", lambda path: path.symlink_to("/")), "going on from step 6"),
        (replaced("best", os.mkdir), "going on from step 6"),
        (replaced("metrics.jsonl", lambda path: None), "6 of the steps up to 6 are missing (1, 2, 3, 4, 5, ...)"),
        (lambda run: (run / "jobs.jsonl").write_bytes(b'{"half'), "going on from step 6"),
        (lambda run: (run / "figures.json").write_bytes(b"\xff"), "going on from step 6"),
        (damaged_index, "the sample index is damaged or of an older version; built anew"),
        (lambda run: next((run / "index").glob("*.json")).unlink(), "built anew"),
    ],
)
def test_a_run_goes_on_beside_what_is_damaged_and_expendable(attnrec, copy, damage, said, whole_of_three):
    damage(copy.run)
    done = train(attnrec, copy, "--train.max_epochs", "3")
    assert done.code == 0, done.err
    assert said in done.err
    found = curve(copy.run)
    assert found == {step: loss for step, loss in whole_of_three.items() if step in found}
    assert {7, 8, 9} <= found.keys()
    assert (copy.run / "best").resolve().parent == (copy.run / "checkpoints").resolve()
    assert attnrec("plot", copy.run).code == 0
    assert evaluate(attnrec, copy).code == 0


@pytest.fixture(scope="module")
def whole_of_three(trained, tmp_path_factory) -> dict[int, float]:
    from tiny_shop import attnrec_in_process

    run = tmp_path_factory.mktemp("three") / "run"
    options = ("--run_dir", run, "--data", trained.data, "--train.max_epochs", "3")
    assert attnrec_in_process("train", trained.run_yaml, *options) == 0
    return curve(run)


# Every command checks what it reads


def stored_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_flipped_byte_of_any_stored_file_is_met_by_every_command(attnrec, copy, tmp_path):
    """At several places of each file: who reads it refuses it, and says which; who needs it not says what it said before."""
    known = evaluate(attnrec, copy)
    for name in stored_files(copy.data):
        content = (copy.data / name).read_bytes()
        for place in {0, 9, len(content) // 3, len(content) // 2, len(content) - 9}:
            (copy.data / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            refused(attnrec("inspect", copy.data), name)
            done = evaluate(attnrec, copy)
            if name in ("daily.arrow", "graph.arrow", "items.parquet", "users.parquet"):
                assert done == known
            else:
                refused(done, name)
        (copy.data / name).write_bytes(content)
    assert evaluate(attnrec, copy).code == 0


@pytest.mark.parametrize("name", ["manifest.json", "items.parquet", "daily.arrow", "sequences/part-00000.arrow"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_at_once(attnrec, copy, name, make):
    (copy.data / name).unlink()
    make(copy.data / name)
    for done in (evaluate(attnrec, copy), attnrec("inspect", copy.data), train(attnrec, copy, "--train.max_epochs", "3")):
        refused(done, name, ", not a file")


def test_recommend_and_load_check_too(attnrec, copy, tmp_path):
    content = (copy.data / "sequences" / "part-00000.arrow").read_bytes()
    flip_byte(copy.data / "sequences" / "part-00000.arrow", len(content) // 2)
    options = ("--data", copy.data, "--output", tmp_path / "o.parquet")
    refused(attnrec("recommend", copy.run, *options), "part-00000.arrow", "damaged")
    assert not (tmp_path / "o.parquet").exists()
    (copy.data / "sequences" / "part-00000.arrow").write_bytes(content)
    flip_byte(copy.data / "items.parquet", 100)
    with pytest.raises(Exception, match=r"items.parquet: damaged"):
        load(copy.run, data=str(copy.data)).trained.data.items()


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("model.heads", ("heads: 1", "heads: 2")),
        ("data.max_length", ("max_length: 12", "max_length: 13")),
        ("loss.temperature", None),
        ("evaluation.metrics", None),
    ],
)
def test_a_config_that_was_edited_is_not_taken_for_the_checkpoints(attnrec, copy, key, change):
    file = copy.run / "config.yaml"
    if change is None:
        from attnrec_dist.settings import apply_overrides, read_yaml

        value = {"loss.temperature": 0.5, "evaluation.metrics": ["recall@7"]}[key]
        file.write_text(json.dumps(apply_overrides(read_yaml(file), {key: value})))
    else:
        assert change[0] in file.read_text()
        file.write_text(file.read_text().replace(*change))
    refused(evaluate(attnrec, copy), f"{key}: was", "set back")
    refused(attnrec("recommend", copy.run, "--data", copy.data, "--output", copy.path / "o.parquet"), f"{key}: was")
    refused(attnrec("refit", copy.run, "--data", copy.data), f"{key}: was")


def test_free_keys_of_a_config_may_be_edited(attnrec, copy):
    file = copy.run / "config.yaml"
    text = file.read_text().replace("threads: 1\n  timeout: 1800.0", "threads: 2\n  timeout: 900.0").replace("keep: 2", "keep: 3")
    assert text != file.read_text()
    file.write_text(text)
    assert evaluate(attnrec, copy).code == 0
    assert train(attnrec, copy, "--train.max_epochs", "3").code == 0


# Manifests


def test_a_manifest_is_bound_to_the_checkpoint(attnrec, copy):
    """One that was edited, with a checksum that fits, names the fingerprint that the model knows: it is computed anew."""
    known = evaluate(attnrec, copy).out
    edit_manifest(copy.data, event_types=["buy", "view"])
    refused(evaluate(attnrec, copy), "one of them was changed")
    before = tree(copy.run)
    refused(train(attnrec, copy, "--train.max_epochs", "3"), "one of them was changed")
    assert tree(copy.run) == before
    edit_manifest(copy.data, event_types=["view", "buy"], cleaning={})
    done = evaluate(attnrec, copy)
    assert (done.code, done.out) == (0, known)


def test_the_same_data_prepared_again_serves(attnrec, copy):
    """Other shards, so another manifest, and the same fingerprint."""
    known = evaluate(attnrec, copy).out
    shutil.rmtree(copy.data)
    assert attnrec("prepare", copy.prepare_yaml, "--output", copy.data, "--output.events_per_shard", "50").code == 0
    assert len(list((copy.data / "sequences").iterdir())) > 2
    assert evaluate(attnrec, copy).out == known
    assert train(attnrec, copy, "--train.max_epochs", "3").code == 0


def older(shop: Shop) -> None:
    """A data set and a run as the version before these checks wrote them."""
    file = shop.data / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["checksum"]
    for record in manifest["shards"] + manifest["tables"]:
        del record["blocks"]
    file.write_text(json.dumps(manifest))
    for path in RunDir(shop.run).complete_checkpoints():
        marker = json.loads((path / MARKER).read_text())
        for key in ("manifest checksum", "config", "checksum"):
            del marker[key]
        (path / MARKER).write_text(json.dumps(marker))
    for path in (shop.run / "index").glob("*.json"):
        path.unlink()


def test_data_sets_and_runs_of_an_older_version_serve_with_one_note(attnrec, copy):
    known = evaluate(attnrec, copy, "--checkpoint", "step-00000006")
    older(copy)
    before = tree(copy.data)
    for done in (evaluate(attnrec, copy), train(attnrec, copy, "--train.max_epochs", "3"), attnrec("inspect", copy.data)):
        assert done.code == 0, done.err
        assert done.err.count("of an older version: its manifest has no checksum") == 1
        assert f"--output {copy.data}" in done.err
    assert evaluate(attnrec, copy, "--checkpoint", "step-00000006").out == known.out
    assert {name: text for name, text in tree(copy.data).items() if name != "inspect.png"} == before, "never rewritten"
    flip_byte(copy.data / "sequences" / "part-00000.arrow", 5000)
    refused(evaluate(attnrec, copy), "part-00000.arrow", "damaged")  # its sha256 is as old as the format


def test_a_manifest_whose_checksum_was_taken_out_is_refused(attnrec, copy):
    file = copy.data / "manifest.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "checksum"}))
    refused(evaluate(attnrec, copy), "its own checksum was taken out")


@pytest.mark.parametrize("key", ["fingerprint", "num_items", "event_types", "split", "tables", "counts", "config", "end_time"])
def test_a_manifest_that_was_edited_is_refused_by_every_command(attnrec, copy, key):
    file = copy.data / "manifest.json"
    manifest = json.loads(file.read_text())
    wrong = {"fingerprint": "0" * 64, "event_types": ["a", "b"], "num_items": 7, "end_time": 1}
    wrong |= {"split": {**manifest["split"], "valid_end": 1_300_000_000}, "tables": manifest["tables"][1:], "config": {}}
    wrong |= {"counts": {**manifest["counts"], "rows": 3}}
    file.write_text(json.dumps(manifest | {key: wrong[key]}))
    for done in (evaluate(attnrec, copy), attnrec("inspect", copy.data), train(attnrec, copy, "--train.max_epochs", "3")):
        refused(done, "manifest.json: damaged")


# Numbers that commands take from what is expendable


def test_when_counts_the_steps_that_the_newest_checkpoint_has(attnrec, copy):
    user = DataSet.open(copy.data).users()["id"][0].as_py()
    whole = attnrec("when", copy.run, "--user", user, "--data", copy.data)
    status = json.loads((copy.run / "status.json").read_text())
    (copy.run / "status.json").write_text(json.dumps(status | {"step": 0}))
    assert attnrec("when", copy.run, "--user", user, "--data", copy.data).out == whole.out


def test_a_refit_does_not_take_a_length_that_the_other_steps_deny(attnrec, copy, tmp_path):
    split = ["--split.train", "0.85", "--split.validation", "0", "--split.test", "0.15"]
    assert attnrec("prepare", copy.prepare_yaml, "--output", tmp_path / "all", *split).code == 0
    best = int((copy.run / "best").readlink().name.removeprefix("step-"))
    lines = [json.loads(line) for line in (copy.run / "metrics.jsonl").read_text().splitlines()]
    changed = [{**line, "epoch": line["epoch"] * 2} if line["step"] == best and "epoch" in line else line for line in lines]
    (copy.run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    refused(attnrec("refit", copy.run, "--data", tmp_path / "all"), f"step {best} has epoch", "by the other steps")


def test_a_manifest_that_contradicts_itself_is_told_so_in_plain_words(attnrec, copy):
    file = copy.data / "manifest.json"
    tree = json.loads(file.read_text())
    tree["num_items"] = tree["num_all_items"] + 1
    file.write_text(json.dumps(sealed(tree)))
    refused(attnrec("inspect", copy.data), "manifest.json: damaged: it contradicts itself")
