"""A zone from a picture: filled by real requests under a policy that mixes freely.

Owns that policy and the order of the requests; letters and strokes are in model/state/picture.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spbfast.constants import Mt, P
from spbfast.model.state.picture import STROKES

_MIXING_ON = [
    *(P.whole_pageblock_first, P.claim_whole_pageblock, P.claim_partial_pageblock, P.movable_into_tainted)
]
_MIXING_OFF = [
    *(P.tainted_claim_needs_half, P.separate_nonmovable, P.separate_by_content, P.reserve_floor),
    *(P.preferred_hint, P.optional_refusal, P.nofragment_blocks_tainted_claim),
]


def mixing_policy(policy: np.ndarray) -> np.ndarray:
    """A policy, as kernels take it, under which types share superpageblocks wherever they are put."""
    mixing = policy.copy()
    mixing[_MIXING_ON] = 1
    mixing[_MIXING_OFF] = 0
    mixing[[P.reserve_shift, P.aggressive_threshold]] = -1
    return mixing


def paint(zone: Any, letters: str) -> None:
    """Fill a Zone with movable blocks, give pageblocks to others one by one, then free the rest."""
    blocks = np.sort(zone.alloc_many(4 * len(letters), 7, Mt.MOVABLE)).reshape(-1, 4)
    spare: list[int] = []
    for letter, quarters in zip(letters, blocks, strict=True):
        nr_freed, pieces, nr_spare = STROKES[letter.upper()][letter.islower()]
        zone.free_many(quarters[:nr_freed])
        others = [zone.alloc(order, mt) for order, mt in pieces]
        spare += [*others, *quarters[nr_freed:].tolist()][: -nr_spare - 1 : -1] if nr_spare else []
    zone.free_many(spare)
