"""A machine at one moment, saved to a file and continued from it.

Owns which arrays make up that moment, what the two scenarios must have in common, and which policy switches
may differ. What a scenario fixes (configuration of nodes and actors, zonelists) is not in the file: it comes
from the scenario that continues. statefile.py owns the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spbfast.config.branch import SHAPING_SWITCHES
from spbfast.config.units import format_duration
from spbfast.constants import NS_PER_TICK, P
from spbfast.errors import InvariantError, ResultsError
from spbfast.model.holders.check_slab import check_slab
from spbfast.model.lowering.lower_machine import Lowered
from spbfast.model.lowering.lower_policy import parameters
from spbfast.model.state.check import check_zone
from spbfast.model.state.compact_layout import check_compaction
from spbfast.model.state.node import Now
from spbfast.model.state.sample_layout import Samples
from spbfast.statefile import StateHead, read_state_arrays, read_state_head, write_state_file

if TYPE_CHECKING:
    from spbfast.config.models import Scenario, StartSpec

# Fixed by the scenario; a profile; or a record that nothing depends on.
NOT_SAVED = {
    "node.conf",
    "node.zonelist",
    "node.pins",
    "node.cycles",
    "node.picked",  # empty between two events
    "node.places",
    "zone.page.low",  # a view of zone.page.word, as is
    "zone.page.high",
    "zone.trace",
    "zone.slots.base",
    "zone.slots.size",
    "zone.slots.paged",
    "zone.slots.anon",
    "zone.slots.rings",  # node.cache once more
}

SHOWN = 5
_checked: set[tuple[str, str]] = set()  # states that this process has recounted


class Origin(NamedTuple):
    """What numbers follow from beside the scenario."""

    model_version: int
    seed: int
    replicate: int


@dataclass(frozen=True)
class SavedState:
    """A run at the moment between two ticks; it must be written before the run goes on."""

    run: Lowered
    samples: tuple[Samples, ...]
    scenario: Scenario
    origin: Origin

    @property
    def tick(self) -> int:
        """Ticks that are done."""
        return int(self.run.world.node.now[Now.TICK])

    def write(self, path: Path, note: Mapping[str, Any] | None = None) -> str:
        """Write the state to a file that is not there yet; the digest of its content.

        `note` is what the writer wants to find in the file's head again.
        """
        nr = int(self.run.world.node.now[Now.NR_SAMPLES])
        about = {
            **self.origin._asdict(),
            "tick": self.tick,
            "samples": nr,
            "snapshots": self.samples[0].spb.shape[0] > 0,
            "scenario": shared_leaves(self.scenario),
            "policy": parameters(self.scenario.policy),
            "reserve": bool(self.run.policy[P.highatomic_reserve]),
            **({} if note is None else {"note": dict(note)}),
        }
        return write_state_file(path, about, state_arrays(self.run, self.samples, nr, about["snapshots"]))


def _leaves_below(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = list(items)
    if not found:
        yield path, tree
    for key, value in found:
        yield from _leaves_below(value, f"{path}.{key}" if path else str(key))


def shared_leaves(scenario: Scenario) -> dict[str, Any]:
    """What two runs must agree on to share a state, by dotted path: all but policy, duration and begin."""
    tree = scenario.canonical()
    for key in ("policy", "duration", "start", "branch", "ask_1g_every"):
        tree.pop(key, None)
    return dict(_leaves_below(tree, ""))


def _named_arrays(part: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    if path in NOT_SAVED:
        return
    if isinstance(part, np.ndarray):
        yield path, part
    for name in getattr(part, "_fields", ()):
        yield from _named_arrays(getattr(part, name), f"{path}.{name}" if path else name)


def state_arrays(
    run: Lowered, samples: tuple[Samples, ...], nr_samples: int, snapshots: bool
) -> dict[str, np.ndarray]:
    """Everything that changes as a run goes on, by name; of the samples the first `nr_samples`."""
    out = {"actors.state": run.actors.state}
    for i, world in enumerate(run.worlds):
        out |= {f"{i}.{name}": array for name, array in _named_arrays(world, "")}
    for i, taken in enumerate(samples):
        for name, rows in taken._asdict().items():
            if name != "spb" or snapshots:
                out[f"{i}.samples.{name}"] = rows[:nr_samples]
    return out


def restore(
    run: Lowered,
    samples: tuple[Samples, ...],
    scenario: Scenario,
    origin: Origin,
    start: StartSpec,
    *,
    recount: bool = True,
) -> None:
    """Bring an unbooted run to the moment of a state file.

    Parameters
    ----------
    start : StartSpec
        The file, and the digest that it must have, if any.
    recount : bool
        Check the state against itself. Checksums find damage in any case; this finds states that were never
        right, which a sweep need not suspect in files that it has written itself.

    Raises
    ------
    ResultsError
        The file is no state file or damaged, or belongs to another machine, seed or version.
    """
    path = Path(start.state)
    head = read_state_head(path)
    _check_version(path, head, start, origin)
    _check_belongs(path, head, samples, scenario, origin)
    snapshots = samples[0].spb.shape[0] > 0
    into = state_arrays(run, samples, head.about["samples"], head.about["snapshots"])
    if head.about["snapshots"] and not snapshots:
        # Nothing will be made of them.
        room = {a["path"]: np.zeros(a["shape"], a["dtype"]) for a in head.arrays if _is_snapshot(a["path"])}
        into |= room
    read_state_arrays(path, head, into)
    # Tables of a machine may have turned it on, whatever the policy says (recordings/real_start.py).
    run.policy[P.highatomic_reserve] |= head.about.get("reserve", False)
    if recount:
        _recount_once(path, head, run)


def _is_snapshot(name: str) -> bool:
    return name.endswith(".samples.spb")


def _check_belongs(
    path: Path, head: StateHead, samples: tuple[Samples, ...], scenario: Scenario, origin: Origin
) -> None:
    """Refuse what cannot be continued, by name."""
    own = {"seed": origin.seed, "replicate": origin.replicate} | shared_leaves(scenario)
    held = {"seed": head.about["seed"], "replicate": head.about["replicate"]} | head.about["scenario"]
    hint = "; give the job the file's values, or save a state of this job"
    _refuse(path, held, own, hint, "is the state of another machine")
    _check_switches(path, head.about["policy"], parameters(scenario.policy))
    at = head.about["tick"] * NS_PER_TICK
    if scenario.duration < at:
        raise ResultsError(
            f"is a state at {format_duration(at)}, but duration is {format_duration(scenario.duration)}; "
            "it counts from the end of boot and must reach at least there",
            path,
        )
    if samples[0].spb.shape[0] > 0 and not head.about["snapshots"]:
        raise ResultsError(
            "has no samples of single superpageblocks, which output.level spb needs; "
            "save it with output.level=spb, or use level series",
            path,
        )


def _check_version(path: Path, head: StateHead, start: StartSpec, origin: Origin) -> None:
    version = head.about["model_version"]
    if version != origin.model_version:
        raise ResultsError(
            f"was saved by model version {version} and this is version {origin.model_version}; "
            "save it again with this version of spbfast",
            path,
        )
    if start.digest not in (None, head.digest):
        raise ResultsError(
            f"has digest {head.digest}, the job wants {start.digest}; the file was replaced", path
        )


def _check_switches(path: Path, held: Mapping[str, int], own: Mapping[str, int]) -> None:
    """Switches that shape a state must have the values that it was made with."""
    differing = [key for key in SHAPING_SWITCHES if held[key] != own[key]]
    reasons = "".join(f"; {key}: {SHAPING_SWITCHES[key]}" for key in differing)
    hint = f"; a saved state cannot change these switches{reasons}"
    shaping = [{f"policy.{key}": side[key] for key in differing} for side in (held, own)]
    _refuse(path, shaping[0], shaping[1], hint, "was saved under another policy")


def _refuse(path: Path, held: Mapping[str, Any], own: Mapping[str, Any], hint: str, what: str) -> None:
    """One error for all keys whose values differ, the first ones named."""
    missing = "(absent)"
    keys = [k for k in dict.fromkeys([*held, *own]) if held.get(k, missing) != own.get(k, missing)]
    if not keys:
        return
    named = [
        f"{k} is {held.get(k, missing)} in the file and {own.get(k, missing)} in the job"
        for k in keys[:SHOWN]
    ]
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    raise ResultsError(f"{what}: {', '.join(named)}{more}{hint}", path)


def _recount_once(path: Path, head: StateHead, run: Lowered) -> None:
    """Recount the state, once in a process for a file: its content and the shaping switches are the same."""
    known = (head.digest, str(path))
    if known in _checked:
        return
    try:
        for world in run.worlds:
            check_zone(world.zone, run.policy)
            check_compaction(world.node.compact, world.node.skip, world.zone.geo)
            check_slab(world.slab, world.zone)
    except InvariantError as error:
        raise ResultsError(f"holds a state that is not consistent: {error}; save it again", path) from error
    _checked.add(known)
