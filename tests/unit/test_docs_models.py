"""docs/add-a-model.md does what it says: its blocks, added to a copy of the package, make a model that passes the battery."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs/add-a-model.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the package and its unit tests with the page's model in it."""
    root = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "attnrec_dist", root / "attnrec_dist", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tests/unit").mkdir(parents=True)
    for name in ("test_models.py", "strategies.py", "fake_statistics.py"):
        shutil.copy(ROOT / "tests/unit" / name, root / "tests/unit")
    shutil.copy(ROOT / "pyproject.toml", root)
    file, import_line, entry = blocks("python")
    (root / "attnrec_dist/models/gru.py").write_text(file)
    registry = root / "attnrec_dist/models/__init__.py"
    text = registry.read_text()
    anchors = ("from attnrec_dist.models.mixture import Mixture\n", '        "sasrec": SASRec,\n')
    assert all(text.count(anchor) == 1 for anchor in anchors)
    registry.write_text(text.replace(anchors[0], import_line + anchors[0]).replace(anchors[1], entry + anchors[1]))
    (root / "configs").mkdir()
    (root / "configs/quickstart-gru.yaml").write_text(blocks("yaml")[0])
    return root


def run(house, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(house)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True, timeout=900, check=False)


def test_the_battery_finds_the_model_and_it_passes(house):
    result = run(house, "-m", "pytest", "tests/unit/test_models.py", "-k", "gru", "-p", "no:cacheprovider")
    assert result.returncode == 0, result.stdout[-3000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed, result.stdout
    assert int(passed[1]) >= 15


def test_the_yaml_is_a_complete_configuration(house):
    result = run(house, "-m", "attnrec_dist", "train", "configs/quickstart-gru.yaml", "--print_config")
    assert result.returncode == 0, result.stderr
    assert re.search(r"name: gru\n\s+width: 64\n\s+layers: 1", result.stdout), result.stdout


def test_the_file_passes_the_linter(house):
    pytest.importorskip("ruff", reason="ruff is a development tool")
    result = run(house, "-m", "ruff", "check", "attnrec_dist/models", "--no-cache")
    assert result.returncode == 0, result.stdout
    assert run(house, "-m", "ruff", "format", "--check", "--no-cache", "attnrec_dist/models").returncode == 0
