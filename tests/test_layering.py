"""Who may import whom, and where Numba may appear: read from the sources, nothing is imported.

A file imports only from its own layer and from layers above it in this list. Inside a layer imports are
free. The compiled wings use the one decorator of _jit.py and nothing that allocates or draws at random.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "spbfast"

LAYERS: list[set[str]] = [
    {"_jit", "_linking", "_byref", "constants", "errors"},
    {"state"},
    {"allocator"},
    {"holders"},
    {"workers"},
    {"demand"},
    {"loop"},
    {"variables", "tracepoints"},
    {"rundata"},
    {"config"},
    {"traces"},
    {"lower", "lowering"},
    {"bench_machine"},
    {"verify", "bench"},
    {"zone", "engine"},
    {"sweep"},
    {
        "results",
        "analysis",
        "scores",
        "comparison",
        "caveats",
        "plots",
        "report",
        "export",
        "sensitivity",
        "doctor",
    },
    {"records"},
    {"validation"},
    {"cli"},
]
RANK = {name: i for i, names in enumerate(LAYERS) for name in names}
WINGS = {"allocator", "holders", "workers", "demand", "loop"}
# Front doors: bench measures, and the package's __init__ and cli name, everything below them, lazily.
LATE_IMPORTS_FREE = {"__init__", "__main__", "cli", "bench", "bench_machine", "verify"}
FILES = sorted(PACKAGE.rglob("*.py"))
WING_FILES = [p for p in FILES if p.relative_to(PACKAGE).parts[0] in WINGS]
# Files below the Python border that may name numba: the decorator's home, and intrinsics.
NUMBA_ALLOWED = {"_jit.py", "_linking.py", "_byref.py", "allocator/prefetch.py"}
HEAVY = {"numba", "llvmlite", "xarray", "dask", "distributed", "pandas", "scipy", "matplotlib", "netCDF4"}


def top(path: Path) -> str:
    """The layer element that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Every imported module with its line, type-checking blocks left out; relative imports are refused."""
    out: list[tuple[str, int]] = []
    skip: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skip.update(id(n) for n in ast.walk(node))
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            out += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            module = node.module or ""
            out.append((module, node.lineno))
            if module == "spbfast":
                out += [(f"spbfast.{alias.name}", node.lineno) for alias in node.names]
    return out


def module_level(tree: ast.Module) -> ast.Module:
    """The tree without function bodies: what runs when the module is imported."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # noqa: N802
            return ast.Pass()

    return Strip().visit(tree)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_only_from_layers_above(path: Path) -> None:
    own = top(path)
    wrong = []
    tree = module_level(tree_of(path)) if own in LATE_IMPORTS_FREE else tree_of(path)
    for module, line in imports(tree):
        parts = module.split(".")
        if parts[0] != "spbfast" or len(parts) < 2 or parts[1] not in RANK:
            continue
        if own in RANK and RANK[parts[1]] > RANK[own]:
            wrong.append(f"{path.name}:{line} imports {module}")
    assert wrong == []


def test_every_file_has_a_layer() -> None:
    unknown = {top(p) for p in FILES} - set(RANK) - {"__init__", "__main__"}
    assert unknown == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_numba_is_named_in_one_place(path: Path) -> None:
    if name_of(path) in NUMBA_ALLOWED:
        return
    found = [
        (m, n) for m, n in imports(module_level(tree_of(path))) if m.split(".")[0] in ("numba", "llvmlite")
    ]
    if top(path) in WINGS or top(path) in ("state", "constants", "errors"):
        found = [(m, n) for m, n in imports(tree_of(path)) if m.split(".")[0] in ("numba", "llvmlite")]
    assert found == []


LIGHT = [p for p in FILES if top(p) in ("config", "cli", "__init__", "errors")]


@pytest.mark.parametrize("path", LIGHT, ids=name_of)
def test_light_modules_import_nothing_heavy(path: Path) -> None:
    tree = tree_of(path) if top(path) == "config" else module_level(tree_of(path))
    assert [(m, n) for m, n in imports(tree) if m.split(".")[0] in HEAVY] == []


def kernel_decorators(tree: ast.Module) -> list[str]:
    """Decorator names that compile, however they are spelt."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for dec in node.decorator_list:
                text = ast.unparse(dec).split("(")[0]
                if text.rsplit(".", 1)[-1] in ("njit", "jit", "vectorize", "guvectorize", "generated_jit"):
                    names.append(f"{node.name}:{node.lineno}")
    return names


@pytest.mark.parametrize("path", WING_FILES, ids=name_of)
def test_wings_use_the_one_decorator(path: Path) -> None:
    tree = tree_of(path)
    assert kernel_decorators(tree) == []
    uses = any(
        "kernel" in {ast.unparse(d) for d in n.decorator_list}
        for n in ast.walk(tree)
        if hasattr(n, "decorator_list")
    )
    sources = [m for m, _ in imports(tree) if m == "spbfast._jit"]
    assert not uses or sources, "`kernel` must come from spbfast._jit"


@pytest.mark.parametrize("path", WING_FILES, ids=name_of)
def test_wings_draw_nothing_at_random_and_print_nothing(path: Path) -> None:
    text = [ast.unparse(n) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Attribute)]
    assert [t for t in text if t.startswith(("np.random", "numpy.random", "random."))] == []
    calls = [ast.unparse(n.func) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]
    assert "print" not in calls


@pytest.mark.parametrize("path", WING_FILES, ids=name_of)
def test_kernels_do_not_raise(path: Path) -> None:
    wrong = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and any("kernel" in ast.unparse(d) for d in node.decorator_list):
            wrong += [f"{node.name}:{n.lineno}" for n in ast.walk(node) if isinstance(n, ast.Raise | ast.Try)]
    assert wrong == []
