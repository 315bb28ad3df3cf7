"""Every code block of README and docs is carried out, on a small machine: console, Python and YAML.

Blocks of docs/howto are carried out by test_howto.py. A console block whose fence says `measured` shows
numbers of another machine: they need not be the same. One whose fence says `full` shows those of the full
size, which test_tutorial.py checks. Commands that need a cluster or the network are listed
in page_tools.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from spbfast.config import load_config, readymade
from tests import page_tools
from tests.markdown_tools import PAGES, ROOT, CodeBlock, code_blocks


def language(block: CodeBlock) -> str:
    return block.info.split()[0] if block.info else ""


KINDS = {"console", "python", "yaml", "text", "", "{toctree}", "{eval-rst}", "{include}"}
CARRIED_OUT = [
    page
    for page in PAGES
    if "howto" not in page.parts
    and any(language(b) in ("console", "python", "yaml") for b in code_blocks(page))
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import matplotlib as mpl

    monkeypatch.chdir(page_tools.make_folder(tmp_path))
    monkeypatch.setattr(readymade, "ready_made_dir", lambda: tmp_path / "configs")
    monkeypatch.setenv("COLUMNS", "110")
    mpl.use("Agg")
    return tmp_path


def console(block: CodeBlock) -> None:
    for line, shown in page_tools.commands(block.text):
        if line.startswith(page_tools.ELSEWHERE):
            page_tools.check_elsewhere(line)
            continue
        output = page_tools.carry_out(line, shown)
        if "full" in block.info.split():
            continue
        measured = "measured" in block.info.split()
        assert page_tools.shows(output, shown, measured=measured), (
            f"$ {line}\n{output}\ndoes not show\n{shown}"
        )


def configuration(block: CodeBlock, folder: Path, number: int) -> None:
    """A whole configuration, or a part of one that stands on the machine of the examples."""
    name = re.match(r"# (\S+\.yaml)\n", block.text)
    path = folder / (name[1] if name else f"configs/block{number}.yaml")
    whole = re.search(r"^(extends|duration):", block.text, re.M)
    path.write_text(block.text if whole else f"extends: base/devvm.yaml\n{block.text}", encoding="utf-8")
    for given in ("points.csv", "aged.state", "pagetypeinfo.txt"):
        if path.parent != folder and (folder / given).exists():
            (path.parent / given).write_bytes((folder / given).read_bytes())
    load_config(path)
    path.write_text(page_tools.small(path.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", CARRIED_OUT, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_works(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {}
    for number, block in enumerate(code_blocks(page)):
        if language(block) == "console":
            console(block)
        elif language(block) == "python":
            page_tools.execute(block.text, names)
        elif language(block) == "yaml":
            configuration(block, folder, number)


def test_every_kind_of_block_is_known() -> None:
    """A block in another language would be carried out by nobody."""
    found = {language(block) for page in PAGES for block in code_blocks(page) if "howto" not in page.parts}
    assert found <= KINDS


@pytest.mark.parametrize(
    ("output", "shown", "measured", "fits"),
    [
        ("a 12 b", "a 12 b", False, True),
        ("a 13 b", "a 12 b", False, False),
        ("a 13.5 b", "a 12 b", True, True),
        ("a 13.5 c", "a 12 b", True, False),
        ("one\ntwo\nthree", "one\n...\nthree", False, True),
    ],
)
def test_shown_output_is_compared(output: str, shown: str, measured: bool, fits: bool) -> None:
    assert page_tools.shows(output, shown, measured=measured) is fits
