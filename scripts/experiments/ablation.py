"""The ablation: which switches of the series are worth keeping, as two jobs and their tables.

Owns the text of configs/ablation-leave-one-out.yaml, which follows from the presets, and what is kept of
finished sweeps. Sweeps are run by the sweep engine, effects computed by results/effects.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from spbfast.config import presets, series
from spbfast.results.effects import BASELINE, PREVIOUS, Step, point_names, steps

METRICS = (
    "spb_tainted",
    "wall_time",
    "pgmigrate_success",
    "direct_reclaim_rounds",
    "thp_fault_fallback",
    "alloc_failed_optional",
    "contig_1g_obtainable",
)
FULL = "v1"
ALONE = "superpageblocks"  # without it there is no series
MAINLINE_LISTS = "claim_prefers_tainted"  # a stage before there were lists per superpageblock
NEEDS = {"pcp_adopts_partial": "pcp_owned_pageblocks", "pcp_stays_in_tainted": "pcp_owned_pageblocks"}
HEAD = """\
# yaml-language-server: $schema=./spbfast.schema.json
# Which patches are worth keeping? The whole of version 1 minus one switch at a time, on the machine and
# demand of ablation-ladder.yaml; then plus one switch that a patch has but version 1's preset leaves off.
# Written by `scripts/series --configs`: each switch that version 1 turns has the value that it has in the
# mainline preset.
#   spbfast sweep configs/ablation-leave-one-out.yaml
#   spbfast compare results/ablation-leave-one-out --against baseline
name: ablation-leave-one-out
extends: base/devvm.yaml
duration: 120s # assumed; as in ablation-ladder.yaml
seed: 1 # assumed; any number
replicates: 20 # assumed; as in ablation-ladder.yaml

# As run: the rules that models up to version 3 had by default.
reclaim: {kswapd_wake: low, shrink_slab: none, compact_any_label: false, huge_faults_wake_kswapd: true}
slab: {first_attempt_wakes_kswapd: true}
workers: {pinned_share: 0.01, split_folios: false}
actors: {daemons: {pinned: null}}
"""
TAIL = """\
output: {level: series, every: 10s}
executor: {kind: threads, workers: auto}
"""


@dataclass(frozen=True, slots=True)
class Ablation:
    """One of the two jobs: its name, which control each point has, and what its table shows."""

    name: str
    against: str
    about: str


ABLATIONS = (
    Ablation("ablation-ladder", PREVIOUS, "Each step of the series against the one before it."),
    Ablation("ablation-leave-one-out", BASELINE, "Version 1 with one switch changed."),
)


STEP = "step"
FULL_LADDER = Ablation("ablation-full", STEP, "Each step with the patches that it leaves off.")


def full_ladder() -> list[str]:
    """Every step that leaves patches off, each followed by the preset that has them."""
    return [name for full, step in presets.full_presets().items() for name in (step, full)]


def leave_one_out() -> dict[str, dict[str, Any]]:
    """Version 1 with one switch changed at a time, by the name of such a preset.

    First those that version 1 turns, back at their mainline values; then those of patches that its preset
    leaves off, with what they need.
    """
    full, without = presets.flat_values(FULL), presets.flat_values("mainline")
    changed = [key for key in presets.matrix() if key != ALONE and full[key] != without[key]]
    out = {f"{FULL}+{key}={presets.text(without[key])}": {key: without[key]} for key in changed}
    for key, value in full.items():
        path = f"policy.{key}"
        if value is False and key not in changed and series.patches_of(path):
            if key != MAINLINE_LISTS:
                out[f"{FULL}+{key}=on"] = {need: True for need in (NEEDS.get(key), key) if need}
    return out


def leave_one_out_text() -> str:
    """The job as the file that is committed."""
    lines = []
    for name, change in leave_one_out().items():
        patches = ", ".join(series.patches_of(f"policy.{list(change)[-1]}")) or "no patch"
        body = ", ".join(_entry(key, value) for key, value in change.items())
        lines.append(f"  {name}: {{preset: {FULL}, {body}}} # {patches}")
    listed = [f"      - {name}" for name in leave_one_out()]
    sweep = ["sweep:", f"  baseline: {{policy: {FULL}}}", "  grid:", "    policy:", *listed]
    return "\n".join([HEAD, "presets:", *lines, "", *sweep, "", TAIL])


def _entry(key: str, value: Any) -> str:
    section, _, leaf = key.partition(".")
    return f"{section}: {{{leaf}: {_yaml(value)}}}" if leaf else f"{key}: {_yaml(value)}"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def summary(ds: xr.Dataset, against: str) -> dict[str, Any]:
    """What is kept of a finished sweep: conditions and the effects of every step.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    against : {"previous", "baseline", "step"}
        The control of each point; "step" is the step that a full preset builds on.
    """
    table = _against_steps(ds) if against == STEP else steps(ds, METRICS, against)
    return {
        "replicates": int(ds.sizes["replicate"]),
        "points": int(ds.sizes["point"]),
        "seconds_simulated": float(np.nanmax(ds["time"].values)),
        "wall_s": float(np.nansum(ds["wall_time"].values)),
        "model_version": int(ds.attrs.get("model_version", 0)),
        "steps": [step.data() for step in table],
    }


def _against_steps(ds: xr.Dataset) -> list[Step]:
    names = point_names(ds)
    rows = []
    for full, step in presets.full_presets().items():
        rows += steps(ds.isel(point=[names.index(step), names.index(full)]), METRICS, PREVIOUS)
    return rows


def table_lines(kept: Mapping[str, Any]) -> list[str]:
    """The Markdown table of a summary."""
    names = [effect["metric"] for effect in kept["steps"][0]["effects"] if effect["metric"] in METRICS]
    first, *rest = names
    lines = [
        f"| step | `{first}` | difference | 95 % interval | " + " | ".join(f"`{n}`" for n in rest) + " |",
        "|---" * (4 + len(rest)) + "|",
    ]
    for step in kept["steps"]:
        main, *others = (effect for effect in step["effects"] if effect["metric"] in METRICS)
        own = step["name"] == step["control"]
        clear = _is_clear(main)
        difference = "" if own else f"{main['difference']:+.3g}" + (" \\*" if clear else "")
        interval = "" if own or main["low"] is None else f"{main['low']:+.3g} .. {main['high']:+.3g}"
        cells = [_cell(effect, own) for effect in others]
        lines.append(
            f"| `{step['name']}` | {main['value']:.4g} | {difference} | {interval} | {' | '.join(cells)} |"
        )
    return lines


def _is_clear(effect: Mapping[str, Any]) -> bool:
    """Whether the interval of a difference leaves 0 out."""
    return effect["low"] is not None and (effect["low"] > 0 or effect["high"] < 0)


def findings(kept: Mapping[str, Any]) -> str:
    """A sentence on the steps whose first metric clearly differs, the greatest difference first."""
    effects = {step["name"]: step["effects"][0] for step in kept["steps"] if step["name"] != step["control"]}
    metric = kept["steps"][0]["effects"][0]["metric"]
    clear = {name: effect["difference"] for name, effect in effects.items() if _is_clear(effect)}
    if not clear:
        return f"None of {len(effects)} changes `{metric}` clearly: every interval holds 0."
    shown = [f"`{name}` ({clear[name]:+.3g})" for name in sorted(clear, key=lambda n: -abs(clear[n]))]
    return f"{len(clear)} of {len(effects)} change `{metric}` clearly: {', '.join(shown)}."


def _cell(effect: Mapping[str, Any], own: bool) -> str:
    if effect["value"] is None:
        return "-"
    return f"{effect['value']:.4g}" + ("" if own else f" ({effect['difference']:+.3g})")


def conditions(kept: Mapping[str, Any]) -> str:
    """A sentence on how the numbers came about."""
    return (
        f"Model version {kept['model_version']}. {kept['points']} points, {kept['replicates']} replicates "
        "with the same demand in every point, "
        f"{kept['seconds_simulated']:g} simulated seconds, {kept['wall_s'] / 3600:.2f} core hours in all. A "
        "star marks differences whose interval leaves 0 out, as one in twenty does by chance; those of the "
        "other columns stand in brackets."
    )


__all__: Sequence[str] = (
    "ABLATIONS",
    "Ablation",
    "FULL_LADDER",
    "Step",
    "conditions",
    "findings",
    "full_ladder",
    "leave_one_out",
    "leave_one_out_text",
    "summary",
    "table_lines",
)
