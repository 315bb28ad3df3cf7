"""Replay of golden files against the reference twin, with every column compared.

Owns the translation from file rows to verbs of the twin and the naming of the first difference.  A
`Difference` says file, place, expected and found; a replay that returns agrees with the whole file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spbfast.verify.golden import Golden
from tests.reference.buddy import BuddyZone
from tests.reference.pcp import Pcp
from tests.reference.policy import Policy
from tests.reference.shrink import Run, Shrinker, ShrinkWorld
from tests.reference.spb_state import Event
from tests.reference.spb_workers import SpbZone
from tests.reference.words import (
    MAX_ORDER,
    NR_ORDERS,
    PB_ORDER,
    TAINTED,
    list_hash,
)

OP_ALLOC, OP_FREE, OP_BULK_FIRST, OP_BULK_NEXT, OP_DRAIN, OP_DECAY = range(6)
OP_EVACUATE, OP_DEFRAG, OP_CONTIG = 6, 7, 8
OP_QUEUE, OP_BEGIN, OP_END, OP_OBJS = range(4)


class Difference(AssertionError):  # noqa: N818 - a finding about the twin, not a program error
    """The twin and the file disagree; the first place where they do."""


def expect(golden: Golden, where: str, expected: Any, found: Any) -> None:
    if not np.array_equal(expected, found):
        raise Difference(f"{golden.name}: {where}: file has {expected}, twin has {found}")


def replay(golden: Golden) -> Any:
    """Replay any golden file; returns the twin in its final state."""
    if golden.kind == "shrink":
        return replay_shrink(golden)
    return replay_spb(golden) if golden.kind == "spb" else replay_mainline(golden)


def checkpoints_by_event(golden: Golden) -> dict[int, list[int]]:
    """Checkpoint indices for each number of executed events."""
    due: dict[int, list[int]] = {}
    for k, at in enumerate(golden["ck_at"].tolist()):
        due.setdefault(at, []).append(k)
    return due


# -- mainline -----------------------------------------------------------------------------------


def build_mainline(golden: Golden) -> tuple[BuddyZone, Pcp | None]:
    meta = golden.meta
    cma = meta["cma"] and (meta["cma"]["first_pageblock"], meta["cma"]["n_pageblocks"])
    zone = BuddyZone(
        meta["zone_pages"], meta["zone_start_pfn"], nr_types=meta["n_migratetypes"], cma=cma or None
    )
    return zone, Pcp(zone, **meta["pcp"]) if meta["level"] == "pcp" else None


def replay_mainline(golden: Golden) -> BuddyZone | Pcp:
    """Replay a mainline trace at its level, buddy or pcp."""
    zone, pcp = build_mainline(golden)
    ops, handles, orders, mts, flags, pfns = (
        golden[name].tolist() for name in ("op", "handle", "order", "mt", "flags", "pfn")
    )
    due = checkpoints_by_event(golden)
    check_mainline(golden, zone, pcp, due.get(0, []))
    pfn_of: dict[int, int] = {}
    log_rows: list[int] = []
    row, end = 0, len(ops)
    while row < end:
        last = row + 1
        while last < end and ops[last] == OP_BULK_NEXT:
            last += 1
        found = run_mainline_event(
            zone, pcp, ops[row], orders[row], mts[row], flags[row], last - row, pfn_of, handles[row]
        )
        for i, pfn in enumerate(found):
            pfn_of[handles[row + i]] = pfn
        expect(golden, f"pfn of event {row}", [pfn for pfn in pfns[row:last] if pfn != -2], found)
        log_rows += [row] * (len(zone.log) - len(log_rows))
        row = last
        check_mainline(golden, zone, pcp, due.get(row, []))
    check_extfrag(golden, zone, log_rows)
    return pcp or zone


def run_mainline_event(
    zone: BuddyZone,
    pcp: Pcp | None,
    op: int,
    order: int,
    mt: int,
    flags: int,
    rows: int,
    pfn_of: dict[int, int],
    handle: int,
) -> list[int]:
    """Execute one event (a bulk group is one); returns the pages of its rows, none if it's no alloc."""
    target = pcp or zone
    if op == OP_ALLOC:
        return [target.alloc(order, mt, flags)]
    if op == OP_BULK_FIRST:
        return zone.alloc_bulk(order, mt, flags, rows)
    if op == OP_FREE:
        target.free(pfn_of.pop(handle))
    elif pcp is not None and op == OP_DRAIN:
        pcp.drain_all()
    elif pcp is not None and op == OP_DECAY:
        pcp.decay()
    else:
        raise ValueError(f"operation {op} is not one of this level")
    return []


def check_mainline(golden: Golden, zone: BuddyZone, pcp: Pcp | None, due: list[int]) -> None:
    for k in due:
        where = f"checkpoint {k} after event {golden['ck_at'][k]}"
        lists = [
            [zone.lists.relative(0, order, mt) for mt in range(zone.nr_types)] for order in range(NR_ORDERS)
        ]
        check_full_lists(golden, k, lists, pcp)
        expect(golden, f"{where}, list lengths", golden["ck_nr_free"][k], nested(lists, len))
        expect(
            golden, f"{where}, list hashes", golden["ck_list_hash"][k], nested(lists, list_hash, np.uint64)
        )
        expect(golden, f"{where}, labels", golden["ck_pb"][k], zone.lists.label)
        large = sum(zone.nr_free(range(PB_ORDER, MAX_ORDER + 1), mt) for mt in range(zone.nr_types))
        stat = [zone.lists.nr_free_pages[0], large, zone.nr_free_cma(), len(zone.log)]
        expect(golden, f"{where}, statistics", golden["ck_stat"][k], stat)
        if pcp is not None:
            relative = pcp.snapshot()["pcp_lists"]
            hashes = np.array([list_hash(pages) for pages in relative], dtype=np.uint64)
            expect(
                golden, f"{where}, pcp lengths", golden["ck_pcp_len"][k], [len(pages) for pages in relative]
            )
            expect(golden, f"{where}, pcp hashes", golden["ck_pcp_hash"][k], hashes)
            expect(golden, f"{where}, pcp statistics", golden["ck_pcp_stat"][k], pcp.stat())


def check_full_lists(golden: Golden, k: int, lists: list[list[list[int]]], pcp: Pcp | None) -> None:
    """Compare whole lists where the file has them, so that a difference names a page."""
    rows = np.flatnonzero(golden["lst_ck"] == k)
    for row in rows.tolist():
        flat = [pages for by_type in lists for pages in by_type]
        offsets = golden["lst_off"][row].tolist()
        for i, pages in enumerate(flat):
            order, mt = divmod(i, len(lists[0]))
            wanted = golden["lst_pfn"][offsets[i] : offsets[i + 1]]
            expect(golden, f"checkpoint {k}, list of order {order}, type {mt}", wanted, pages)
        if pcp is not None:
            begin = int(golden["ck_pcp_len"][golden["lst_ck"][:row]].sum())
            resting = [pfn for pages in pcp.snapshot()["pcp_lists"] for pfn in pages]
            wanted = golden["lst_pcp_pfn"][begin : begin + len(resting)]
            expect(golden, f"checkpoint {k}, pcp lists", wanted, resting)


def check_extfrag(golden: Golden, zone: BuddyZone, log_rows: list[int]) -> None:
    if "xf_event" not in golden.arrays:
        return
    expect(golden, "rows of the fallback log", golden["xf_event"], log_rows)
    for name in (
        *("pfn", "alloc_order", "fallback_order", "alloc_mt", "fallback_mt"),
        *("change_ownership", "fragmenting"),
    ):
        expect(golden, f"fallback log, {name}", golden[f"xf_{name}"], [getattr(r, name) for r in zone.log])


def nested(lists: list[list[list[int]]], of: Any, dtype: Any = np.int64) -> np.ndarray:
    return np.array([[of(pages) for pages in by_type] for by_type in lists], dtype=dtype)


# -- superpageblocks ----------------------------------------------------------------------------


def replay_spb(golden: Golden) -> SpbZone:
    """Replay a superpageblock trace with the policy that it carries."""
    meta = golden.meta
    zone = SpbZone(
        meta["n_pageblocks"],
        meta["pageblocks_per_superpageblock"],
        Policy.of(meta["policy"]),
        pin_modulus=meta["pin_modulus"],
        pin_remainder=meta["pin_remainder"],
    )
    due = checkpoints_by_event(golden)
    check_spb(golden, zone, due.get(0, []))
    names = ("op", "handle", "order", "mt", "flags", "arg")
    pfn_of: dict[int, int] = {}
    moves: list[tuple[int, int, int]] = []
    wanted_columns = {name: golden[name].tolist() for name in RESULT_COLUMNS}
    for row, args in enumerate(zip(*(golden[name].tolist() for name in names), strict=True)):
        event = run_spb_event(zone, pfn_of, *args)
        if event.pfn >= 0:
            pfn_of[args[1]] = event.pfn
        for handle, _, pfn in event.moves:
            pfn_of[handle] = pfn
            moves.append((row, handle, pfn))
        nr_tainted = sum(zone.category(spb) == TAINTED for spb in range(zone.n_spb))
        for name, wanted in wanted_columns.items():
            found = nr_tainted if name == "tainted" else getattr(event, name)
            if wanted[row] != found:
                expect(golden, f"{name} of event {row}", wanted[row], found)
        check_spb(golden, zone, due.get(row + 1, []))
    wanted_moves = np.stack([golden["mv_event"], golden["mv_handle"], golden["mv_pfn"]], axis=1)
    expect(golden, "migrations", wanted_moves, np.array(moves, dtype=np.int64).reshape(-1, 3))
    return zone


RESULT_COLUMNS = (
    *("pfn", "outcome", "visited", "visited_fallback", "tainted", "requests", "n_defrag"),
    *("moved", "n_same_type", "n_pageblocks"),
)


def run_spb_event(
    zone: SpbZone, pfn_of: dict[int, int], op: int, handle: int, order: int, mt: int, flags: int, arg: int
) -> Event:
    if op == OP_ALLOC:
        return zone.alloc(handle, order, mt, flags)
    if op == OP_FREE:
        return zone.free(pfn_of.pop(handle))
    if op == OP_EVACUATE:
        return zone.evacuate(order, mt)
    if op == OP_DEFRAG:
        return zone.defrag(arg)
    if op == OP_CONTIG:
        return zone.contig(handle)
    raise ValueError(f"operation {op} is not one of superpageblock traces")


def check_spb(golden: Golden, zone: SpbZone, due: list[int]) -> None:
    for k in due:
        where = f"checkpoint {k} after event {golden['ck_at'][k]}"
        for name, found in spb_columns(zone).items():
            expect(golden, f"{where}, {name}", golden[f"ck_{name}"][k], found)


def spb_columns(zone: SpbZone) -> dict[str, Any]:
    """The checkpoint columns of the twin's present state."""
    spbs = range(zone.n_spb)
    used = np.array(zone.used)
    firsts = [zone.pbs_in(spb).start for spb in spbs]
    lists = [
        [[zone.lists.relative(spb, order, mt) for mt in range(3)] for order in range(NR_ORDERS)]
        for spb in spbs
    ]
    return {
        "category": [zone.place[spb][0] for spb in spbs],
        "bucket": [zone.place[spb][1] for spb in spbs],
        "pos": [zone.position(spb) for spb in spbs],
        "free_pageblocks": zone.lists.nr_free_pb,
        "free_pages": zone.lists.nr_free_pages,
        "content_pageblocks": zone.content,
        "exact_pageblocks": np.add.reduceat(used > 0, firsts, axis=0, dtype=np.int64),
        "used_pages": np.add.reduceat(used, firsts, axis=0),
        "pb_label": zone.lists.label,
        "pb_bits": [zone.bits(pb) for pb in range(zone.n_pb)],
        "nr_free": np.stack([nested(by_order, len) for by_order in lists]),
        "list_hash": np.stack([nested(by_order, list_hash, np.uint64) for by_order in lists]),
        "hint": [[zone.hint.get((order, mt), -1) for mt in range(3)] for order in range(NR_ORDERS)],
    }


# -- slab shrink --------------------------------------------------------------------------------


def build_shrink(golden: Golden) -> ShrinkWorld:
    columns = ("aware", "numa", "batch", "seeks", "crule", "srule", "num", "den", "pct")
    rows = zip(*(golden[f"s_{name}"].tolist() for name in columns), strict=True)
    return ShrinkWorld(
        [Shrinker(*row) for row in rows],
        [bool(online) for online in golden["memcg_online"]],
        [bool(has) for has in golden["has_wq"]],
        golden.meta["throttle_ms"],
    )


def replay_shrink(golden: Golden) -> ShrinkWorld:
    """Replay a slab-shrink trace: results, runs, every shrinker call, final caches."""
    world = build_shrink(golden)
    names = ("op", "time", "node", "shr", "memcg", "count", "ref_num", "ref_den", "result")
    runs: list[tuple[int, Run]] = []
    for row, fields in enumerate(zip(*(golden[name].tolist() for name in names), strict=True)):
        op, now, node, shr, memcg, count, ref_num, ref_den, wanted = fields
        found = -1
        if op == OP_QUEUE:
            found = world.queue(node, now)
        elif op == OP_BEGIN:
            run = world.begin(node)
            found = int(run is not None)
            if run is not None:
                runs.append((row, run))
        elif op == OP_END:
            found = int(world.end(node))
        else:
            world.change_objects(shr, memcg, node, count, ref_num, ref_den)
        expect(golden, f"result of event {row}", wanted, found)
    check_runs(golden, runs)
    check_caches(golden, world)
    return world


def check_runs(golden: Golden, runs: list[tuple[int, Run]]) -> None:
    expect(golden, "rows of the runs", golden["run_event"], [row for row, _ in runs])
    for name in ("node", "passes", "last_prio", "freed", "scanned", "counts"):
        expect(golden, f"runs, {name}", golden[f"run_{name}"], [getattr(run, name) for _, run in runs])
    expect(golden, "runs, calls", golden["run_calls"], [len(run.calls) for _, run in runs])
    calls = [(i, call) for i, (_, run) in enumerate(runs) for call in run.calls]
    expect(golden, "calls, run", golden["call_run"], [i for i, _ in calls])
    for name in (
        *("prio", "memcg", "shr", "freeable", "backlog", "delta", "target", "scanned", "freed"),
        *("backlog_after", "left"),
    ):
        expect(golden, f"calls, {name}", golden[f"call_{name}"], [getattr(call, name) for _, call in calls])


def check_caches(golden: Golden, world: ShrinkWorld) -> None:
    for name, of in (("objects", "objects"), ("backlog", "backlog")):
        found = np.zeros_like(golden[f"end_{name}"])
        for key, cache in world.caches.items():
            found[key] = getattr(cache, of)
        expect(golden, f"final {name}", golden[f"end_{name}"], found)
    bits = np.zeros_like(golden["end_bit"])
    for key in world.present:
        bits[key] = 1
    expect(golden, "final present bits", golden["end_bit"], bits)
