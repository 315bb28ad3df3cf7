"""The runs of one scenario as one dataset.

Owns its shape: replicate first, then the dimensions that the registry gives each variable. The runs come from
model/engine.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


class Run(Protocol):
    """The part of an engine's ReplicateResult that a dataset needs."""

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
