"""pagetypeinfo of simulated zones, as the kernel prints it: of a real machine's start, or of a saved state.

Owns the counting by zone and the form of the table. What is counted are the simulated lists and pageblocks,
never the file that they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.constants import NR_MT, NR_ORDERS, PB_ORDER, PB_PAGES
from spbfast.errors import ResultsError
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.observed.real_zone import KERNEL_TYPES
from spbfast.observed.receipt import Receipt
from spbfast.observed.values import ZONE_NAMES
from spbfast.recordings.real_start import begin_zone, read_machine_files
from spbfast.statefile import read_state_arrays, read_state_head


@dataclass(frozen=True)
class ZoneCounts:
    """Free blocks and pageblocks of one zone.

    Attributes
    ----------
    node : int
    name : str
    free : ndarray
        int64 [order, migratetype].
    pageblocks : ndarray
        int64 [migratetype].
    """

    node: int
    name: str
    free: np.ndarray
    pageblocks: np.ndarray


def counts_at_start(
    files: Sequence[Path], zone: str | None = None, node: int = 0, seed: int = 0, replicate: int = 0
) -> tuple[list[ZoneCounts], tuple[str, ...], Receipt]:
    """Every zone of a real machine at its start under mainline, the file's types, and the receipt.

    Raises
    ------
    DumpError
        When a file cannot be read, or has what the model lacks.
    """
    only = (node, zone) if zone is not None else None
    machine = read_machine_files(files, only)
    found = []
    for real in machine.zones:
        begun = begin_zone(machine, real, policy_array("mainline").copy(), seed=seed, replicate=replicate)
        z = begun.state
        labels = np.bincount(z.pb.label[begun.there], minlength=NR_MT)
        found.append(ZoneCounts(real.node, real.name, _listed(z.area.nr), labels))
    return found, machine.zones[0].types, machine.receipt


def counts_of_state(path: Path, zone: str | None = None) -> list[ZoneCounts]:
    """Every zone of a saved state, or those of one name.

    Raises
    ------
    ResultsError
        When the file is no state file or damaged, or has no such zone.
    """
    head = read_state_head(path)
    arrays = {a["path"]: np.zeros(a["shape"], a["dtype"]) for a in head.arrays}
    read_state_arrays(path, head, arrays)
    nr_nodes = int(head.about["scenario"].get("machine.nodes", 1))
    found: list[ZoneCounts] = []
    while (nr := arrays.get(f"{len(found)}.zone.area.nr")) is not None:
        number = len(found)
        labels = np.bincount(arrays[f"{number}.zone.pb.label"], minlength=NR_MT)
        # Pageblocks without memory are labelled movable.
        total = int(arrays[f"{number}.zone.spb.total"].sum())
        labels[1] -= int(labels.sum()) - total
        node, name = (number, "Normal") if number < nr_nodes else (0, "DMA32")
        found.append(ZoneCounts(node, name, _listed(nr), labels))
    if not found:
        raise ResultsError("holds no zone", path)
    names = list(dict.fromkeys(one.name for one in found))
    if zone is not None and zone not in names:
        raise ResultsError(f"has no zone {zone}; it has {', '.join(names)}", path)
    found = [one for one in found if zone in (None, one.name)]
    return sorted(found, key=lambda c: (c.node, ZONE_NAMES.index(c.name)))


def _listed(nr: np.ndarray) -> np.ndarray:
    """Free blocks by order and type over all superpageblocks: int64 [order, migratetype]."""
    return np.asarray(nr.reshape(-1, NR_ORDERS, NR_MT).sum(axis=0, dtype=np.int64))


def pagetypeinfo_text(zones: Sequence[ZoneCounts], types: Sequence[str] = KERNEL_TYPES) -> str:
    """The table of /proc/pagetypeinfo; a type that the model lacks has no page.

    Source: pagetypeinfo_show and what it calls (mm/vmstat.c).
    """
    numbers = [KERNEL_TYPES.index(name) if name in KERNEL_TYPES else -1 for name in types]
    lines = [f"Page block order: {PB_ORDER}", f"Pages per block:  {PB_PAGES}", ""]
    orders = "".join(f"{order:6d} " for order in range(NR_ORDERS))
    lines.append(f"{'Free pages count per migrate type at order':<43s}{orders}")
    for zone in zones:
        for name, number in zip(types, numbers, strict=True):
            row = zone.free[:, number] if number >= 0 else np.zeros(NR_ORDERS, np.int64)
            counts = "".join(f"{n:6d} " for n in row.tolist())
            lines.append(f"Node {zone.node:4d}, zone {zone.name:>8s}, type {name:>12s} {counts}")
    lines += ["", f"{'Number of blocks type':<23s}{''.join(f'{name:>12s} ' for name in types)}"]
    for zone in zones:
        of_type = [int(zone.pageblocks[number]) if number >= 0 else 0 for number in numbers]
        lines.append(f"Node {zone.node}, zone {zone.name:>8s} {''.join(f'{n:12d} ' for n in of_type)}")
    return "\n".join(lines) + "\n"
