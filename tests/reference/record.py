"""New superpageblock traces: events run on the twin, and what it did written as a golden file.

Owns the writing of files that docs/spec/exact.md B.11 describes. Such a trace pins the rules of that page as
the twin has them; it says nothing about the kernel's own code. docs/howto/golden-trace.md shows it at work.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.policy import Policy
from tests.reference.replay import OP_ALLOC, OP_CONTIG, OP_DEFRAG, OP_EVACUATE, OP_FREE, spb_columns
from tests.reference.spb_state import Event
from tests.reference.spb_workers import CONTIG_MT, SpbZone
from tests.reference.words import MOVABLE, PB_PAGES, TAINTED

INPUTS = ("op", "handle", "order", "mt", "flags", "arg")
RESULTS = ("pfn", "outcome", "visited", "visited_fallback", "requests", "n_defrag")
MOVED = ("moved", "n_same_type", "n_pageblocks")


class Recorder:
    """A twin of a zone whose every event becomes a row of a trace.

    Parameters
    ----------
    switches : mapping
        The policy, complete, by the names of docs/spec/exact.md B.10.
    every : int
        Events between two checkpoints.
    """

    def __init__(
        self,
        switches: dict[str, Any],
        *,
        n_pageblocks: int,
        pageblocks_per_superpageblock: int,
        pin: tuple[int, int] = (0, 0),
        every: int = 5,
    ) -> None:
        self.switches, self.every = switches, every
        self.zone = SpbZone(
            n_pageblocks,
            pageblocks_per_superpageblock,
            Policy.of(switches),
            pin_modulus=pin[0],
            pin_remainder=pin[1],
        )
        self.rows: list[tuple[int, ...]] = []
        self.moves: list[tuple[int, int, int]] = []
        self.held: dict[int, tuple[int, int, int]] = {}  # handle -> pfn, order, type
        self.nr_handles = 0
        self.checkpoints: list[tuple[int, dict[str, np.ndarray]]] = []
        self._look()

    def alloc(self, order: int, mt: int, flags: int = 0) -> int:
        """One ALLOC; the handle, or -1 if no page was found."""
        handle = self._next_handle()
        event = self.zone.alloc(handle, order, mt, flags)
        return self._keep(handle, order, mt, event, (OP_ALLOC, handle, order, mt, flags, -1))

    def free(self, handle: int) -> None:
        """One FREE of what the handle names now."""
        pfn, order, mt = self.held.pop(handle)
        self._add(self.zone.free(pfn), (OP_FREE, handle, order, mt, 0, -1))

    def evacuate(self, mt: int) -> None:
        """One EVACUATE for requests of type `mt`."""
        self._add(self.zone.evacuate(0, mt), (OP_EVACUATE, -1, 0, mt, 0, -1))

    def defrag(self, spb: int) -> None:
        """One DEFRAG of a superpageblock."""
        self._add(self.zone.defrag(spb), (OP_DEFRAG, -1, 0, 0, 0, spb))

    def contig(self) -> int:
        """One CONTIG; the handle, or -1."""
        handle = self._next_handle()
        event = self.zone.contig(handle)
        return self._keep(handle, 0, CONTIG_MT, event, (OP_CONTIG, handle, 0, CONTIG_MT, 0, -1))

    def _next_handle(self) -> int:
        self.nr_handles += 1
        return self.nr_handles - 1

    def _keep(self, handle: int, order: int, mt: int, event: Event, row: tuple[int, ...]) -> int:
        if event.pfn >= 0:
            self.held[handle] = (event.pfn, order, mt)
        self._add(event, row)
        return handle if event.pfn >= 0 else -1

    def _add(self, event: Event, row: tuple[int, ...]) -> None:
        tainted = sum(self.zone.category(spb) == TAINTED for spb in range(self.zone.n_spb))
        results = [getattr(event, name) for name in (*RESULTS, *MOVED)]
        self.moves += [(len(self.rows), handle, pfn) for handle, _, pfn in event.moves]
        for handle, _, pfn in event.moves:
            self.held[handle] = (pfn, self.held[handle][1], MOVABLE)
        self.rows.append((*row, *results, tainted))
        if len(self.rows) % self.every == 0:
            self._look()

    def _look(self) -> None:
        """A checkpoint of the present state, copied."""
        state = {name: np.array(column) for name, column in spb_columns(self.zone).items()}
        self.checkpoints.append((len(self.rows), state))

    def save(self, path: Path, desc: str, stage: str) -> None:
        """Write the trace; `stage` is the preset that the policy is nearest to, such as v1_31."""
        if self.checkpoints[-1][0] != len(self.rows):
            self._look()
        names = (*INPUTS, *RESULTS, *MOVED, "tainted")
        columns = dict(zip(names, np.array(self.rows, dtype=np.int64).T, strict=True))
        moves = np.array(self.moves, dtype=np.int64).reshape(-1, 3)
        columns |= dict(zip(("mv_event", "mv_handle", "mv_pfn"), moves.T, strict=True))
        columns["ck_at"] = np.array([at for at, _ in self.checkpoints])
        for name in self.checkpoints[0][1]:
            columns[f"ck_{name}"] = np.array([state[name] for _, state in self.checkpoints])
        meta = json.dumps(self._meta(path.stem, desc, stage))
        np.savez_compressed(path, meta=np.array(meta), **{k: _narrow(v) for k, v in columns.items()})

    def _meta(self, name: str, desc: str, stage: str) -> dict[str, Any]:
        zone = self.zone
        outcomes = Counter(row[len(INPUTS) + 1] for row in self.rows if row[0] in (OP_ALLOC, OP_CONTIG))
        return {
            "name": name,
            "desc": desc,
            "stage": stage,
            "policy": self.switches,
            "n_pageblocks": zone.n_pb,
            "pageblocks_per_superpageblock": zone.per_spb,
            "n_superpageblocks": zone.n_spb,
            "zone_pages": zone.n_pb * PB_PAGES,
            "n_events": len(self.rows),
            "n_handles": self.nr_handles,
            "n_checkpoints": len(self.checkpoints),
            "pin_modulus": zone.pin_modulus,
            "pin_remainder": zone.pin_remainder,
            "outcome_counts": {str(code): outcomes[code] for code in sorted(outcomes)},
            "n_moves": len(self.moves),
        }


def _narrow(values: np.ndarray) -> np.ndarray:
    """The smallest signed dtype that holds the values; list hashes stay uint64."""
    if values.dtype == np.uint64:
        return values
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    kinds = (np.int8, np.int16, np.int32, np.int64)
    return values.astype(next(k for k in kinds if np.iinfo(k).min <= least and most <= np.iinfo(k).max))
