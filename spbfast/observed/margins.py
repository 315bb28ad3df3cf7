"""Would a zone have given a block: the kernel's watermark check, step by step, with its numbers.

Owns `judge_zone`. Two rules: since Linux 4.4 a request passes when the free pages that it may use stay above
the mark and a block that it may take is there; before, every order's small blocks were taken off and the
mark halved. Nothing here reads files; diagnosis.py brings the numbers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spbfast.observed.blockmath import extfrag_of, highest_order, pages_in, unusable_of
from spbfast.observed.gfp import GfpFlags

OWN_TYPES = frozenset({"Unmovable", "Movable", "Reclaimable", "Reserve"})
SUCCEEDS, SHORTAGE, RESERVE, TYPE = "succeeds", "shortage", "reserve", "type"
FRAGMENTATION, UNKNOWN = "fragmentation", "unknown"


@dataclass(frozen=True)
class ZoneNumbers:
    """What is known of one zone; None or empty where it is not.

    Attributes
    ----------
    label, zone : str
    free : int or None
        Free pages by the counter, else by the lists.
    free_source : str
    mark_min, mark_low : int or None
        Watermarks in pages, boost included.
    boost : int
    reserve : int or None
        lowmem_reserve against this request, pages.
    free_highatomic, free_cma : int or None
        Free pages of these types.
    blocks : tuple of int
        Free blocks by order, all types.
    by_type : mapping of str to tuple of int
        The same by type.
    letters : tuple of tuple of str
        By order, the types that have free blocks, where only that is known.
    pcp : int
        Pages on per-CPU lists.
    """

    label: str
    zone: str
    free: int | None = None
    free_source: str = ""
    mark_min: int | None = None
    mark_low: int | None = None
    boost: int = 0
    reserve: int | None = None
    free_highatomic: int | None = None
    free_cma: int | None = None
    blocks: tuple[int, ...] = ()
    by_type: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    letters: tuple[tuple[str, ...], ...] = ()
    pcp: int = 0


@dataclass
class ZoneJudgement:
    """The outcome for one zone.

    Attributes
    ----------
    label : str
    verdict : str
        succeeds, shortage, reserve, type, fragmentation or unknown.
    steps : list of str
        The arithmetic, line by line.
    margin : int or None
        Pages above (or below) what the check demands.
    extfrag, unusable : int or None
        Indices of the order asked for, in thousandths.
    """

    label: str
    verdict: str
    steps: list[str] = field(default_factory=list)
    margin: int | None = None
    extfrag: int | None = None
    unusable: int | None = None


@dataclass(frozen=True)
class Asked:
    """A request: order, flags, and whether the rules of kernels before 4.4, or since 6, apply."""

    order: int
    flags: GfpFlags
    is_old_rule: bool = False
    is_recent: bool = True

    @property
    def may_use_highatomic(self) -> bool:
        """Whether pages reserved for atomic requests of higher order count for this one."""
        return self.flags.is_high and not self.flags.is_blocking

    @property
    def takes_highatomic(self) -> bool:
        """Whether it also gets such a block: of order 0 only in recent kernels."""
        return self.may_use_highatomic and (self.order > 0 or self.is_recent)


def judge_zone(zone: ZoneNumbers, asked: Asked) -> ZoneJudgement:
    """Whether the zone gives the block, why not, and the arithmetic.

    Notes
    -----
    Source: __zone_watermark_ok of mm/page_alloc.c, in the forms before and since Linux 4.4.
    """
    judgement = ZoneJudgement(zone.label, UNKNOWN)
    if zone.blocks:
        judgement.extfrag = extfrag_of(zone.blocks, asked.order)
        judgement.unusable = unusable_of(zone.blocks, asked.order)
    if asked.flags.is_unlimited:
        judgement.steps.append("flags with __GFP_MEMALLOC: watermarks do not count")
        return _judge_blocks(zone, asked, judgement)
    if zone.free is None or zone.mark_min is None:
        return _judge_without_marks(zone, asked, judgement)
    if _fails_mark(zone, asked, judgement):
        return judgement
    if asked.is_old_rule:
        return _judge_old_orders(zone, asked, judgement)
    return _judge_blocks(zone, asked, judgement)


def _fails_mark(zone: ZoneNumbers, asked: Asked, judgement: ZoneJudgement) -> bool:
    """The first half: enough pages above the mark?"""
    assert zone.free is not None
    steps = judgement.steps
    steps.append(f"free {zone.free:,} pages ({zone.free_source})")
    lists = pages_in(zone.blocks)
    if zone.blocks and abs(lists - zone.free) * 100 > zone.free:
        steps.append(f"  (the lists of the dump hold {lists:,}: they were read at another moment)")
    rest = (1 << asked.order) - 1
    left = zone.free - rest
    if rest:
        steps.append(f"- {rest:,}: all but one page of the block itself")
    kept = _kept_from(zone, asked)
    for pages, why in kept:
        left -= pages
        steps.append(f"- {pages:,}: {why}")
    mark = _mark_for(zone, asked, steps)
    reserve = zone.reserve or 0
    steps.append(
        f"= {left:,} must be above {mark:,} + {reserve:,} (lowmem_reserve) = {mark + reserve:,}"
        + ("" if zone.reserve is not None else "; the reserve is not told and counted as 0")
    )
    judgement.margin = left - mark - reserve
    if judgement.margin > 0:
        steps.append(f"passes by {judgement.margin:,} pages")
        _say_low(zone, left, reserve, steps)
        return False
    steps.append(f"fails: {1 - judgement.margin:,} pages too few")
    if zone.pcp:
        steps.append(f"({zone.pcp:,} pages on per-CPU lists are not in the counter)")
    judgement.verdict = _why_below(zone.free - rest, left, mark, kept)
    if zone.blocks and not any(zone.blocks[asked.order :]) and left + rest > mark + reserve:
        steps.append(f"and no free block of order {asked.order} or more; order 0 would pass")
        judgement.verdict = FRAGMENTATION
    return True


def _kept_from(zone: ZoneNumbers, asked: Asked) -> list[tuple[int, str]]:
    """Free pages of types that the request may not use."""
    kept = []
    if zone.free_highatomic and not asked.is_old_rule and not asked.may_use_highatomic:
        kept.append((zone.free_highatomic, "free HighAtomic pages, kept for atomic requests"))
    if zone.free_cma and not asked.flags.is_movable:
        kept.append((zone.free_cma, "free CMA pages, for movable requests only"))
    return kept


def _mark_for(zone: ZoneNumbers, asked: Asked, steps: list[str]) -> int:
    """The min watermark, lowered for requests that may dip into it."""
    assert zone.mark_min is not None
    mark = zone.mark_min
    if asked.flags.is_high:
        if asked.order == 0 and zone.boost and not asked.is_old_rule:
            mark -= zone.boost
            steps.append(f"mark: min {zone.mark_min:,} without its boost of {zone.boost:,}, for order 0")
        half = mark - mark // 2
        steps.append(f"mark: {mark:,} halved to {half:,} for __GFP_HIGH")
        mark = half
        if not asked.flags.is_blocking:
            steps.append(f"mark: and a quarter less, {mark - mark // 4:,}, as it cannot wait")
            mark -= mark // 4
    elif asked.is_old_rule and not asked.flags.is_blocking:
        steps.append(f"mark: a quarter less than min, {mark - mark // 4:,}, as it cannot wait")
        mark -= mark // 4
    return mark


def _why_below(free: int, left: int, mark: int, kept: list[tuple[int, str]]) -> str:
    if free <= mark:
        return SHORTAGE
    if left > mark:
        return RESERVE  # only lowmem_reserve stands in between
    most = max(kept, default=(0, ""))[1]
    return TYPE if "CMA" in most else RESERVE


def _say_low(zone: ZoneNumbers, left: int, reserve: int, steps: list[str]) -> None:
    if zone.mark_low is not None and left <= zone.mark_low + reserve:
        steps.append(
            f"but not above low, {zone.mark_low:,} + {reserve:,}: the fast path fails and kswapd is woken"
        )


def _judge_old_orders(zone: ZoneNumbers, asked: Asked, judgement: ZoneJudgement) -> ZoneJudgement:
    """Before 4.4: small blocks are taken off order by order, against a mark halved each time."""
    if asked.order and not zone.blocks:
        judgement.steps.append("no free blocks by order in the file: fragmentation cannot be told")
        return judgement
    assert zone.free is not None
    steps: list[str] = []
    mark = _mark_for(zone, asked, steps)
    left = zone.free - (1 << asked.order) + 1 - sum(pages for pages, _ in _kept_from(zone, asked))
    for order in range(asked.order):
        count = zone.blocks[order] if order < len(zone.blocks) else 0
        left -= count << order
        mark >>= 1
        if left <= mark:
            judgement.steps.append(
                f"without the {count:,} blocks of order {order}, {left:,} pages are left, not above the mark "
                f"of {mark:,} there (the rule before Linux 4.4)"
            )
            judgement.verdict = FRAGMENTATION
            return judgement
    return _judge_blocks(zone, asked, judgement)


def _judge_without_marks(zone: ZoneNumbers, asked: Asked, judgement: ZoneJudgement) -> ZoneJudgement:
    if not zone.blocks:
        judgement.steps.append("neither watermarks nor free blocks in the file")
        return judgement
    judgement.steps.append("no watermarks in the file: judged by free blocks alone")
    _judge_blocks(zone, asked, judgement)
    if judgement.verdict == SUCCEEDS:
        judgement.verdict = UNKNOWN
        judgement.steps.append("whether the watermarks allow it cannot be told")
    return judgement


def _judge_blocks(zone: ZoneNumbers, asked: Asked, judgement: ZoneJudgement) -> ZoneJudgement:
    """The second half: is there a block that the request may take?"""
    steps = judgement.steps
    order = asked.order
    if not zone.blocks:
        verdict = UNKNOWN if order else SUCCEEDS
        steps.append(
            "no free blocks by order in the file" + (": fragmentation cannot be told" if order else "")
        )
        judgement.verdict = verdict
        return judgement
    if not any(zone.blocks[order:]):
        highest = highest_order(zone.blocks)
        largest = f"; the largest is of order {highest}" if highest >= 0 else ""
        steps.append(f"no free block of order {order} or more{largest}")
        if order >= len(zone.blocks):
            steps.append(
                f"the file shows orders 0..{len(zone.blocks) - 1}: there may be no such order at all"
            )
        judgement.verdict = FRAGMENTATION if highest >= 0 else SHORTAGE
        return judgement
    mine, others = _types_from(zone, order, _may_take(asked))
    if mine is None:
        steps.append(
            f"{sum(zone.blocks[order:]):,} free blocks of order {order} or more; their types are not told"
        )
        judgement.verdict = SUCCEEDS
    elif mine:
        steps.append(f"free blocks of order {order} or more that it may take: {', '.join(mine)}")
        judgement.verdict = SUCCEEDS
    else:
        steps.append(
            f"free blocks of order {order} or more are all of types that it may not take: {', '.join(others)}"
        )
        judgement.verdict = TYPE
    return judgement


def _may_take(asked: Asked) -> frozenset[str]:
    types = OWN_TYPES
    if asked.flags.is_movable:
        types |= {"CMA"}
    if asked.takes_highatomic:
        types |= {"HighAtomic"}
    return types


def _types_from(
    zone: ZoneNumbers, order: int, may_take: frozenset[str]
) -> tuple[list[str] | None, list[str]]:
    """Types with a large enough block: those that the request may take, and the others. None: not told."""
    if zone.by_type:
        counts = {name: sum(row[order:]) for name, row in zone.by_type.items()}
        words = {name: f"{count:,} {name}" for name, count in counts.items() if count}
    elif any(zone.letters[order:]):
        names = dict.fromkeys(name for types in zone.letters[order:] for name in types)
        words = {name: name for name in names}
    else:
        return None, []
    mine = [text for name, text in words.items() if name in may_take]
    return mine, [text for name, text in words.items() if name not in may_take]
