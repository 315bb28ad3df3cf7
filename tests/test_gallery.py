"""The gallery: every picture is there, is shown, and is drawn by a command of the page."""

from __future__ import annotations

import pytest
from experiments.pictures import BROUGHT, PAGE, PICTURES, read_steps, shown_pictures

from tests.markdown_tools import MANUAL, ROOT
from tests.page_tools import BROUGHT as OF_TESTS

pytestmark = pytest.mark.shell

BYTES_MAX = 500_000


def test_every_picture_is_drawn_by_a_command_of_the_page() -> None:
    drawn = [step.picture for step in read_steps() if step.picture]
    assert len(drawn) >= 6
    assert drawn == list(dict.fromkeys(drawn))
    assert sorted(drawn) == sorted(shown_pictures())
    assert sorted(drawn) == sorted(path.name for path in PICTURES.iterdir())


def test_pictures_are_files_with_something_in_them() -> None:
    sizes = [path.stat().st_size for path in PICTURES.iterdir()]
    assert min(sizes) > 5000
    assert sum(sizes) < BYTES_MAX


def test_other_pages_show_pictures_that_the_gallery_draws() -> None:
    elsewhere = {name for page in MANUAL if page != PAGE for name in shown_pictures(page)}
    assert elsewhere
    assert elsewhere <= set(shown_pictures())


def test_each_job_is_written_before_a_command_names_it() -> None:
    there = set(BROUGHT)
    for step in read_steps():
        if step.file:
            there.add(step.file)
        jobs = {word for word in step.words if word.endswith(".yaml")}
        assert jobs <= there, step.words


def test_tables_are_those_of_the_page_tests() -> None:
    assert {name: path.name for name, path in BROUGHT.items()} == {name: OF_TESTS[name] for name in BROUGHT}
    text = PAGE.read_text(encoding="utf-8")
    assert all(str(path.relative_to(ROOT)) in text for path in BROUGHT.values())
