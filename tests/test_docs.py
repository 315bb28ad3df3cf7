"""The documentation against itself and the code: links, named sections, the table of presets, pictures."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from experiments import flagship_figure, flagship_page, jump

from spbfast.cli import app
from spbfast.config import load_config
from spbfast.config.presets import flat_values, ladder
from spbfast.config.schema import key_docs
from tests import rooms
from tests.imports import MODULES
from tests.markdown_tools import (
    MANUAL,
    PAGES,
    ROOT,
    code_blocks,
    has_label,
    headings,
    links,
    references,
    slug,
    tokens,
)
from tests.page_tools import BROUGHT
from tests.test_layering import RANK

pytestmark = pytest.mark.shell

SOURCES = [
    path
    for folder, kinds in {
        "spbfast": (".py", ".json", ".yaml", ".html"),
        "scripts": ("",),
        "tests": (".py",),
        "configs": (".yaml",),
    }.items()
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix in (".py", *kinds) and "__pycache__" not in path.parts
]
SPECIFICATION = ("exact", "machine", "spb", "golden", "golden-spb-shrink")
GENERATED = ROOT / "docs" / "_generated"  # written when the docs are built; sphinx checks links into it
VERBS = {c.name or c.callback.__name__ for c in app.registered_commands}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(path: Path) -> None:
    dead = []
    for target in links(path):
        parts = urlsplit(target)
        page = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
        if parts.scheme or page.parent == GENERATED:
            continue
        if not page.exists() and page.with_suffix(".md").exists():
            page = page.with_suffix(".md")  # MyST leaves the suffix away
        known = [slug(h) for h in headings(page)] if page.suffix == ".md" and page.is_file() else []
        if not page.exists() or (parts.fragment and parts.fragment not in known):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_external_links_are_well_formed(path: Path) -> None:
    """No network: only the form is checked."""
    external = [target for target in links(path) if urlsplit(target).scheme]
    wrong = [t for t in external if not re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/\S*)?|mailto:\S+@\S+", t)]
    assert wrong == []


def dead_references(path: Path) -> list[str]:
    """Pages that a file names and that are not there, or lack the section named."""
    dead = []
    for page, labels in references(read(path)):
        there = ROOT / page
        if not there.is_file():
            dead.append(f"{name_of(path)}: {page}")
            continue
        dead += [f"{name_of(path)}: {page} {label}" for label in labels if not has_label(there, label)]
    return dead


def test_named_pages_and_sections_exist() -> None:
    assert [dead for path in (*PAGES, *SOURCES) for dead in dead_references(path)] == []


def test_the_specification_is_named_by_its_path() -> None:
    bare = re.compile(rf"(?<![\w/-])(?:{'|'.join(SPECIFICATION)})\.md|golden README|\.\./shared")
    exempt = (Path(__file__).name, "markdown_tools.py")
    assert [name_of(p) for p in SOURCES if p.name not in exempt and bare.search(read(p))] == []


def test_references_are_read_across_lines() -> None:
    text = "see docs/spec/golden.md,\n    sections 4 and 5; docs/spec/exact.md B.5 and docs/model.md."
    assert [tuple(found) for found in references(text)] == [
        ("docs/spec/golden.md", ("4", "5")),
        ("docs/spec/exact.md", ("B.5",)),
        ("docs/model.md", ()),
    ]
    assert has_label(ROOT / "docs/spec/exact.md", "B.1")
    assert not has_label(ROOT / "docs/spec/exact.md", "B.15")


def table_below(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    text = read(page).split(heading, 1)[1].split("\n\n|", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [row for row in rows if not set(row[0]) <= {"-"}]


def test_the_table_of_presets_is_the_packages() -> None:
    """docs/spec/exact.md B.10, cell by cell, against spbfast/config/presets.json."""
    head, *rows = table_below(ROOT / "docs/spec/exact.md", "### B.10 ")
    presets = {
        column: name
        for column in head[1:-1]
        for name in ladder()
        if name in (f"v1@{column.removeprefix('v1_')}", column)
    }
    renamed = {
        "shrink_requests": "slab_shrink",
        "shrink_high_water": "slab_shrink_triggers.below_high_water",
    }
    assert len(presets) == 13
    assert len(rows) > 15
    for cells in rows:
        for i, key in enumerate(re.findall(r"`(\w+)`", cells[0])):
            for column, preset in presets.items():
                written = cells[head.index(column)].split("/")
                value = flat_values(preset)[renamed.get(key, key)]
                # With shrink off the trigger is silent whatever its own switch says.
                is_on = key != "shrink_high_water" or flat_values(preset)["slab_shrink"]
                assert int(value and is_on and value) == int(written[min(i, len(written) - 1)]), (key, preset)


def test_the_picture_of_the_rooms_is_drawn_from_the_imports() -> None:
    """`python -m tests.rooms` rewrites both."""
    assert rooms.SVG.read_text(encoding="utf-8") == rooms.svg()
    assert read(rooms.PAGE) == rooms.page(read(rooms.PAGE))


def test_the_picture_of_the_flagship_shows_its_numbers() -> None:
    """`scripts/study --page` rewrites page, picture and the finding in README.md."""
    raw = json.loads(read(ROOT / "results" / "studies" / "flagship.json"))
    told = jump.sentences(json.loads(read(ROOT / "results" / "studies" / "jump.json")))
    assert flagship_page.page(raw, told) == read(ROOT / "docs" / "flagship.md")
    assert flagship_page.front(read(ROOT / "README.md"), raw) == read(ROOT / "README.md")
    assert f"numbers {flagship_figure.fingerprint(raw)}" in read(ROOT / "docs" / "_static" / "flagship.svg")
    assert flagship_figure.draw(raw) == flagship_figure.draw(raw)


def test_every_room_is_explained() -> None:
    text = read(rooms.PAGE).replace(rooms.table(), "")
    cells = " ".join(row.split("|")[1] for row in text.splitlines() if row.startswith("|"))
    named = set(re.findall(r"`([\w.*]+)`", cells))
    assert [room for room in RANK if not {room, f"{room.split('.')[0]}.*"} & named] == []


@pytest.mark.parametrize("path", MANUAL, ids=name_of)
def test_files_that_a_page_names_exist(path: Path) -> None:
    """`workers/defer.py` in a page is a file of the package, of the model, or of the repository."""
    text = " ".join(t.content for t in tokens(path) if t.type == "code_inline")
    named = set(re.findall(r"(?<![\w/.*-])[a-z_]+/[\w/]+\.(?:py|json|yaml|npz)\b", text))
    roots = [ROOT, ROOT / "spbfast", ROOT / "spbfast" / "model"]
    assert [name for name in sorted(named) if not any((root / name).exists() for root in roots)] == []
    bare = set(re.findall(r"(?<![\w/.*-])[a-z_]+\.py\b", text)) - {"my.py"}
    assert sorted(bare - {path.name for path in SOURCES}) == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_keys_that_a_page_names_exist(path: Path) -> None:
    """`policy.slab_shrink` in a page is a key of configurations."""
    keys = {doc.path for doc in key_docs()}
    sections = "|".join(sorted({key.split(".")[0] for key in keys if "." in key} - {"sweep", "actors"}))
    text = [t.content for t in tokens(path) if t.type == "code_inline"]
    named = {n for code in text for n in re.findall(rf"^(?:{sections})\.(?!py$)[a-z_0-9.]+$", code)}
    added = {"policy.borrow_largest"}  # by docs/howto/policy-switch.md
    assert sorted(n for n in named - keys - added if not (ROOT / "spbfast" / n).exists()) == []


def test_functions_that_the_model_page_names_exist() -> None:
    """The last column of docs/model.md: files, and names of functions, classes or enums."""
    rows = [row for row in read(ROOT / "docs" / "model.md").splitlines() if row.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.rstrip("| ").rsplit("|", 1)[-1])}
    known = {w for p in MODULES.values() for w in re.findall(r"^ *(?:def|class) (\w+)", read(p), re.M)}
    assert len(named) > 40
    assert sorted(named - known) == []


def test_the_page_on_installing_names_every_extra() -> None:
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    rows = table_below(ROOT / "docs" / "install.md", "# Install\n")[1:]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == set(extras)


def test_every_page_of_the_manual_is_in_a_table_of_contents() -> None:
    listed = {"index"}
    for page in MANUAL:
        for block in code_blocks(page):
            if block.info == "{toctree}":
                names = [line for line in block.text.splitlines() if line and not line.startswith(":")]
                listed |= {str((page.parent / name).relative_to(ROOT / "docs")) for name in names}
    assert {str(p.relative_to(ROOT / "docs").with_suffix("")) for p in MANUAL} <= listed


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_whole_configurations_in_pages_are_valid(path: Path, tmp_path: Path) -> None:
    """Every YAML block that names a base or a duration is a configuration of its own."""
    for name, sample in BROUGHT.items():
        shutil.copy(ROOT / "tests" / "observed" / sample, tmp_path / name)
    for i, block in enumerate(code_blocks(path)):
        if block.info.split()[:1] == ["yaml"] and re.search(r"^(extends|duration):", block.text, re.M):
            file = tmp_path / f"block{i}.yaml"
            file.write_text(block.text, encoding="utf-8")
            if "kind: log_ring" not in block.text:  # the actor that docs/howto/actor.md adds
                load_config(file)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_show_only_commands_that_exist(path: Path) -> None:
    """Every `spbfast VERB` in a page is a verb of the command."""
    text = " ".join(t.content for t in tokens(path) if t.type in ("code_inline", "fence"))
    named = set(re.findall(r"(?<![\w/] )(?<!import )\bspbfast ([a-z][a-z-]+)\b", text))
    assert named <= VERBS | {"import"}
