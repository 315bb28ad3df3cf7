"""The allocator policy: every switch of the superpageblock and slab-shrink layers.

Owns the Policy model and its short form, the name of a preset. A Policy is always complete: its preset
supplies every key that a configuration leaves out. The fields below say what each key means, and
`spbfast explain policy.KEY` prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from pydantic import Field

from spbfast.config import presets
from spbfast.config.base import MAX_COUNT, Count, Model, key
from spbfast.config.tree import Source, YamlNode, from_plain, merge
from spbfast.config.units import Duration
from spbfast.constants import MAX_EVACUATE_SPBS
from spbfast.errors import Problem

_key = partial(key, ...)  # a preset supplies what a configuration leaves out


class ShrinkTriggers(Model):
    """Which events queue a slab shrink; each has a counter of its own."""

    below_reserve: bool = _key(
        "queue when an unmovable or reclaimable request found the tainted pool below its reserve", "v1 30"
    )
    would_taint: bool = _key(
        "queue when a claim is about to take memory outside the tainted superpageblocks", "v1 30"
    )
    after_evacuation: bool = _key("queue at the end of every evacuation", "v1 30")
    below_high_water: bool = _key(
        "queue when a served superpageblock is left with free pages below its reserve", "v1 32"
    )


class Policy(Model):
    """An allocator policy: a preset and what a configuration changes in it."""

    preset: str = Field(description="the preset that supplies every key not given here")

    superpageblocks: bool = _key("keep free lists per superpageblock; false is the mainline allocator", "v1")
    per_superpageblock_take: bool = _key(
        "look for whole pageblocks and fragments in one walk over the superpageblocks, not in two", "v2 20"
    )
    whole_pageblock_first: bool = _key(
        "inside a superpageblock break a whole pageblock of the right type before using fragments", "v2 20"
    )
    claim_whole_pageblock: bool = _key(
        "let unmovable and reclaimable requests relabel a free pageblock of a tainted superpageblock",
        "mainline",
    )
    claim_partial_pageblock: bool = _key(
        "let them relabel a partly used pageblock of a tainted superpageblock", "v1 20 (assumed step)"
    )
    tainted_claim_needs_half: bool = _key(
        "a partial claim in a tainted superpageblock needs half of the pageblock free or alike", "v1 25"
    )
    separate_nonmovable: bool = _key(
        "never mix unmovable and reclaimable pages by relabelling or stealing", "v1 26, v2 24"
    )
    separate_by_content: bool = _key(
        "also refuse a partial claim where the other non-movable type is present", "ours"
    )
    borrow_nonmovable: bool = _key(
        "take fragments of the other non-movable type without relabelling", "v1 31"
    )
    borrow_movable: bool = _key(
        "take movable fragments in tainted superpageblocks without relabelling", "v1 42"
    )
    movable_into_tainted: bool = _key(
        "let movable requests use tainted superpageblocks above their reserve", "v1"
    )
    reserve_floor: Count = _key(
        "least number of free pageblocks that a tainted superpageblock keeps for non-movable requests",
        "v1 24; value ours",
    )
    reserve_shift: int = _key(
        "the reserve is at least the superpageblock's pageblocks >> this; -1 leaves only the floor",
        "v1 24",
        ge=-1,
        le=30,
    )
    aggressive_threshold: int = _key(
        "with more superpageblocks than this, fallback in the tainted pool ignores NOFRAGMENT; -1 is never",
        "v1 20, v2 19",
        ge=-1,
        le=MAX_COUNT,
    )
    tainted_ok_flag: bool = _key("honour NOFRAG_TAINTED_OK in the fallback path", "v1 19")
    nofragment_blocks_tainted_claim: bool = _key(
        "NOFRAGMENT without NOFRAG_TAINTED_OK may not claim or borrow in tainted superpageblocks", "v2 35"
    )
    nofragment_blocks_empty: bool = _key("NOFRAGMENT may not open an empty superpageblock", "ours")
    optional_refusal: bool = _key(
        "refuse requests that have a cheap fallback while tainted superpageblocks have free pageblocks",
        "v1 29",
    )
    atomic_noretry_fails: bool = _key("atomic requests that may fail cheaply fail at once", "v1 33")
    optional_skips_empty: bool = _key(
        "such requests may not open an empty superpageblock either", "v1 29 (reading)"
    )
    preferred_hint: bool = _key("remember the last superpageblock per order and type", "v1 38")

    evacuate_requests: bool = _key("let the allocator's pressure points queue evacuations", "v1 27")
    evacuate: bool = _key("move movable pages out of tainted superpageblocks", "v1 18")
    evacuate_same_type_first: bool = _key("evacuate pageblocks that carry the requested label first", "v1 24")
    evacuate_any_label: bool = _key("evacuate pageblocks of any label, not only movable ones", "v1 45")
    evacuate_max_superpageblocks: int = _key(
        "superpageblocks tried per evacuation", "v1 45; values ours", ge=0, le=MAX_EVACUATE_SPBS
    )
    evacuate_max_pageblocks: Count = _key("pageblocks tried per superpageblock", "v1 45; values ours")
    evacuate_throttle: Duration = _key("least time between two queued evacuations of a node", "v1 30")
    migration_target_reclaim: Count = _key(
        "rounds of 32 reclaimed pages when an evacuation finds no target", "ours"
    )
    movable_reserve: Literal["hard", "soft"] = _key(
        "hard: movable requests never enter a tainted superpageblock at or below its reserve; "
        "soft: before direct reclaim they may take fragments of their own type there",
        "ours",
    )

    defrag: bool = _key("compact movable pages inside tainted superpageblocks in the background", "v1 16")
    defrag_start_at_reserve: bool = _key("start and stop it at the reserve, not at fixed numbers", "v1 24")
    defrag_high_water: bool = _key("also request it when a superpageblock falls below its reserve", "v1 43")
    defrag_before_empty: bool = _key("also request it before an empty superpageblock is opened", "v1 43")
    contig: bool = _key("serve requests for a whole superpageblock by emptying a clean one", "v1 18")
    contig_max_candidates: Count = _key("clean superpageblocks tried for one such request", "v1 18; ours")
    relabel_on_empty: bool = _key("relabel a superpageblock's free blocks movable when it empties", "ours")
    sticky_content: bool = _key("content bits stay until the pageblock is wholly free", "ours")

    slab_shrink: bool = _key("free slab objects under pressure on the tainted pool", "v1 30")
    slab_shrink_triggers: ShrinkTriggers = Field(description="which events queue it")
    slab_shrink_throttle: Duration = _key("least time between two queued shrinks of a node", "v1 30 (HZ/10)")
    slab_shrink_target_objs: int = _key(
        "objects after which a run stops (pageblock_nr_pages * 4)", "v1 30", ge=1, le=MAX_COUNT
    )
    slab_shrink_start_priority: int = _key(
        "priority of a run's first pass (DEF_PRIORITY); the last pass has priority 0", "v1 30", ge=0, le=30
    )

    pcp_owned_pageblocks: bool = _key(
        "let each CPU take and own whole pageblocks, whose pages are freed back to it", "v1 02"
    )
    pcp_adopts_partial: bool = _key(
        "let a refill for unmovable or reclaimable pages adopt a partly free pageblock in tainted "
        "superpageblocks",
        "v1 22",
    )
    pcp_stays_in_tainted: bool = _key(
        "continue in tainted superpageblocks when the owned pageblock is used up", "v1 28"
    )
    bulk_nofragment: bool = _key(
        "bulk refills carry NOFRAGMENT, and take movable whole pageblocks from the fullest clean "
        "superpageblock",
        "v1 13",
    )
    watermark_boost: bool = _key(
        "a fragmenting claim raises the watermarks for a while", "mainline; v1 06 drops it"
    )
    highatomic_reserve: bool = _key(
        "atomic requests of order above 0 may reserve their pageblock for such requests", "mainline"
    )
    claim_prefers_tainted: bool = _key(
        "claims look at the first 8 entries of a list for one in a tainted superpageblock; for free lists "
        "that are not kept per superpageblock",
        "v1 12",
    )
    claim_evacuation: bool = _key("move the remaining movable pages out of a claimed pageblock", "v1 07")
    compact_within_superpageblock: bool = _key(
        "compact movable pages inside clean superpageblocks to make free pageblocks", "v1 17"
    )
    compaction_skips_immovable: bool = _key(
        "compaction passes over tainted superpageblocks without movable content", "v2 38"
    )
    nowarn_lower_order_fails: bool = _key(
        "atomic NOWARN requests fail rather than taint while lower orders are available",
        "v2 35",
    )
    kvmalloc_noretry: bool = _key("large kvmalloc requests give up early and use single pages", "v1 37")
    extent_buffers_movable: bool = _key("btrfs tree pages attached to extent buffers are movable", "v1 41")
    choose_by_bitmap: bool = _key(
        "choose a superpageblock by address from bitmaps per order, not by walking lists",
        "list mail, the replacement proposed for the walk",
    )

    def canonical(self) -> dict[str, Any]:
        """Every switch; the preset's name is left out, since only what it stands for matters."""
        values = super().canonical()
        del values["preset"]
        return values


def long_form(root: YamlNode) -> YamlNode:
    """One file or override with its policy as a mapping: `policy: NAME` becomes `{preset: NAME}`.

    The short form replaces what an extended file says; a mapping merges into it.
    """
    node = root.value.get("policy") if isinstance(root.value, dict) else None
    if node is None or not isinstance(node.value, str):
        return root
    node = replace(node, value={"preset": replace(node, whole=False)}, whole=True)
    return replace(root, value={**root.value, "policy": node})


def resolve(node: YamlNode, problems: list[Problem], own: Sequence[str] = ()) -> YamlNode:
    """The complete policy: the preset's keys underneath those that are given.

    An unknown preset is appended to `problems`; `own` names those that the file defines.
    """
    if not isinstance(node.value, dict):
        return node
    keys = dict(node.value)
    name = presets.DEFAULT
    if (chosen := keys.get("preset")) is not None:
        try:
            name = presets.canonical_name(str(chosen.plain()), own)
        except ValueError as error:
            problems.append(chosen.problem("policy.preset", str(error)))
    keys["preset"] = replace(chosen or node, value=name, whole=False)
    below = from_plain(presets.preset_values(name), Source("preset"))
    return merge(below, replace(node, value=keys, whole=False))
