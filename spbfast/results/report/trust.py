"""What a reader must know before the numbers: how runs ended, and what was left out.

Owns the words of the report's first section. Pure functions of a dataset; sources.py has what made it.
"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from spbfast.config import presets
from spbfast.results.effects import FEW_PAIRS
from spbfast.results.report.metrics import control_of
from spbfast.sweep.store.shards import OK, STATUS_NAMES


def trust(ds: xr.Dataset, patches: Sequence[int]) -> list[str]:
    """What the numbers below rest on, in a few sentences; `patches` are those that policies do without."""
    return [text for text in (_pairing(ds), _few(ds), steps_left_off(patches)) if text]


def _pairing(ds: xr.Dataset) -> str:
    """Whether replicate k met the same demand in every point."""
    ok = ds["status"].transpose("point", "replicate").values == OK
    if ok.any(axis=1).sum() < 2:
        return ""
    demand = ds["demand_digest"].transpose("point", "replicate").values
    own = demand[control_of(ds)]
    apart = (ok & ok[control_of(ds)] & (demand != own)).any(axis=1)
    if not apart.any():
        return "Replicate k met the same demand in every point (equal digests), so differences are paired."
    return (
        f"{int(apart.sum())} of {len(apart)} points met another demand than the control: what is varied "
        "changes the load itself, and differences are those of the machine and the load together."
    )


def _few(ds: xr.Dataset) -> str:
    n = ds.sizes["replicate"]
    if n >= FEW_PAIRS or ds.sizes["point"] < 2:
        return ""
    runs = "One replicate gives" if n == 1 else f"{n} replicates give"
    kind = "no interval" if n == 1 else "intervals that tend to be too narrow"
    return f"{runs} {kind}; more replicates settle close calls."


def steps_left_off(patches: Sequence[int]) -> str:
    """Which modelled patches the policies do without, and why; "" if none."""
    if not patches:
        return ""
    named = ", ".join(f"{patch:02} ({presets.left_off().get(patch, '')})" for patch in patches)
    return (
        f"Policies of these results do without modelled patches up to their step: {named}. Presets leave "
        f"them off because {presets.WHY_LEFT_OFF}. The presets that end in {presets.FULL} have them."
    )


def counts(ds: xr.Dataset) -> dict[str, int]:
    status = ds["status"].values
    found = {name: int((status == code).sum()) for code, name in enumerate(STATUS_NAMES)}
    bad = found["failed"] + found["timeout"] + found["lost"]
    return {
        "runs": int(status.size) - found["unneeded"],
        "ok": found["ok"],
        "bad": bad,
        "missing": int(status.size) - found["ok"] - found["unneeded"] - bad,
        "points": ds.sizes["point"],
        "replicates": ds.sizes["replicate"],
    }
