"""Packages that don't fit: doctor finds them, and what they break is no internal error."""

from __future__ import annotations

from importlib import metadata

import pytest

from spbfast import cli
from spbfast.cli import doctor, versions
from tests.imports import ROOT

REQUIRES = [
    "xarray>=2026.1",
    "numba<0.70,>=0.68",
    'zarr>=3; extra == "zarr"',
    'ruff>=99; extra == "dev"',
    'numpy>=99; python_version < "3"',
    "no-such-package>=1",
]
INSTALLED = {"xarray": "2025.6.0", "numba": "0.68.1", "zarr": "2.18", "ruff": "0.1", "numpy": "2.1"}


@pytest.fixture
def old_xarray(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in INSTALLED:
            raise metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(versions.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(versions.metadata, "version", version)


def test_ranges_are_judged_by_those_that_matter(old_xarray: None) -> None:
    expected = [("xarray 2025.6.0", "xarray>=2026.1"), ("zarr 2.18", "zarr>=3")]
    assert versions.unfit_packages() == expected
    assert versions.advice(expected) == "pip install 'xarray>=2026.1' 'zarr>=3'"


def test_extras_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in text for extra in versions.EXTRAS)


def test_a_source_tree_on_the_path_has_no_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions.metadata, "requires", requires)
    assert versions.unfit_packages() == []


def test_doctor_names_them(old_xarray: None) -> None:
    found = [f for f in doctor._packages() if f.level == doctor.BAD]
    (told,) = [f for f in found if "xarray 2025.6.0 is installed, xarray>=2026.1 is needed" in f.text]
    assert "pip install 'xarray>=2026.1'" in str(told)


@pytest.mark.parametrize("fit", [True, False])
def test_what_they_break_is_told_with_their_names(
    fit: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def breaks(**_: object) -> None:
        raise TypeError("no such dtype")

    if not fit:
        request.getfixturevalue("old_xarray")
    monkeypatch.setattr(cli, "app", breaks)
    with pytest.raises(SystemExit) as end:
        cli.main(["presets"])
    said = capsys.readouterr().err
    assert end.value.code == (cli.EXIT_BUG if fit else 5)
    assert ("Traceback" in said, "internal error" in said) == (fit, fit)
    assert ("pip install 'xarray>=2026.1' 'zarr>=3'" in said) == (not fit)
