"""What several studies share: metrics, and the rows of a figure of policies."""

from __future__ import annotations

from typing import Any

from experiments.study_numbers import Metric, Numbers
from spbfast.results.effects import Effect

TAINTED = Metric(("spb_tainted",), "tainted superpageblocks of 64")
SLAB_GB = Metric(("slab_pages",), "GB of slab", scale=4096 / 1e9)
STALLS = Metric(("allocstall_normal",), "direct-reclaim stalls")
Rows = list[tuple[str, Effect]]


def policy(name: str) -> dict[str, Any]:
    return {"policy": name}


def policies(numbers: Numbers, metric: str, control: str) -> Rows:
    """Each policy against one of them, and the same under varied inputs where there is such a pair."""
    rows = [
        (name, numbers.effect(metric, policy(name), policy(control)))
        for name in numbers.own("policy")
        if name != control
    ]
    return rows + [
        (
            f"{point['own']['policy']}; {varied}",
            numbers.effect(metric, point["own"], policy(control), varied),
        )
        for varied in numbers.varied
        for point in numbers.kept["points"]
        if point["varied"] == varied
        and point["own"]["policy"] != control
        and numbers.has(varied, policy(control))
    ]
