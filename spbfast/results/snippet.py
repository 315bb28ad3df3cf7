"""Lines of Python that open results, for a terminal and for the report.

Owns the choice of what they show. They work on the results that they are printed for, whatever became of the
runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spbfast.results.analysis import is_grid

if TYPE_CHECKING:
    import xarray as xr


def snippet(ds: xr.Dataset, *paths: str | Path) -> list[str]:
    """Three lines that open the results at the paths and print what a reader asks for first."""
    names = [str(path) for path in paths]
    opened = f"sf.open_results({names[0]!r})" if len(names) == 1 else f"sf.open_together({names!r})"
    return ["import spbfast as sf", f"ds = {opened}", f"print({_shown(ds)})"]


def _shown(ds: xr.Dataset) -> str:
    """What there is to see: one number a point, or how the runs ended where none has results."""
    if "tainted_end" not in ds or not bool(ds["tainted_end"].notnull().any()):
        return "ds.status"
    laid_out = "sf.cube(ds)" if is_grid(ds) else "ds"
    return f'{laid_out}.tainted_end.mean("replicate")'
