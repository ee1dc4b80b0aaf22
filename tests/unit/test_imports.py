"""Imports run one way, and the package stays readable: read from the source, nothing is imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "attnrec_dist"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]

# errors settings batch layout -> distributed run_dir -> ops -> {data | models | losses} -> inference -> ... -> commands -> cli
LEVELS = [
    [
        "errors",
        "interrupts",
        "yaml_text",
        "settings",
        "paths",
        "batch",
        "layout",
        "hints",
        "outputs",
        "timestamps",
        "read_times",
        "registry",
    ],
    ["distributed", "stored", "run_dir", "staging"],
    ["ops"],
    ["data", "models", "losses"],
    ["inference"],
    ["evaluation"],
    ["engine"],
    ["cluster"],
    ["run_config"],
    ["commands"],
    ["terminal", "fault_report"],
    ["help"],
    ["cli"],
    ["__init__", "__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
STRANGERS = {"data", "models", "losses"}  # never import one another
OF_PREPARE = {
    "errors",
    "timestamps",
    "read_times",
    "settings",
    "paths",
    "outputs",
    "batch",
    "layout",
    "distributed",
    "run_dir",
    "stored",
    "data.blocks",
    "data.fingerprint",
    "data.shards",
    "data.manifest",
    "data.example_format",
    "data",
}  # the format
MOST_LINES, MOST_IN_A_FUNCTION = 420, 60


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1]) if parts[-1] == "__init__" and len(parts) > 1 else ".".join(parts)


MODULES = {module_of(file) for file in FILES}


def imports_of(source: str) -> list[str]:
    """Modules of the package that a source imports, `if TYPE_CHECKING:` left aside; `attnrec_dist` itself is "__init__"."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
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
        allowed = imported in OF_PREPARE or other == "prepare"
        return None if allowed else f"prepare imports {imported}"
    if other == "prepare":
        return None if room == "commands" else f"{importer} imports prepare"
    if room == other:
        return None
    if LEVEL[other] > LEVEL[room]:
        return f"{importer} imports {imported}, which stands above it"
    if LEVEL[other] == LEVEL[room] and {room, other} <= STRANGERS:
        return f"{importer} and {imported} are not to know one another"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_one_way(name):
    importer = module_of(ROOT / name)
    complaints = [complaint(importer, imported) for imported in imports_of((ROOT / name).read_text(encoding="utf-8"))]
    assert [each for each in complaints if each] == []


def test_there_are_no_circles():
    edges = {module_of(file): set(imports_of(file.read_text(encoding="utf-8"))) - {module_of(file)} for file in FILES}
    open_modules = dict(edges)
    while open_modules:
        ready = [module for module, imported in open_modules.items() if not imported & open_modules.keys()]
        assert ready, f"a circle among {sorted(open_modules)}"
        for module in ready:
            del open_modules[module]


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
        ("prepare.steps", "from attnrec_dist.data.windows import windows_of"),
        ("engine.train", "from attnrec_dist.prepare import pipeline"),
        ("errors", "from attnrec_dist import load"),
    ],
)
def test_these_rules_can_be_broken(importer, source):
    assert [complaint(importer, imported) for imported in imports_of(source)] != [None]


def test_type_checking_is_left_aside():
    assert imports_of("if TYPE_CHECKING:\n    import attnrec_dist.cli\nelse:\n    import attnrec_dist.ops") == ["ops"]


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_can_be_read_in_one_go(name):
    source = (ROOT / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= MOST_IN_A_FUNCTION, node.name


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
