"""Imports run one way, and the package stays readable: read from the source, nothing is imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "attnrec_dist"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]

# The rooms, from the bottom. A room imports what stands below it, and on its own level nothing that is in APART with it.
LEVELS = [
    ["errors", "storage", "terminal", "times", "batch"],
    ["registry", "settings", "paths", "distributed", "run_dir", "plotting"],
    ["ops"],
    ["data", "models", "losses"],
    ["inference", "strategies", "inspection"],
    ["checkpoints", "monitoring"],
    ["evaluation"],
    ["engine"],
    ["comparison", "explanation", "recommendation"],
    ["cluster"],
    ["commands"],
    ["cli"],
    ["__init__", "__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
APART = {"data", "models", "losses"}  # never import one another
OF_PREPARE = {
    "errors",
    "storage",
    "terminal",
    "times",
    "batch",
    "registry",
    "settings",
    "paths",
    "distributed",
    "run_dir",
    "data.blocks",
    "data.fingerprint",
    "data.dataset",
    "data.manifest",
    "data.example_format",
    "data",
}  # the format
MOST_LINES, MOST_IN_A_FUNCTION, MOST_ARGUMENTS = 400, 60, 8


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1]) if parts[-1] == "__init__" and len(parts) > 1 else ".".join(parts)


MODULES = {module_of(file) for file in FILES}


def imports_of(source: str) -> list[str]:
    """Modules of the package that a source imports, for type checking too; `attnrec_dist` itself is "__init__"."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError("relative import; write it out")
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found.extend(name if name.removeprefix("attnrec_dist.") in MODULES else str(node.module) for name in inner)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    ours = [name for name in found if name.split(".")[0] == "attnrec_dist"]
    return [name.removeprefix("attnrec_dist").removeprefix(".") or "__init__" for name in ours]


def complaint(importer: str, imported: str) -> str | None:
    """Why this import is not allowed, or None."""
    room, other = importer.partition(".")[0], imported.partition(".")[0]
    if room == "prepare":
        allowed = imported in OF_PREPARE or other in OF_PREPARE - {"data"} or other == "prepare"
        return None if allowed else f"prepare imports {imported}"
    if other == "prepare":
        return None if room == "commands" else f"{importer} imports prepare"
    if room == other:
        return None
    if LEVEL[other] > LEVEL[room]:
        return f"{importer} imports {imported}, which stands above it"
    if LEVEL[other] == LEVEL[room] and {room, other} <= APART:
        return f"{importer} and {imported} are not to know one another"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_one_way(name):
    importer = module_of(ROOT / name)
    complaints = [complaint(importer, imported) for imported in imports_of((ROOT / name).read_text(encoding="utf-8"))]
    assert [each for each in complaints if each] == []


def circle_in(edges: dict[str, set[str]]) -> set[str]:
    """Modules that import one another in a circle, or what imports such; empty where there is none."""
    left = dict(edges)
    while ready := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in ready:
            del left[module]
    return set(left)


def test_there_are_no_circles():
    edges = {module_of(file): set(imports_of(file.read_text(encoding="utf-8"))) - {module_of(file)} for file in FILES}
    assert circle_in(edges) == set()


def test_contributing_tells_this_order():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert " -> ".join(" ".join(rooms) for rooms in LEVELS[:-1]) in text


def test_every_room_has_its_level():
    rooms = {module.split(".")[0] for module in MODULES}
    assert rooms - LEVEL.keys() <= {"prepare"}


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("ops.top_k", "from attnrec_dist.data.order import Order"),
        ("data.loader", "import attnrec_dist.models"),
        ("models.sasrec", "def f():\n    from attnrec_dist.losses import build_loss"),
        ("inference.load", "from attnrec_dist import cli"),
        ("prepare.statements", "from attnrec_dist.data.windows import windows_of"),
        ("engine.train", "from attnrec_dist.prepare import pipeline"),
        ("errors", "from attnrec_dist import load"),
    ],
)
def test_these_rules_can_be_broken(importer, source):
    assert [complaint(importer, imported) for imported in imports_of(source)] != [None]


def test_a_circle_under_type_checking_counts():
    source = "if TYPE_CHECKING:\n    import attnrec_dist.cli\nelse:\n    import attnrec_dist.ops"
    assert imports_of(source) == ["cli", "ops"]
    planted = imports_of("if TYPE_CHECKING:\n    import attnrec_dist.engine.run")
    edges = {"engine.run": {"engine.config"}, "engine.config": set(planted)}
    assert circle_in(edges) == {"engine.run", "engine.config"}
    assert circle_in(edges | {"engine.config": set()}) == set()


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_can_be_read_in_one_go(name):
    source = (ROOT / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= MOST_IN_A_FUNCTION, node.name
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([each for each in given if each.arg not in ("self", "cls")]) <= MOST_ARGUMENTS, node.name


@pytest.mark.parametrize("name", NAMES)
def test_no_bare_assert_no_bare_except_no_pickle_no_open_end(name):
    source = (ROOT / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "the file's first sentence is missing"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise an error of errors.py"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {node.lineno}: a bare except"
        if isinstance(node, ast.Import):
            assert "pickle" not in {alias.name for alias in node.names}
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X"):
        assert word not in source
