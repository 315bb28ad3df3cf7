"""A film: what every pageblock of a machine held, frame by frame, with counts beside it.

Owns the form of a film and the recording of one while a run is simulated. The run is the one that any other
command makes: it is only looked at between ticks. Never touches files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spbfast.constants import NS_PER_TICK
from spbfast.errors import QuestionError
from spbfast.model.engine import ReplicateResult, run_replicate
from spbfast.model.state.contents import absent_pageblocks, read_contents
from spbfast.model.state.node import Now

if TYPE_CHECKING:
    from spbfast.config.models import Scenario
    from spbfast.model.lowering.lower_machine import Lowered

MOST_FRAMES, FEW_FRAMES, USUAL_FRAMES = 480, 100, 240
SPB_COLUMNS = ("category", "free_pages", "free", "pinned_pages", "unmovable", "movable", "reclaimable")
GAUGES = ("spb_tainted", "spb_clean", "spb_empty", "contig_1g_held", "free_pages_stranded_in_tainted")


@dataclass(frozen=True)
class FilmZone:
    """A zone of the machine: its name, first page frame, superpageblocks, and pageblocks in each."""

    name: str
    first_pfn: int
    nr_spb: int
    per_spb: int


@dataclass(frozen=True)
class Film:
    """What a map plays.

    Attributes
    ----------
    title : str
        One line that names the run.
    facts : list of (str, str)
        What it was made from.
    times : float64 [frames]
        Seconds since boot.
    what, room : uint8 [frames, pageblocks]
        The two bytes of every pageblock of all zones, one zone after the other (tiles/pageblocks.py).
    spbs : dict of int32 [frames, superpageblocks]
        By `SPB_COLUMNS`; -1 where it is not known.
    gauges, counters : dict of float64 [frames]
        Output variables at these moments; counters since the end of boot.
    views : tuple of str
        What tiles can be coloured by.
    notes : list of str
        Sentences on what the film does not hold.
    kind_names : dict of str to str
        Names of kinds that mean something else in this film.
    """

    title: str
    zones: list[FilmZone]
    times: np.ndarray
    what: np.ndarray
    room: np.ndarray
    spbs: dict[str, np.ndarray]
    facts: list[tuple[str, str]] = field(default_factory=list)
    gauges: dict[str, np.ndarray] = field(default_factory=dict)
    counters: dict[str, np.ndarray] = field(default_factory=dict)
    views: tuple[str, ...] = ("content", "label", "free", "stranded", "pinned", "marks")
    notes: list[str] = field(default_factory=list)
    kind_names: dict[str, str] = field(default_factory=dict)

    @property
    def nr_frames(self) -> int:
        """Moments that it shows."""
        return len(self.times)

    @property
    def nr_spb(self) -> int:
        """Superpageblocks of all zones."""
        return sum(zone.nr_spb for zone in self.zones)


@dataclass
class _Camera:
    """Takes frames of a machine while it runs."""

    nr_wanted: int
    say: Callable[[int, int], object]
    absent: list[np.ndarray] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    what: list[np.ndarray] = field(default_factory=list)
    room: list[np.ndarray] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    bases: tuple[int, ...] = ()

    def take(self, run: Lowered) -> None:
        zones = [world.zone for world in run.worlds]
        if not self.absent:
            self.absent = [absent_pageblocks(zone) for zone in zones]
            self.shapes = [(int(zone.geo.nr_spb), int(zone.geo.nr_pb // zone.geo.nr_spb)) for zone in zones]
            self.bases = run.bases
        seen = [read_contents(zone, absent) for zone, absent in zip(zones, self.absent, strict=True)]
        self.what.append(np.concatenate([one.what for one in seen]))
        self.room.append(np.concatenate([one.room for one in seen]))
        self.ticks.append(int(run.world.node.now[Now.TICK]))
        self.say(len(self.ticks), self.nr_wanted)


def film_scenario(scenario: Scenario, every: int | None = None) -> Scenario:
    """The scenario with samples as far apart as frames shall be; the machine does the same in any case.

    Parameters
    ----------
    every : int, optional
        Nanoseconds between frames; by default those between samples, or less where they are few.
    """
    if every is None:
        few = scenario.duration < FEW_FRAMES * scenario.output_every
        step = max(scenario.duration // USUAL_FRAMES // NS_PER_TICK, 1) * NS_PER_TICK
        every = step if few else scenario.output_every
    return scenario.model_copy(update={"output_every": every})


def frame_ticks(scenario: Scenario, most: int = MOST_FRAMES) -> list[int]:
    """Ticks of the samples of a scenario, thinned to at most `most` and one at the end."""
    end = scenario.duration // NS_PER_TICK
    nr = scenario.duration // scenario.output_every
    step = -(-nr // most)
    ticks = [-(-k * scenario.output_every // NS_PER_TICK) for k in range(0, nr + 1, step)]
    return ticks if ticks[-1] == end else [*ticks, end]


def check_frame(frame: int, nr: int) -> None:
    """Ask for a frame of a film of `nr`; -1 is the last.

    Raises
    ------
    QuestionError
        When there is no such frame.
    """
    if not -nr <= frame < nr:
        raise QuestionError(f"there is no frame {frame}; there are 0 to {nr - 1}")


def record_film(
    scenario: Scenario,
    seed: int,
    replicate: int = 0,
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    every: int | None = None,
    frame: int = -1,
    say: Callable[[int, int], object] = lambda done, wanted: None,
) -> Film:
    """Simulate one replicate and film it.

    Parameters
    ----------
    scenario : Scenario
        A validated scenario.
    title : str
        One line that names the run.
    facts : sequence of (str, str)
        What it was made from.
    every : int, optional
        Nanoseconds between frames, as for `film_scenario`.
    frame : int
        One that the film must have, or nothing is simulated.
    say : callable, optional
        Told after each frame how many are done, of how many.

    Raises
    ------
    QuestionError
        The film would have fewer frames.
    SimulationError
        A kernel gave up.
    """
    scenario = film_scenario(scenario, every)
    ticks = frame_ticks(scenario)
    check_frame(frame, len(ticks))
    camera = _Camera(len(ticks), say)
    result = run_replicate(scenario, seed, replicate, snapshots=True, frames=(ticks, camera.take))
    return _developed(camera, result, scenario, title, list(facts))


def _developed(
    camera: _Camera, result: ReplicateResult, scenario: Scenario, title: str, facts: list[tuple[str, str]]
) -> Film:
    """Frames and the samples of the same moments as one film."""
    times = np.array(camera.ticks) * (NS_PER_TICK / 1e9)
    at = np.searchsorted(result.coords["time"], times - 1e-9).clip(max=len(result.coords["time"]) - 1)
    shapes = scenario.machine.zones()
    zones = [
        FilmZone(shape.name, base, *size)
        for shape, base, size in zip(shapes, camera.bases, camera.shapes, strict=True)
    ]
    names = [str(name) for name in result.coords["counter"]]
    vmstat = result.data["vmstat"][:, at].astype(float)
    return Film(
        title=title,
        zones=zones,
        times=times,
        what=np.stack(camera.what),
        room=np.stack(camera.room),
        spbs=spb_columns(result.data, [zone.nr_spb for zone in zones], at),
        facts=facts,
        gauges=gauges_at(result.data, at),
        counters=dict(zip(names, vmstat, strict=True)),
    )


def spb_columns(data: Mapping[str, Any], nr_spb: Sequence[int], at: Any) -> dict[str, np.ndarray]:
    """Snapshots of superpageblocks at some samples, zones one after the other, as films hold them."""

    def joined(values: Any) -> np.ndarray:
        own = np.asarray(values)
        parts = [own[zone, :nr, :][:, at] for zone, nr in enumerate(nr_spb)]
        return np.concatenate(parts).T.astype(np.int32)

    content = np.asarray(data["spb_content"])
    given = {name: data[f"spb_{name}"] for name in ("category", "free_pages", "free", "pinned_pages")}
    given |= {"unmovable": content[0], "movable": content[1], "reclaimable": content[2]}
    return {name: joined(given[name]) for name in SPB_COLUMNS}


def gauges_at(data: Mapping[str, Any], at: Any) -> dict[str, np.ndarray]:
    """Output variables over time that the strip below the map shows."""
    found = {name: np.asarray(data[name])[at].astype(float) for name in GAUGES if name in data}
    if "free_pages" in data:
        found["free_pages"] = np.asarray(data["free_pages"]).sum(axis=0)[at].astype(float)
    return found
