"""Runs of one scenario as one dataset.

Owns nothing but the shape (replicate, and what the registry says behind it); engine.py makes the runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


class Run(Protocol):
    """What is needed of an engine's ReplicateResult."""

    @property
    def data(self) -> Mapping[str, np.ndarray]:
        """Arrays by registered name."""

    @property
    def coords(self) -> Mapping[str, np.ndarray]:
        """Labels by dimension."""

    @property
    def digest(self) -> str:
        """16 hex digits over all data."""


def dataset_of(runs: Sequence[Run], seed: int, model_version: int) -> xr.Dataset:
    """Runs of one scenario as a dataset over (replicate, time, ..)."""
    import xarray as xr

    from spbfast.outputs.variables import VARIABLES, add_summaries, annotate

    full = [add_summaries(run.data) for run in runs]
    variables: dict[str, Any] = {
        name: (("replicate", *VARIABLES[name].dims), np.stack([one[name] for one in full]))
        for name in full[0]
    }
    coords: dict[str, Any] = {name: (name, values) for name, values in runs[0].coords.items()}
    ds = xr.Dataset(variables, coords={"replicate": np.arange(len(runs)), **coords})
    ds.attrs.update(seed=seed, model_version=model_version, digest=",".join(run.digest for run in runs))
    return annotate(ds)
