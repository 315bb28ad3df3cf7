"""The section of docs/calibration.md on what a slab shrink brings back, from scripts/slab_measured's numbers.

Owns its words, its tables and the curve of objects freed against pages that came back.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

COUNTS = ("objects", "pages", "all_objects", "all_pages")
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)  # of the objects, freed


def section(raw: Mapping[str, Any]) -> list[str]:
    """Its lines."""
    disk = raw["places"]["disk"]
    return [
        "## What a slab shrink brings back",
        "",
        _filled(
            f"""`scripts/slab_measured run` makes {raw["files"]:,} empty files, 100 to a folder, looks each up
            once, and has the kernel shrink dentries and inodes: all that nobody uses (`vm.drop_caches` 2), or
            what reclaim takes while page cache fills memory. Counted in /proc/slabinfo; kernel
            {raw["kernel"]}; one run. Caches hold what others use, too, and tmpfs uses all that it has.
            *Packed* is what an object takes of a full slab. The files lie in the order in which they were
            made, which suits slabs; a tree that grew for months was not measured, nor which share of
            objects a first look finds referenced."""
        ),
        "",
        "| tree on | shrunk by | cache | dentries per inode | objects freed | share kept | pages per object "
        "| packed |",
        "|---|---|---|---|---|---|---|---|",
        *(
            line
            for place, told in raw["places"].items()
            for line in _rows(place, "drop_caches", told["made"], told["dropped"])
        ),
        *_rows("disk", "page cache", disk["made"], disk["pressed"][-1]),
        "",
        _filled(
            """Only an empty slab comes back. By the share of the objects of both caches that page cache had
            pushed out: the share of their pages that had come back by then, recorded, and simulated with
            `slab.age_correlation` as the head says. `-`: not reached."""
        ),
        "",
        "| objects freed | recorded | " + " | ".join(raw["simulated"]) + " |",
        "|---" * (2 + len(raw["simulated"])) + "|",
        *_curve(raw),
        "",
        _filled(
            f"""Of the values simulated {_nearest(raw)} is nearest to what was recorded, by the mean distance
            over these rows. The value of the machine file stays assumed: its trees are not this one."""
        ),
        "",
    ]


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 118, break_on_hyphens=False)


def _rows(place: str, way: str, made: Mapping[str, Any], freed: Mapping[str, Any]) -> list[str]:
    names = list(freed)
    per_inode = made[names[0]]["objects"] / made[names[1]]["objects"]
    lines = []
    for name in names:
        row = freed[name]
        per_object = row["pages"] / row["objects"] if row["objects"] > 0 else None
        lines.append(
            f"| {place} | {way} | {name} | {per_inode:.3f} | {max(row['objects'], 0):,} | "
            f"{min(row['kept_objects'], 1.0):.1%} | {'-' if per_object is None else f'{per_object:.4f}'} | "
            f"{row['pages_packed']:.4f} |"
        )
    return lines


def shares_of(looks: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """By look: shares of the objects freed, and of the pages that came back, of all caches together."""
    out = []
    for look in looks:
        objects, pages, all_objects, all_pages = (
            sum(row[what] for row in look.values())
            for what in ("objects", "pages", "all_objects", "all_pages")
        )
        out.append([objects / all_objects, pages / all_pages])
    return out


def at_share(rows: Sequence[Sequence[float]], share: float) -> float | None:
    """Pages that came back when `share` of the objects was freed, between two looks; None outside of them."""
    below = [row for row in rows if row[0] <= share]
    above = [row for row in rows if row[0] >= share]
    if not below or not above:
        return None
    (x0, y0), (x1, y1) = max(below), min(above)
    return y0 if x1 == x0 else y0 + (y1 - y0) * (share - x0) / (x1 - x0)


def _curve(raw: Mapping[str, Any]) -> list[str]:
    columns = [shares_of(raw["places"]["disk"]["pressed"]), *raw["simulated"].values()]
    lines = []
    for share in SHARES:
        values = [at_share(rows, share) for rows in columns]
        if values[0] is not None:
            cells = ["-" if v is None else f"{max(v, 0.0):.1%}" for v in values]
            lines.append(f"| {share:.0%} | " + " | ".join(cells) + " |")
    return lines


def _nearest(raw: Mapping[str, Any]) -> str:
    """The age correlation whose simulated curve is nearest to the recorded one."""
    recorded = shares_of(raw["places"]["disk"]["pressed"])

    def distance(name: str) -> float:
        pairs = [(at_share(recorded, share), at_share(raw["simulated"][name], share)) for share in SHARES]
        apart = [abs(a - b) for a, b in pairs if a is not None and b is not None]
        return sum(apart) / len(apart)

    return str(min(raw["simulated"], key=distance))
