"""Every switch of the superpageblock policy, as the reference twin reads it.

Owns names and defaults only.  The names are those of the golden files; the four `trigger_*` switches
silence single slab-shrink triggers and are on unless a test says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Policy:
    """Switches of one zone; the defaults are the last posted preset (v2)."""

    superpageblocks: bool = True
    per_superpageblock_take: bool = True
    whole_pageblock_first: bool = True
    claim_whole_pageblock: bool = True
    claim_partial_pageblock: bool = True
    tainted_claim_needs_half: bool = False
    separate_nonmovable: bool = True
    separate_by_content: bool = False
    borrow_nonmovable: bool = True
    borrow_movable: bool = True
    movable_into_tainted: bool = True
    reserve_floor: int = 4
    reserve_shift: int = 5
    aggressive_threshold: int = 8
    tainted_ok_flag: bool = True
    nofragment_blocks_tainted_claim: bool = True
    nofragment_blocks_empty: bool = False
    optional_refusal: bool = True
    optional_skips_empty: bool = True
    preferred_hint: bool = True
    evacuate_requests: bool = True
    shrink_requests: bool = True
    trigger_below_reserve: bool = True
    trigger_would_taint: bool = True
    trigger_below_high_water: bool = True
    trigger_after_evacuation: bool = True
    shrink_high_water: bool = True
    defrag: bool = True
    defrag_start_at_reserve: bool = True
    defrag_high_water: bool = True
    defrag_before_empty: bool = True
    evacuate: bool = True
    evacuate_same_type_first: bool = True
    evacuate_any_label: bool = True
    evacuate_max_superpageblocks: int = 16
    evacuate_max_pageblocks: int = 16
    contig: bool = True
    contig_max_candidates: int = 4
    relabel_on_empty: bool = True
    sticky_content: bool = True
    choose_by_bitmap: bool = False
    claim_evacuation: bool = False
    compact_within_superpageblock: bool = False
    claim_prefers_tainted: bool = False
    pcp_owned_pageblocks: bool = False
    pcp_adopts_partial: bool = False
    pcp_stays_in_tainted: bool = False
    bulk_nofragment: bool = False
    watermark_boost: bool = False
    highatomic_reserve: bool = False

    @classmethod
    def of(cls, switches: Mapping[str, Any]) -> Policy:
        """A policy from a file's mapping; an unknown switch raises TypeError."""
        return cls(**switches)

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
