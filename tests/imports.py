"""What imports what, read from the sources: nothing is imported. For the layering test and its picture."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "spbfast"


def module_name(path: Path) -> str:
    """Dotted name of a source file; a package's is its folder's."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: dict[str, Path] = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _for_types_only(tree: ast.AST) -> set[int]:
    """Nodes below `if TYPE_CHECKING`, by id: they import nothing when the program runs."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    return {id(inner) for block in blocks for inner in ast.walk(block)}


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Every imported module with its line, type-checking blocks left out; relative imports are refused."""
    out: list[tuple[str, int]] = []
    skip = _for_types_only(tree)
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            out += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            out += [(name if name in MODULES else str(node.module), node.lineno) for name in full]
    return list(dict.fromkeys(out))


def module_level(tree: ast.Module) -> ast.Module:
    """The tree without function bodies: what runs when the module is imported. Changes `tree`."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # noqa: N802
            return ast.Pass()

    return Strip().visit(tree)


@functools.cache
def arrows() -> dict[str, set[str]]:
    """By module, the modules of this package that it imports, late imports in functions included."""
    out = {}
    for name, path in MODULES.items():
        found = {module for module, _ in imports(tree_of(path)) if module in MODULES}
        out[name] = found - {name}
    return out


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    out = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                out.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return out
