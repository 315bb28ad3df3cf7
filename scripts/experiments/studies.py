"""The studies in the order of their questions, and the numbers that are kept of each."""

from __future__ import annotations

import json

from experiments.machines import configs
from experiments.study_numbers import Numbers
from experiments.study_page import Study
from experiments.study_reclaim import STARVE
from experiments.study_requests import ATOMIC, GIGANTIC, SEARCH
from experiments.study_tainting import HEAL, RESERVE, SHRINK, SMALL, WORTH

OUT = configs().parent / "results" / "studies"
STUDIES = (SHRINK, SEARCH, GIGANTIC, WORTH, RESERVE, ATOMIC, SMALL, HEAL, STARVE)


def read_kept(study: Study) -> Numbers | None:
    """The numbers behind a study's page, None if it has not run."""
    path = OUT / f"{study.name}.json"
    return Numbers(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
