"""Who may import whom, and where Numba may appear: read from the sources, nothing is imported.

A room is a folder (or a file at the top of the package). Rooms stand in storeys: a file imports from its own
room and from storeys below, and no circle exists anywhere, inside rooms too. Compiled code uses the one set
of decorators in jit/ and nothing that allocates or draws at random.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.imports import MODULES, PACKAGE, arrows, circles, imports, module_level, tree_of

pytestmark = pytest.mark.shell

# From the ground up. Rooms of one storey know nothing of each other.
STOREYS: list[tuple[str, ...]] = [
    ("constants", "jit", "text", "freeindex", "places"),
    ("errors", "model.primitives", "tiles"),
    ("outputs", "model.state", "observed", "statefile"),
    ("config", "live", "model.allocator", "model.demand"),
    ("model.holders",),
    ("model.workers",),
    ("model.requests",),
    ("model.loop",),
    ("model.lowering",),
    ("model.collect", "model.saved", "recordings"),
    ("model.engine", "zone", "verify", "fitting"),
    ("bench", "entries", "sweep.points"),
    ("sweep.store",),
    ("sweep.pools",),
    ("sweep.run",),
    ("sweep",),
    ("results",),
    ("results.report", "results.memorymap"),
    ("cli",),
]
RANK = {room: i for i, rooms in enumerate(STOREYS) for room in rooms}
SPLIT = ("model", "sweep", "results")  # folders whose folders are rooms of their own
COMPILED = {
    "model.primitives",
    "model.allocator",
    "model.holders",
    "model.workers",
    "model.demand",
    "model.requests",
    "model.loop",
}
FILES = sorted(MODULES.values())
# To be mended next: each of these is in a circle.
KNOWN_CIRCLES: set[str] = set()
# Modules that may name numba: what compiles, and intrinsics.
NUMBA_ALLOWED = {"jit", "model.allocator.prefetch"}
HEAVY = {"numba", "llvmlite", "xarray", "dask", "distributed", "pandas", "scipy", "matplotlib", "netCDF4"}


def room_of(module: str) -> str:
    """The room that a module of this package belongs to; "" for the package's own __init__."""
    parts = module.split(".")[1:]
    if not parts:
        return ""
    if parts[0] in SPLIT and len(parts) > 1 and ".".join(parts[:2]) in RANK:
        return ".".join(parts[:2])
    return parts[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


ROOM = {path: room_of(module) for module, path in MODULES.items()}
COMPILED_FILES = [p for p in FILES if ROOM[p] in COMPILED]
# The front door names everything, lazily; a folder's __init__ without a room of its own says nothing.
NO_ROOM = {"", "model"}


def test_every_file_has_a_room() -> None:
    assert set(ROOM.values()) - set(RANK) <= NO_ROOM
    assert set(RANK) <= set(ROOM.values())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_come_from_below(module: str) -> None:
    own = room_of(module)
    if own in NO_ROOM:
        return
    wrong = []
    for target in sorted(arrows()[module]):
        room = room_of(target)
        if room in NO_ROOM or room == own or RANK[room] < RANK[own]:
            continue
        wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_there_is_no_circle() -> None:
    """Neither among rooms nor among the files of one room; imports inside functions count, too."""
    assert [c for c in circles(arrows()) if not KNOWN_CIRCLES & set(c)] == []


def test_a_circle_is_seen() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == [["a", "b", "c"]]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_numba_is_named_in_one_place(path: Path) -> None:
    module = next(m for m, p in MODULES.items() if p == path)
    if ROOM[path] in NUMBA_ALLOWED or module.removeprefix("spbfast.") in NUMBA_ALLOWED:
        return
    tree = tree_of(path) if module.startswith("spbfast.model.") else module_level(tree_of(path))
    assert [(m, n) for m, n in imports(tree) if m.split(".")[0] in ("numba", "llvmlite")] == []


LIGHT = [p for p in FILES if ROOM[p] in ("", "config", "cli", "errors", "constants", "outputs", "text")]


@pytest.mark.parametrize("path", LIGHT, ids=name_of)
def test_light_modules_import_nothing_heavy(path: Path) -> None:
    tree = tree_of(path) if ROOM[path] == "config" else module_level(tree_of(path))
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


@pytest.mark.parametrize("path", COMPILED_FILES, ids=name_of)
def test_compiled_code_uses_the_one_decorator(path: Path) -> None:
    tree = tree_of(path)
    assert kernel_decorators(tree) == []
    uses = any(
        "kernel" in {ast.unparse(d) for d in n.decorator_list}
        for n in ast.walk(tree)
        if hasattr(n, "decorator_list")
    )
    sources = [m for m, _ in imports(tree) if m == "spbfast.jit.decorators"]
    assert not uses or sources, "`kernel` must come from spbfast.jit.decorators"


@pytest.mark.parametrize("path", COMPILED_FILES, ids=name_of)
def test_compiled_code_draws_nothing_at_random_and_prints_nothing(path: Path) -> None:
    text = [ast.unparse(n) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Attribute)]
    assert [t for t in text if t.startswith(("np.random", "numpy.random", "random."))] == []
    calls = [ast.unparse(n.func) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]
    assert "print" not in calls


@pytest.mark.parametrize("path", COMPILED_FILES, ids=name_of)
def test_kernels_do_not_raise(path: Path) -> None:
    wrong = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and any("kernel" in ast.unparse(d) for d in node.decorator_list):
            wrong += [f"{node.name}:{n.lineno}" for n in ast.walk(node) if isinstance(n, ast.Raise | ast.Try)]
    assert wrong == []
