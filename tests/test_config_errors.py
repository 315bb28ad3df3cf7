"""Wrong configurations and the exact text that users get for each: tests/bad_yaml/*.yaml with *.txt.

`python tests/test_config_errors.py` writes the texts anew; read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spbfast.config import load_config
from spbfast.errors import ConfigError
from spbfast.sweep.points.combinations import validate_combinations

pytestmark = pytest.mark.shell

HERE = Path(__file__).resolve().parent / "bad_yaml"
CASES = sorted(p.name for p in HERE.glob("*.yaml"))


def message_of(name: str) -> str:
    """The error for one file, with paths relative to the folder of wrong files."""
    before = Path.cwd()
    os.chdir(HERE)
    try:
        validate_combinations(load_config(name))
    except ConfigError as error:
        return f"{error}\n"
    finally:
        os.chdir(before)
    return "no error\n"


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_wrong_file_gives_its_message(name: str) -> None:
    expected = (HERE / name).with_suffix(".txt").read_text(encoding="utf-8")
    assert message_of(name) == expected


@pytest.mark.parametrize("name", CASES)
def test_every_problem_has_a_place(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_combinations(load_config(HERE / name))
    for problem in caught.value.problems:
        assert problem.line > 0
        assert problem.col > 0
        lines = Path(problem.file).read_text(encoding="utf-8").splitlines()
        assert problem.source_line == lines[problem.line - 1]
        assert problem.col <= len(problem.source_line) + 1


if __name__ == "__main__":
    for case in CASES:
        (HERE / case).with_suffix(".txt").write_text(message_of(case), encoding="utf-8")
