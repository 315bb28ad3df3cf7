"""From a golden file to a zone: geometry, policy, boot, and whether its events can be run at all.

Owns what a file must say before it is replayed, and the words for one of its events.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spbfast.constants import MAX_ORDER, PB_ORDER, PB_PAGES, AllocFlag, Mt, P
from spbfast.errors import TraceError
from spbfast.model.loop.replay import BULK_FIRST, BULK_NEXT, CONTIG, DEFRAG, FREE, boot_cma, boot_zone
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf, ZoneSpec, boot_chunks, build_zone
from spbfast.model.state.layout import ZoneState
from spbfast.verify.golden import Golden
from spbfast.verify.switches import switch_array

EXIT_UNSUPPORTED = 3
OP_NAMES = ("ALLOC", "FREE", "BULK-first", "BULK-next", "DRAIN", "DECAY", "EVACUATE", "DEFRAG", "CONTIG")
SPARE_RECORDS = 16  # room to see that more was recorded than the file has


class UnsupportedError(TraceError):
    """A trace that needs a switch or a geometry that this version does not have."""

    exit_code = EXIT_UNSUPPORTED


def booted_zone(golden: Golden) -> tuple[ZoneState, np.ndarray]:
    """A file's zone just after boot, and its policy as kernels take it.

    Raises
    ------
    UnsupportedError
        The file needs a switch or geometry that does not exist.
    TraceError
        Rows of the file make no sense.
    """
    policy = _policy(golden)
    try:
        z, _ = build_zone(_spec(golden))
    except ValueError as error:
        raise UnsupportedError(f"unsupported: {error}", golden.path) from error
    _check_rows(golden, z.geo.nr_spb)
    _boot(golden, z, policy)
    return z, policy


def _check_rows(golden: Golden, nr_spb: int) -> None:
    """Refuse rows that would lead the kernels out of their arrays."""
    op, order, mt = (golden[name] for name in ("op", "order", "mt"))
    mainline = golden.kind == "mainline"
    ops = range(6) if mainline else (0, 1, 6, 7, 8)
    top = np.where(op == CONTIG, Mt.HIGHATOMIC, Mt.RECLAIMABLE)
    named = np.isin(op, (0, FREE, BULK_FIRST, BULK_NEXT, CONTIG))
    wrong = ~np.isin(op, ops) | (order < 0) | (order > MAX_ORDER) | (mt < 0)
    wrong |= (mt > top) & (op != FREE)
    wrong |= named & (golden["handle"] < 0)
    if not mainline:
        wrong |= (op == DEFRAG) & ((golden["arg"] < 0) | (golden["arg"] >= nr_spb))
    elif golden.meta["pcp"] is None:
        wrong |= np.isin(op, (4, 5))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TraceError(f"not an event of this kind of trace: {event_text(golden, row)}", golden.path, row)
    at = golden["ck_at"]
    if at.size and (at[0] < 0 or at[-1] > len(op) or (np.diff(at) < 0).any()):
        raise TraceError("'ck_at' must ascend within the events", golden.path)


def event_text(golden: Golden, row: int) -> str:
    op = int(golden["op"][row])
    name = OP_NAMES[op] if 0 <= op < len(OP_NAMES) else f"op {op}"
    parts = [f"{c} {golden[c][row]}" for c in ("handle", "order", "mt") if c in golden.arrays]
    parts.append(f"flags {_flag_text(int(golden['flags'][row]))}")
    if "arg" in golden.arrays and golden["arg"][row] >= 0:
        parts.append(f"arg {golden['arg'][row]}")
    return f"{name} {' '.join(parts)}"


def _flag_text(flags: int) -> str:
    names = [flag.name for flag in AllocFlag if flags & flag]
    return "|".join(str(n) for n in names) or f"{flags:#x}"


def _spec(golden: Golden) -> ZoneSpec:
    meta = golden.meta
    slots = (int(golden["handle"].max(initial=-1)) + 1,)
    if golden.kind == "spb":
        return ZoneSpec(
            zone_pages=int(meta["n_pageblocks"]) << PB_ORDER,
            start_pfn=0,
            spb_pb=int(meta["pageblocks_per_superpageblock"]),
            superpageblocks=True,
            owner_slots=slots,
            nr_records=len(golden["mv_event"]) + SPARE_RECORDS,
        )
    pcp = meta["pcp"]
    return ZoneSpec(
        zone_pages=int(meta["zone_pages"]),
        start_pfn=int(meta["zone_start_pfn"]),
        nr_cpus=1 if pcp else 0,
        pcp=PcpConf(*(int(pcp[k]) for k in ("batch", "high_min", "high_max", "flags"))) if pcp else None,
        cma=bool(meta["cma"]),
        owner_slots=slots,
        nr_records=len(golden["xf_event"]) + SPARE_RECORDS if "xf_event" in golden.arrays else 0,
    )


def _policy(golden: Golden) -> np.ndarray:
    if golden.kind == "mainline":
        return policy_array("mainline")
    switches = golden.meta["policy"]
    if not isinstance(switches, Mapping):
        raise TraceError("'policy' in meta must be an object of switches", golden.path)
    for key in switches:
        if key not in P.__members__:
            raise UnsupportedError(f"unsupported: {key}", golden.path)
    return switch_array(switches)


def _boot(golden: Golden, z: ZoneState, policy: np.ndarray) -> None:
    lo, hi = z.geo.lo, z.geo.hi
    cma = golden.meta.get("cma")
    if not cma:
        boot_zone(z, policy, boot_chunks(z, lo, hi))
        return
    # The file counts from the first pageblock that lies wholly in the zone.
    first, nr = -(-lo // PB_PAGES) + int(cma["first_pageblock"]), int(cma["n_pageblocks"])
    end = first + nr
    if not lo <= first << PB_ORDER < end << PB_ORDER <= hi:
        raise TraceError(f"'cma' in meta, {cma}, does not lie in the zone", golden.path)
    chunks = boot_chunks(z, lo, first << PB_ORDER), boot_chunks(z, end << PB_ORDER, hi)
    boot_zone(z, policy, np.concatenate(chunks))
    boot_cma(z, policy, first, nr)
