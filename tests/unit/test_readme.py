"""The README's tree names what is in git, and nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS_TOLD_AS_A_WHOLE = ("launch", "configs", "benchmarks", "docs", "tests", "slurm")


def tree_paths() -> set[str]:
    """Paths of the tree: indentation of two spaces a level, several names a line apart by two spaces."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- tree:begin -->\n```\n(.*?)\n```", text, re.DOTALL)
    assert block, "the README has no tree"
    paths, folders = set(), []
    for line in block[1].splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"\s*((?:\S+(?:  (?=\S+(?:  |$)))?)+)", line)
        assert names, line
        for name in names[1].split("  "):
            path = "/".join([*folders[:level], name.rstrip("/")])
            if name.endswith("/"):
                folders = [*folders[:level], name.rstrip("/")]
            paths.add(path)
    return paths


def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return set(subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")) - {
        ""
    }


def test_every_file_in_git_is_in_the_tree():
    told = tree_paths()
    missing = {
        path for path in tracked() if path not in told and not path.startswith(tuple(f"{f}/" for f in FOLDERS_TOLD_AS_A_WHOLE))
    }
    assert not missing


def test_every_path_of_the_tree_is_there():
    absent = {path for path in tree_paths() if not (ROOT / path).exists()}
    assert not absent


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_and_tests_that_a_page_names_are_there(page):
    text = (ROOT / page).read_text()
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link} - {""}
    absent = {link for link in links if not ((ROOT / page).parent / link).exists()}
    absent |= {name for name in re.findall(r"`(tests/[\w/]+\.py)`", text) if not (ROOT / name).exists()}
    assert not absent


def test_files_that_the_package_names_are_there():
    """In docstrings and comments: a file that was moved must not live on there."""
    there = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    absent = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in (ROOT / "attnrec_dist").rglob("*.py")
        for name in re.findall(r"(?<![\w/.-])((?:\w+/)*\w+\.py)\b", file.read_text(encoding="utf-8"))
        if not any(path == name or path.endswith(f"/{name}") for path in there)
    }
    assert not absent
