"""Where relative paths lead: beside the YAML that names them, then the current directory; a run works from anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from tiny_shop import Shop

SHORT = ("--train.max_steps", "2")


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
