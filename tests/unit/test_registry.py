"""What is chosen by name: suggestions, contracts that refuse misspelt declarations, and additions of other packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from attnrec_dist.errors import ConfigError
from attnrec_dist.evaluation.metrics import per_view
from attnrec_dist.losses import loss_config_class
from attnrec_dist.losses.base import Loss, LossConfig
from attnrec_dist.models.base import ModelConfig, NextItemModel, RankingModel
from attnrec_dist.registry import Declared, Registry

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("bases", "names", "meant"),
    [
        ((NextItemModel,), {"at_end": lambda self, batch: None}, "at_ends"),
        ((RankingModel,), {"fieldnames": ("a",)}, "field_names"),
        ((Loss,), {"tasks": "ranking"}, "task"),
        ((ModelConfig,), {"is_casual": property(lambda self: False)}, "is_causal"),
        ((ModelConfig,), {"read_history": property(lambda self: False)}, "reads_history"),
        ((LossConfig,), {"draw": property(lambda self: 5)}, "draws"),
    ],
)
def test_a_misspelt_declaration_is_refused_when_the_class_is_made(bases, names, meant):
    with pytest.raises(TypeError, match=rf"Mine\.{next(iter(names))}: did you mean {meant}\?"):
        type(bases[0])("Mine", bases, {"__module__": "mine", **names})


def test_what_is_declared_rightly_or_is_the_class_s_own_is_taken():
    class Contract(Declared, contract=True):
        speed = 1

    class Mine(Contract):
        speed = 2
        colour = "red"
        _sped = 3

    class Further(Mine):
        speed = 3
        colours = ("red",)  # Mine is no contract

    assert (Mine.speed, Further.speed) == (2, 3)


def test_a_model_of_another_package_trains(tmp_path):
    """The page's model in a wheel of its own, installed by pip: found by its entry point, checked and described like ours."""
    site = install(tmp_path, "attnrec_dist.models", "gru", page_block("add-a-model.md", "GRU"), "GRU")
    shown = run(site, "train", "configs/quickstart-sasrec.yaml", "--model.name", "gru", "--print_config")
    assert shown.returncode == 2, shown.stdout  # blocks and heads are sasrec's keys
    assert "model.blocks" in shown.stderr or "model.heads" in shown.stderr
    unknown = run(site, "train", "configs/quickstart-sasrec.yaml", "--model.name", "gru2", "--print_config")
    assert "did you mean gru?" in unknown.stderr


def test_a_package_that_cannot_be_loaded_is_named(tmp_path):
    site = install(tmp_path, "attnrec_dist.models", "broken", "import a_package_that_is_not_there\n", "Model")
    result = run(site, "train", "configs/quickstart-sasrec.yaml", "--model.name", "broken", "--print_config")
    assert result.returncode == 2
    assert re.search(r"model\.name: broken is added by the package their-package, which cannot be loaded: ", result.stderr)
    assert "Traceback" not in result.stderr


class Harsh(LossConfig):
    """A loss of another package."""

    name: str = "harsh"


class HarshLoss(Loss):
    Config = Harsh


def first_place(hits):
    """A metric of another package: share of the lists whose first item is relevant."""
    return np.bincount(hits.view[hits.rank == 1], minlength=len(hits.relevant)).astype(float)


def test_losses_and_metrics_of_another_package_are_found(monkeypatch):
    groups = {
        "attnrec_dist.losses": {"harsh": EntryPoint("harsh", f"{__name__}:HarshLoss", "attnrec_dist.losses")},
        "attnrec_dist.metrics": {"first": EntryPoint("first", f"{__name__}:first_place", "attnrec_dist.metrics")},
    }
    monkeypatch.setattr("attnrec_dist.registry.plugins", lambda group: groups.get(group, {}))
    assert loss_config_class("harsh")().name == "harsh"
    assert per_view("first@3", np.array([1, 4, 2]), np.array([0, 2, 3])).tolist() == [1.0, 0.0]
    with pytest.raises(ConfigError, match="did you mean first@3"):
        per_view("frist@3", np.array([1]), np.array([0, 1]))


def test_ours_come_first():
    registry = Registry("model.name", "attnrec_dist.none", {"sasrec": 1, "gru": 2})
    assert registry.find("gru") == 2
    assert registry.names() == ["sasrec", "gru"]
    with pytest.raises(ConfigError, match="did you mean sasrec"):
        registry.find("sasrek")
    with pytest.raises(ConfigError, match="known: gru, sasrec"):
        registry.find(7)


def page_block(page: str, name: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if f"class {name}(" in block)


def install(folder: Path, group: str, name: str, source: str, entry: str) -> Path:
    """A package with one module, installed by pip into a folder of its own."""
    wheel, info = folder / "their_package-1.0-py3-none-any.whl", "their_package-1.0.dist-info"
    files = {
        f"their_package/{name}.py": source,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{group}]\n{name} = their_package.{name}:{entry}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for each, text in files.items():
            archive.writestr(each, text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder / "site", wheel]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "site"


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = DOCS.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(root)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "attnrec_dist", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
