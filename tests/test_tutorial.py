"""The tutorial's numbers come out: all of them in minutes, those of its one run in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from spbfast.jit.decorators import INTERPRETED
from tests import page_tools
from tests.markdown_tools import ROOT, CodeBlock, code_blocks

PAGE = ROOT / "docs" / "tutorial.md"
ONE_RUN = "spbfast run first.yaml"

pytestmark = pytest.mark.skipif(INTERPRETED, reason="runs of full size are compiled")


def blocks(kind: str) -> list[CodeBlock]:
    return [block for block in code_blocks(PAGE) if block.info.startswith(kind)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (job,) = blocks("yaml")
    (tmp_path / "first.yaml").write_text(job.text, encoding="utf-8")
    return tmp_path


def check_numbers(line: str, shown: str) -> None:
    """Every number that the page shows below a command stands in its output, in that order."""
    code, output = page_tools.spbfast(page_tools.words_of(line)[1:])
    assert code == 0, output
    at = 0
    for row in shown.splitlines():
        for word in row.split():
            at = output.find(word, at)
            assert at >= 0, f"$ {line}\n{output}\nhas no {word!r} of\n{row}"


@pytest.mark.slow
def test_the_one_run_gives_the_numbers_shown(folder: Path) -> None:
    lines = [c for block in blocks("console") for c in page_tools.commands(block.text)]
    (one,) = [c for c in lines if c.line.startswith(ONE_RUN)]
    check_numbers(*one)


@pytest.mark.heavy
def test_every_command_gives_the_numbers_shown(folder: Path) -> None:
    for block in blocks("console"):
        for line, shown in page_tools.commands(block.text):
            if not line.startswith(page_tools.ELSEWHERE):
                check_numbers(line, shown)


def test_the_finding_is_that_of_the_tables() -> None:
    text = PAGE.read_text(encoding="utf-8")
    _, _, finding = text.partition("**The finding.**")
    assert "14 to 26 of 64 areas instead of 63" in finding
    first, pinned = (block.text for block in blocks("console") if "spbfast compare" in block.text)
    for name, mean in (("mainline", "63"), ("v1@24", "15.8"), ("v1@25", "25.8"), ("v2", "14.2")):
        assert any(row.split()[:2] == [name, mean] for row in first.splitlines())
        assert any(name in row and mean in row.split() for row in pinned.splitlines())
