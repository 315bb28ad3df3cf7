"""What is declared as the oldest version of a package, and why."""

from __future__ import annotations

import importlib.metadata
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.floors import constraints, floors

pytestmark = pytest.mark.shell


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


@pytest.mark.parametrize("name", floors())
def test_what_is_installed_is_supported(name: str) -> None:
    assert numbers(importlib.metadata.version(name)) >= numbers(floors()[name])


def test_every_package_has_a_floor_that_can_be_installed() -> None:
    assert len(constraints()) > 10
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9.]+\.\*", line) for line in constraints())


def test_xarray_knows_the_texts_of_pandas(tmp_path) -> None:
    # Before 2026.1 it cannot write those of pandas 3, which our floor of pandas allows.
    assert numbers(floors()["xarray"]) >= (2026, 1)
    frame = pd.DataFrame({"name": ["a", "b"]}, index=pd.Index(["x", "y"], name="row"))
    ds = xr.Dataset.from_dataframe(frame)
    ds.to_netcdf(tmp_path / "x.nc")
    with xr.open_dataset(tmp_path / "x.nc") as again:
        assert again["name"].values.tolist() == ["a", "b"]
    assert np.array_equal(ds["row"].values.astype(str), ["x", "y"])
