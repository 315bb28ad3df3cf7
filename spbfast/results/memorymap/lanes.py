"""The strip below a map: counts and events over time, lane by lane.

Owns which series share a lane, their colours and words. A lane in which nothing ever happened is named, not
drawn. Counters become events per frame here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spbfast.constants import PAGE_SIZE
from spbfast.results.memorymap.films import Film

GIB_PAGES = (1 << 30) // PAGE_SIZE
MOST_CAUSES = 5
CALLERS = ("taints_by_atomic", "taints_by_optional", "taints_by_blocking")
# Strong on white and on black; Okabe and Ito's hues.
HUES = ("#d55e00", "#0080c4", "#009e73", "#c060a0", "#d09000", "#7a7f87")


@dataclass(frozen=True)
class Lane:
    """A row of the strip.

    Attributes
    ----------
    form : str
        ``area`` for levels that add up to a whole, ``bars`` for events in each frame, ``line`` for levels.
    series : list of (name, colour, values)
        Values: one a frame.
    silence : str
        What is said never to have happened where the lane is empty; the title by default.
    """

    title: str
    unit: str
    form: str
    series: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    silence: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether nothing ever happened."""
        return not any(values.any() for _, _, values in self.series)

    def data(self) -> dict[str, Any]:
        """For the page."""
        drawn = [(n, c, v) for n, c, v in self.series if v.any() or self.form != "bars"]
        series = [{"name": n, "color": c, "values": _short(v)} for n, c, v in drawn]
        return {"title": self.title, "unit": self.unit, "form": self.form, "series": series}


def _short(values: np.ndarray) -> list[float]:
    rounded = np.round(np.nan_to_num(values), 3)
    return [int(v) if v == int(v) else v for v in rounded.tolist()]


def per_frame(cumulative: np.ndarray) -> np.ndarray:
    """Events since the frame before; none in the first."""
    return np.diff(cumulative, prepend=cumulative[:1])


def lanes_of(film: Film) -> tuple[list[Lane], list[str]]:
    """Lanes in which something happened, and what the others would have shown."""
    made = [lane for make in _MAKERS if (lane := make(film)) is not None]
    return [lane for lane in made if not lane.is_silent], [
        lane.silence or lane.title for lane in made if lane.is_silent
    ]


def _superpageblocks(film: Film) -> Lane | None:
    names = {"spb_tainted": "tainted", "spb_clean": "clean", "spb_empty": "empty"}
    return _levels(film, "superpageblocks", "", "area", names, ("#d55e00", "#4a9fd8", "#9aa3ad"))


def _memory(film: Film) -> Lane | None:
    names = {"free_pages": "free", "free_pages_stranded_in_tainted": "of it stranded in tainted ones"}
    return _levels(film, "free memory", "GiB", "line", names, ("#0080c4", "#d55e00"), GIB_PAGES)


def _gigantic(film: Film) -> Lane | None:
    return _levels(film, "gigantic pages held", "", "line", {"contig_1g_held": "held"}, ("#d09000",))


def _levels(
    film: Film,
    title: str,
    unit: str,
    form: str,
    names: dict[str, str],
    colours: Sequence[str],
    divisor: float = 1,
) -> Lane | None:
    found = [
        (label, colour, film.gauges[name] / divisor)
        for (name, label), colour in zip(names.items(), colours, strict=True)
        if name in film.gauges
    ]
    return Lane(title, unit, form, found) if found else None


def _events(title: str, names: dict[str, str], unit: str = "") -> Callable[[Film], Lane | None]:
    """A lane of counters that are known by name."""

    def make(film: Film) -> Lane | None:
        series = [
            (label, HUES[i % len(HUES)], per_frame(film.counters[name]))
            for i, (name, label) in enumerate(names.items())
            if name in film.counters
        ]
        return Lane(title, unit, "bars", series) if series else None

    return make


def _causes(title: str, prefix: str, silence: str) -> Callable[[Film], Lane | None]:
    """A lane of all counters of a family: the largest by name, the others together."""

    def make(film: Film) -> Lane | None:
        names = [n for n in film.counters if n.startswith(prefix) and n not in CALLERS]
        if not names:
            return None
        names.sort(key=lambda name: -film.counters[name][-1])
        kept, rest = names[:MOST_CAUSES], names[MOST_CAUSES:]
        series = [
            (name.removeprefix(prefix).replace("_", " "), HUES[i], per_frame(film.counters[name]))
            for i, name in enumerate(kept)
        ]
        if rest:
            total = np.sum([film.counters[name] for name in rest], axis=0)
            series.append(("others", HUES[-1], per_frame(total)))
        return Lane(title, "", "bars", series, silence)

    return make


_MAKERS: tuple[Callable[[Film], Lane | None], ...] = (
    _superpageblocks,
    _causes("tainted by", "taints_", "taints"),
    _causes("un-tainted by", "untaints_", "un-taints"),
    _events("slab shrink", {"spb_slab_shrink_ran": "runs", "spb_slab_shrink_pageblocks": "pageblocks freed"}),
    _events(
        "pages moved by",
        {
            "spb_evac_pages": "evacuation",
            "claim_evac_pages": "evacuation of claimed pageblocks",
            "spb_defrag_pages": "defragmentation",
            "spb_compact_pages": "compaction inside superpageblocks",
            "contig_pages_migrated": "gigantic pages",
        },
    ),
    _gigantic,
    _events("requests for gigantic pages", {"contig_alloc_success": "served", "contig_alloc_fail": "failed"}),
    _events(
        "failed requests",
        {
            "alloc_failed_blocking": "of callers that can block",
            "alloc_failed_atomic": "atomic",
            "alloc_failed_optional": "optional",
        },
    ),
    _memory,
)
