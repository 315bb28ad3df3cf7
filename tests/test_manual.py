"""The manual as HTML: pages with nothing below them have no empty navigation beside their tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.markdown_tools import MANUAL, ROOT

pytestmark = pytest.mark.shell

DOCS = ROOT / "docs"
NAVIGATION = "Section Navigation"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("sphinx", "myst_parser", "pydata_sphinx_theme"):
        pytest.importorskip(package)
    target = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
def test_only_pages_with_a_section_show_its_navigation(built: Path) -> None:
    with_navigation = set()
    for page in MANUAL:
        name = page.relative_to(DOCS).with_suffix(".html")
        if NAVIGATION in (built / name).read_text(encoding="utf-8"):
            with_navigation.add(name.parent.name)
    assert with_navigation == {"spec", "howto", "studies"}


def test_the_command_that_builds_the_manual_installs_what_it_needs() -> None:
    text = (ROOT / "scripts" / "manual").read_text(encoding="utf-8")
    assert text.index("make_venv '.[docs]'") < text.index("sphinx-build -q")
    assert "scripts/manual" in (ROOT / "README.md").read_text(encoding="utf-8")
