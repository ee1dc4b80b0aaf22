"""Where relative paths lead: beside the YAML that names them, then the current directory; a run works from anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_shop import Shop

SHORT = ("--train.max_steps", "2")
OF_RANKING = ("--model", "{name: feature_attention}", "--loss", "{name: binary}")  # for which the data has no labels


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """The current directory, empty."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.fixture
def copy(trained, tmp_path) -> Shop:
    shutil.copytree(trained.path, tmp_path / "shop", symlinks=True)
    return Shop(tmp_path / "shop")


def data_path(run: Path) -> str:
    return yaml.safe_load((run / "config.yaml").read_text())["data"]["path"]


def test_data_beside_the_yaml_is_found_from_anywhere(attnrec, shop, elsewhere, tmp_path, monkeypatch):
    done = attnrec("train", shop.run_yaml, *SHORT)
    assert done.code == 0, done.err
    assert "note" not in done.err
    run = elsewhere / "runs" / "run"
    assert data_path(run) == str(shop.data)
    monkeypatch.chdir(tmp_path)
    assert attnrec("recommend", run, "--users", "u1").code == 0


def test_data_in_the_current_directory_is_found_with_a_note(attnrec, shop, elsewhere, tmp_path):
    shutil.copy(shop.run_yaml, tmp_path / "mine.yaml")
    (elsewhere / "data").symlink_to(shop.data)
    done = attnrec("train", "../mine.yaml", "--run_dir", tmp_path / "run", *SHORT)
    assert done.code == 0, done.err
    assert "note: data.path: data is taken from the current directory, since it is not beside ../mine.yaml" in done.err
    assert data_path(tmp_path / "run") == str(elsewhere / "data")
    named = attnrec("train", "../mine.yaml", "--print_config", "--data", "data")
    assert f"path: {elsewhere / 'data'}" in named.out
    assert "note" not in named.err


def test_data_in_both_places_is_a_question(attnrec, shop, copy, elsewhere, tmp_path):
    shutil.copytree(shop.data, elsewhere / "data")
    done = attnrec("train", copy.run_yaml, *SHORT)
    assert done.code == 2
    assert f"data.path: data may be {copy.data}, beside this file, or {elsewhere / 'data'}, in the current" in done.err
    assert not (elsewhere / "runs").exists()
    assert attnrec("train", copy.run_yaml, "--data", "data", "--print_config").code == 0
    shutil.rmtree(elsewhere / "data")
    (elsewhere / "data").symlink_to(copy.data)
    assert attnrec("train", copy.run_yaml, "--print_config").code == 0, "the same data set twice is no question"


def test_a_runs_own_config_goes_on_with_the_run(attnrec, copy, elsewhere):
    done = attnrec("train", copy.run / "config.yaml")
    assert done.code == 0, done.err
    assert "nothing left to do" in done.err
    assert not list(elsewhere.iterdir())


def test_an_older_run_with_a_relative_path_works_where_it_did(attnrec, copy, elsewhere, monkeypatch):
    config = copy.run / "config.yaml"
    config.write_text(config.read_text().replace(f"path: {data_path(copy.run)}", "path: data"))
    assert "the data set with --data DIR" in attnrec("recommend", copy.run, "--users", "u1").err
    assert attnrec("recommend", copy.run, "--users", "u1", "--data", copy.data).code == 0
    monkeypatch.chdir(copy.path)
    assert attnrec("recommend", copy.run, "--users", "u1").code == 0
    assert attnrec("train", config).code == 0


def test_an_existing_data_set_is_replaced_on_request_only(attnrec, copy):
    def kept() -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_ino) for path in copy.data.rglob("*") if path.is_file()}

    before = kept()
    done = attnrec("prepare", copy.prepare_yaml, "--output", copy.data)
    assert done.code == 2
    assert f"output {copy.data}: holds a data set already; type --overwrite to replace it" in done.err
    assert kept() == before
    assert attnrec("prepare", copy.prepare_yaml, "--output", copy.data, "--overwrite").code == 0
    assert kept().keys() == before.keys()
    assert kept() != before
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    recipes = [line for line in makefile.splitlines() if "attnrec prepare" in line]
    assert recipes
    assert all("--overwrite" in line for line in recipes), "they run again where the YAML is newer"


EVERY_PATH = """\
input: {files: [logs, "more/l*.csv"], join: {file: orders.csv, on: order}}
columns: {user: user, item: item, timestamp: {name: time, unit: s}}
items: {file: items.csv, id: item, columns: {title: title}}
users: {file: users.csv, id: user, columns: {town: town}}
filters:
  keep_users: keep_users.txt
  drop_users: {file: drop_users.txt}
  keep_items: {file: keep_items.csv, column: id}
  drop_items: drop_items.txt
split: {kind: leave_one_out}
output: {dir: made}
engine: {memory_limit: 200MB, threads: 1}
"""
NAMED = {  # key: where what it names lies
    "input.files": ["logs", "more/l*.csv"],
    "input.join.file": "orders.csv",
    "items.file": "items.csv",
    "users.file": "users.csv",
    "filters.keep_users.file": "keep_users.txt",
    "filters.drop_users.file": "drop_users.txt",
    "filters.keep_items.file": "keep_items.csv",
    "filters.drop_items.file": "drop_items.txt",
}


def write_log(folder: Path, users: int = 4) -> None:
    """What EVERY_PATH names; each user bought five items."""
    (folder / "logs").mkdir(parents=True)
    (folder / "more").mkdir()
    lines = [f"o{user}-{item},i{item}" for user in range(users) for item in range(5)]
    for place, part in (("logs/a.csv", lines[::2]), ("more/log.csv", lines[1::2])):
        (folder / place).write_text("\n".join(["order,item", *part]) + "\n")
    orders = [f"o{user}-{item},u{user},{100 * item + user}" for user in range(users) for item in range(5)]
    (folder / "orders.csv").write_text("\n".join(["order,user,time", *orders]) + "\n")
    (folder / "items.csv").write_text("item,title\n" + "".join(f"i{item},Thing {item}\n" for item in range(5)))
    (folder / "users.csv").write_text("user,town\n" + "".join(f"u{user},Ulm\n" for user in range(users)))
    (folder / "keep_users.txt").write_text("u0\nu1\nu2\n")
    (folder / "drop_users.txt").write_text("u2\n")
    (folder / "keep_items.csv").write_text("id\n" + "".join(f"i{item}\n" for item in range(5)))
    (folder / "drop_items.txt").write_text("i9\n")


def fingerprint(data: Path) -> str:
    return json.loads((data / "manifest.json").read_text())["fingerprint"]


def test_a_log_is_the_same_however_its_paths_are_written(attnrec, elsewhere, tmp_path):
    """Each path of a prepare YAML beside it, in the current directory, absolute, and named by the command line."""
    home = tmp_path / "sho[p]"  # a name that is a pattern itself
    write_log(home)
    beside, away = home / "mine.yaml", tmp_path / "mine.yaml"
    beside.write_text(EVERY_PATH)
    away.write_text(EVERY_PATH)
    done = attnrec("prepare", beside, "--output", tmp_path / "a")
    assert done.code == 0, done.err
    assert "note" not in done.err
    write_log(elsewhere)
    done = attnrec("prepare", away, "--output", tmp_path / "b")
    assert done.code == 0, done.err
    for key, paths in NAMED.items():
        for path in [paths] if isinstance(paths, str) else paths:
            note = f"note: {key}: {path} is taken from the current directory, since it is not beside {away}"
            assert note in done.err
    assert done.err.count("note: ") == 9
    typed = [f"--{key}={json.dumps(paths)}" for key, paths in NAMED.items()]
    assert attnrec("prepare", beside, "--output", tmp_path / "c", *typed).code == 0
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") == fingerprint(tmp_path / "c")


@pytest.mark.parametrize("key", NAMED)
def test_a_path_that_may_mean_two_things_is_a_question(attnrec, elsewhere, tmp_path, key):
    home = tmp_path / "shop"
    write_log(home)
    (home / "mine.yaml").write_text(EVERY_PATH)
    path = NAMED[key] if isinstance(NAMED[key], str) else NAMED[key][-1]
    source, other = home / path.replace("l*", "log"), elsewhere / path.replace("l*", "log")
    other.parent.mkdir(exist_ok=True)
    shutil.copy(source, other)
    done = attnrec("prepare", home / "mine.yaml", "--output", tmp_path / "made")
    assert done.code == 2
    option = "input" if key == "input.files" else key
    assert f"{key}: {path} may be {home / path}, beside this file, or {elsewhere / path}, in the current" in done.err
    assert f"type --{option} with the one that is meant" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "made").exists()
    other.unlink()
    other.symlink_to(source)
    done = attnrec("prepare", home / "mine.yaml", "--output", tmp_path / "made")
    assert (done.code, "note" in done.err) == (0, False), "the same file twice is no question"


def test_what_the_command_line_names_is_not_looked_for_beside_the_yaml(attnrec, elsewhere, tmp_path):
    write_log(tmp_path / "shop")
    (tmp_path / "shop" / "mine.yaml").write_text(EVERY_PATH)
    for option in ("--input", "--input.files", "--filters.keep_users", "--items.file"):
        done = attnrec("prepare", tmp_path / "shop" / "mine.yaml", "--output", tmp_path / "made", option, "items.csv")
        assert done.code == 2
        assert f"no such file: {elsewhere / 'items.csv'}" in done.err
    assert not (tmp_path / "made").exists()


def test_the_bundled_files_are_found_from_anywhere_without_a_note(attnrec, elsewhere, monkeypatch):
    """`make train` says nothing of where its data is."""
    root = Path(__file__).parents[2]
    for folder in (root, elsewhere):
        monkeypatch.chdir(folder)
        for path in sorted((root / "configs" / "prepare").glob("quickstart*.yaml")):
            done = attnrec("prepare", path, "--print_config")
            tree = yaml.safe_load(done.out)
            assert (done.code, done.err) == (0, "")
            for file in (*tree["input"]["files"], tree["items"]["file"]):
                assert Path(file).is_absolute()
                assert Path(file).is_file()
    for path in sorted((root / "configs").glob("*.yaml")):
        named = yaml.safe_load(path.read_text())["data"]["path"]
        made = [yaml.safe_load(each.read_text())["output"]["dir"] for each in (root / "configs" / "prepare").glob("*.yaml")]
        assert (path.parent / named).resolve() in [root / each for each in made]


def test_a_refused_start_leaves_no_directory(attnrec, shop, elsewhere):
    for options in (["--data", "nowhere"], ["--data", shop.data, "--train.nonsense", "1"], ["--data", shop.data, *OF_RANKING]):
        assert attnrec("train", shop.run_yaml, *options).code == 2
        assert list(elsewhere.iterdir()) == []
