"""The how-tos, carried out: every block of docs/howto/*.md is applied to a copy of the package and run there.

A fenced block with attributes is an edit: `file=PATH` writes a new file; `in=PATH below=LINE` (or above,
instead-of) puts its text next to the one line of a file that begins so; `after=TEXT` puts it behind a text
that stands once in the file. The lines of a `console` block that
begin with `$` are run; what is shown below a command must come out, in that order, with `...` for anything.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.markdown_tools import ROOT, CodeBlock, code_blocks

pytestmark = pytest.mark.shell

PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
SHELL = f"""set -e
spbfast() {{ {shlex.quote(sys.executable)} -m spbfast.cli "$@"; }}
python() {{ {shlex.quote(sys.executable)} "$@"; }}
pytest() {{ {shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider "$@"; }}
"""
PLACES = {"below": 1, "above": 0, "instead-of": None}


def _unwanted(folder: str, names: list[str]) -> set[str]:
    """What a copy does without: build products, and the golden files that take their time."""
    large = [n for n in names if n.endswith(".npz") and not re.search("_tiny|shrink_p0[1-3]", n)]
    return {n for n in names if n in ("__pycache__", "_build", "_generated")} | set(large)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what a clone holds."""
    for name in ("spbfast", "tests", "configs", "docs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / "clone" / name, ignore=_unwanted)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


def attributes(block: CodeBlock) -> dict[str, str]:
    """What stands behind the language of a block."""
    return dict(part.split("=", 1) for part in shlex.split(block.info)[1:])


def edit(copy: Path, block: CodeBlock) -> None:
    """Apply one block to the copy; the line it names must be there exactly once."""
    wanted = attributes(block)
    if "file" in wanted:
        path = copy / wanted["file"]
        assert not path.exists(), f"{wanted['file']} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        return
    path = copy / wanted["in"]
    if "after" in wanted:
        head, *rest = path.read_text(encoding="utf-8").split(wanted["after"])
        assert len(rest) == 1, f"{wanted['in']}: {wanted['after']!r} stands there {len(rest)} times"
        path.write_text(f"{head}{wanted['after']}{block.text.strip()} {rest[0]}", encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = PLACES.keys() & wanted.keys()
    found = [i for i, line in enumerate(lines) if line.strip().startswith(wanted[place])]
    assert len(found) == 1, f"{wanted['in']}: {len(found)} lines begin with {wanted[place]!r}"
    offset = PLACES[place]
    start = found[0] if offset is None else found[0] + offset
    lines[start : found[0] + 1 if offset is None else start] = block.text.splitlines(keepends=True)
    path.write_text("".join(lines), encoding="utf-8")


def run(copy: Path, block: CodeBlock) -> None:
    """Run the commands of one block and look for what it shows."""
    for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        done = subprocess.run(
            ["bash", "-c", SHELL + command],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "NUMBA_DISABLE_JIT": "1", "COLUMNS": "110"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"$ {command}\n{output}"
        pattern = ".*".join(re.escape(piece) for piece in re.split(r"\.\.\.\n?", shown.rstrip()))
        assert re.search(pattern, output, flags=re.S), f"$ {command}\n{output}\ndoes not show\n{shown}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "index"], ids=lambda p: p.stem)
def test_the_howto_does_what_it_says(page: Path, copy: Path) -> None:
    blocks = code_blocks(page)
    assert any(block.info.startswith("console") for block in blocks)
    for block in blocks:
        if block.info == "console":
            run(copy, block)
        elif attributes(block):
            edit(copy, block)
