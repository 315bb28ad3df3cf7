"""The studies: jobs that load, pages made from the kept numbers, an overview that agrees with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from experiments.studies import OUT, STUDIES, read_kept
from experiments.study_figure import draw
from experiments.study_numbers import Numbers, number, sign
from experiments.study_page import WORDS_MAX, Study, flips, overview, page, row
from experiments.study_small import small_job

from spbfast.config import load_config

pytestmark = pytest.mark.shell

ROOT = Path(__file__).resolve().parents[1]
JOBS = ROOT / "configs" / "studies"
DONE = [study for study in STUDIES if read_kept(study) is not None]
BY_NAME = {"argvalues": DONE, "ids": [study.name for study in DONE]}


def kept(study: Study) -> dict:
    numbers = read_kept(study)
    assert numbers is not None
    return dict(numbers.kept)


def text_of(name: str) -> str:
    return (OUT / name).read_text(encoding="utf-8")


def test_every_job_belongs_to_a_study() -> None:
    assert {path.stem for path in JOBS.glob("*.yaml")} == {study.name for study in STUDIES}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_jobs_load(study: Study) -> None:
    job = load_config(JOBS / f"{study.name}.yaml")
    assert job.replicates >= 5
    points = len([s for s in study.headline[1:] if s is not None])
    assert small_job(study).nr_points == points
    assert small_job(study).replicates < job.replicates
    times = [when for m in study.metrics.values() for when in (m.at, m.since) if isinstance(when, float)]
    assert all(when * 10**9 <= small_job(study).scenario.duration for when in times)


@pytest.mark.parametrize("study", **BY_NAME)
def test_pages_and_figures_are_made_from_the_numbers(study: Study) -> None:
    """`scripts/studies --page` writes them anew."""
    assert text_of(f"{study.name}.md") == page(study, kept(study))
    assert text_of(f"{study.name}.svg") == draw(study, kept(study))
    assert (ROOT / "docs" / "studies" / f"{study.name}.md").is_file()


@pytest.mark.parametrize("study", **BY_NAME)
def test_pages_are_short_and_name_their_job(study: Study) -> None:
    text = text_of(f"{study.name}.md")
    assert len(text.split()) <= WORDS_MAX
    assert f"configs/studies/{study.name}.yaml" in text
    assert f"({study.name}.svg)" in text
    assert all((OUT / f"{study.name}.{kind}").stat().st_size < 150_000 for kind in ("svg", "json"))


@pytest.mark.parametrize("study", **BY_NAME)
def test_numbers_of_the_overview_stand_in_the_page(study: Study) -> None:
    line = row(study, kept(study))
    assert line in text_of("README.md")
    numbers = re.findall(r"[-+]?\d[\d,.]*\d|\d", line.split("](", 1)[1].split(")", 1)[1].rsplit("|", 2)[0])
    page_text = text_of(f"{study.name}.md")
    assert numbers
    assert [found for found in numbers if found not in page_text] == []


def test_the_overview_has_a_row_for_each_study() -> None:
    done = [(study, kept(study)) for study in DONE]
    assert text_of("README.md") == overview(done, [study for study in STUDIES if study not in DONE])


@pytest.mark.parametrize("study", **BY_NAME)
def test_a_study_that_flips_says_so_first(study: Study) -> None:
    first = text_of(f"{study.name}.md").split("\n\n")[1]
    numbers = Numbers(kept(study))
    found = [flips(numbers, contrast) for contrast in study.contrasts(numbers)]
    turned = [varied for by in found for varied, (_, flip) in by.items() if flip]
    assert first.startswith("**The answer flips" if turned else "**The sign holds")
    assert all(varied in first for varied in turned)


def test_signs_are_of_the_interval() -> None:
    study = DONE[0]
    numbers = kept(study)
    metric, value, control = study.headline

    def effect_of(low: float, high: float) -> int:
        changed = [
            {**p, "values": {**p["values"], metric: [low, high] * 5 if p["own"] == value else [0.0] * 10}}
            for p in numbers["points"]
        ]
        return sign(study.effect(Numbers({**numbers, "points": changed})))

    assert control is not None
    signs = [effect_of(*ends) for ends in ((1.0, 2.0), (-2.0, -1.0), (-1.0, 1.0), (0.0, 0.0))]
    assert signs == [1, -1, 0, 0]
    assert number(1234567.0) == "1,234,567"
