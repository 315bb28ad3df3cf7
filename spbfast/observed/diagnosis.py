"""Would this request have succeeded, and why not: the numbers of a dump put through the kernel's check.

Owns `diagnose`. Numbers come from the tables of one machine: watermarks and counters from zoneinfo or a
Mem-Info report, blocks by order from the report, buddyinfo or pagetypeinfo. A dump can only speak for its
own moment: where the request would have succeeded there, that is said, and nothing is invented.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spbfast.errors import DumpError
from spbfast.observed import margins
from spbfast.observed.evidence import Evidence, zone_rank
from spbfast.observed.gfp import GfpFlags, decode_gfp, kernel_tuple
from spbfast.observed.loading import Observation, read_dump
from spbfast.observed.margins import Asked, ZoneJudgement, ZoneNumbers, judge_zone
from spbfast.observed.values import FailedRequest, Snapshot
from spbfast.text import quote_value

NOT_EXPLAINED, NO_FAILURE = "does not explain", "nothing failed"
DEFAULT_GFP = "GFP_KERNEL"
HIGHEST_ORDER = 31
MAX_REPORTS = 200
MEANING = {
    margins.SHORTAGE: "Shortage: too few free pages, whatever their order.",
    margins.FRAGMENTATION: "Fragmentation: enough free pages, but no block that is large enough.",
    margins.RESERVE: "Reserve: the free pages are kept for other requests (lowmem_reserve or HighAtomic).",
    margins.TYPE: "Type: the free pages are of types that this request may not take.",
    margins.UNKNOWN: "The dump does not say enough to tell: see what it lacks.",
}

_IN_SHORT = {margins.UNKNOWN: "unknown, the dump does not tell the watermarks or the blocks"}


@dataclass
class Diagnosis:
    """The answer for one request and one moment.

    Attributes
    ----------
    source : str
        File and line that it is about.
    order : int or None
        None where neither the file nor the caller named one.
    gfp : str
    verdict : str
        succeeds, shortage, fragmentation, reserve, type, unknown, nothing failed, or does not explain (the
        request would have succeeded at the moment of the dump, which is later than the failure).
    sentence : str
        The verdict in words.
    zones : list of ZoneJudgement
        In the order in which the kernel tries them, with the arithmetic.
    by_order : dict of int to str
        For every order, the verdict for a request of the same flags.
    assumptions : list of str
    """

    source: str
    order: int | None
    gfp: str
    verdict: str = margins.UNKNOWN
    sentence: str = ""
    zones: list[ZoneJudgement] = field(default_factory=list)
    by_order: dict[int, str] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)


def diagnose(
    source: str | Path | Observation,
    order: int | None = None,
    zone: str | None = None,
    gfp: str | None = None,
) -> list[Diagnosis]:
    """Judge the requests of a dump, or one that you name.

    Parameters
    ----------
    source : str, Path or Observation
        A file, or what `read_dump` or `read_dumps` returned.
    order : int, optional
        Order of the request; default: the file's.
    zone : str, optional
        Judge only zones of this name; default: all that the flags allow.
    gfp : str, optional
        Flags, such as ``GFP_ATOMIC|__GFP_COMP``; default: the file's, else GFP_KERNEL.

    Returns
    -------
    list of Diagnosis
        One for each Mem-Info report; one for all other tables together.

    Raises
    ------
    DumpError
        When there is nothing that speaks of zones, an argument makes no sense, or no zone has that name.
    """
    observation = source if isinstance(source, Observation) else read_dump(source)
    _check_arguments(observation, order, zone, gfp)
    reports = observation.of_kind("meminfo_report")
    tables = [s for s in observation.snapshots if s.kind != "meminfo_report" and s.zones]
    groups = [[report] for report in reports]
    if tables and not any(r.zones for r in reports):
        groups.append(tables)
    if not groups:
        found = [s.kind for s in observation.snapshots] + [t.kind for t in observation.traces]
        kinds = ", ".join(dict.fromkeys(found[:50]))
        raise DumpError(
            observation.files[0],
            0,
            f"has no zones to judge (found {kinds}); give buddyinfo, zoneinfo or a report",
        )
    answers = [_Question(observation, group, order, zone, gfp).answer() for group in groups[:MAX_REPORTS]]
    if len(groups) > MAX_REPORTS:
        answers[-1].assumptions.append(f"the first {MAX_REPORTS} of {len(groups)} reports are judged")
    return answers


def _check_arguments(observation: Observation, order: int | None, zone: str | None, gfp: str | None) -> None:
    file = observation.files[0]
    if order is not None and (isinstance(order, bool) or not isinstance(order, int)):
        raise DumpError(file, 0, f"order must be a whole number, got {quote_value(order)}")
    for name, value in (("zone", zone), ("gfp", gfp)):
        if value is not None and not isinstance(value, str):
            raise DumpError(file, 0, f"{name} must be text, got {quote_value(value)}")
    if order is not None and not 0 <= order <= HIGHEST_ORDER:
        raise DumpError(file, 0, f"order must be 0..{HIGHEST_ORDER}, got {quote_value(order)}")
    if gfp is None:
        return
    flags = decode_gfp(gfp)
    if flags.unknown or not (flags.names or flags.text.strip() in ("0", "0x0")):
        word = flags.unknown[0] if flags.unknown else gfp
        raise DumpError(file, 0, f"unknown flags {word!r}; expected such as GFP_KERNEL|__GFP_COMP or 0xcc0")


class _Question:
    """One request against one group of snapshots."""

    def __init__(
        self,
        observation: Observation,
        snapshots: Sequence[Snapshot],
        order: int | None,
        zone: str | None,
        gfp: str | None,
    ) -> None:
        self.file = observation.files[0]
        self.snapshots = snapshots
        self.zone = zone
        self.request: FailedRequest | None = snapshots[0].request
        self.assumptions: list[str] = []
        self.kernel = kernel_tuple(snapshots[0].kernel)
        self.order = order if order is not None else self._order_of_file()
        self.flags = self._flags(gfp)
        self.is_old = self._is_old()
        self.evidence = Evidence(self.file, snapshots, self.flags, self.assumptions)

    def answer(self) -> Diagnosis:
        numbers = self.evidence.numbers(self.zone)
        first = self.snapshots[0]
        diagnosis = Diagnosis(f"{first.file}:{first.line}", self.order, self.flags.text)
        diagnosis.assumptions = self.assumptions
        if not numbers:
            diagnosis.sentence = self._without_dump()
            return diagnosis
        orders = max((len(z.blocks) for z in numbers), default=0) or 11
        for order in range(max(orders, (self.order or 0) + 1)):
            diagnosis.by_order[order] = self._verdict(self._judge(numbers, order), numbers)
        if self.order is not None:
            diagnosis.zones = self._judge(numbers, self.order)
            diagnosis.verdict = diagnosis.by_order[self.order]
            self._put_into_words(diagnosis)
        else:
            self._answer_for_all(diagnosis, numbers)
        return diagnosis

    def _order_of_file(self) -> int | None:
        order = self.request.order if self.request else None
        return order if order is not None and 0 <= order <= HIGHEST_ORDER else None

    def _flags(self, gfp: str | None) -> GfpFlags:
        text = gfp or (self.request.gfp if self.request else "")
        if not text:
            self.assumptions.append(f"flags {DEFAULT_GFP}: the file names none")
            text = DEFAULT_GFP
        flags = decode_gfp(text, self.kernel)
        if flags.guess:
            self.assumptions.append(flags.guess)
        return flags

    def _is_old(self) -> bool:
        """Whether the rule of kernels before 4.4 applies: by version, else by what the file has."""
        if self.kernel is not None:
            return self.kernel < (4, 4)
        types = {t for s in self.snapshots for t in s.types}
        keys = {k for s in self.snapshots for z in s.zones for k in z.pages}
        if types & {"HighAtomic"} or keys & {
            "boost",
            "free_highatomic",
            "reserved_highatomic",
            "writepending",
        }:
            return False
        old = bool(types & {"Reserve"}) or bool(
            keys & {"pages_scanned", "scanned", "writeback_tmp", "active"}
        )
        rule = "before 4.4" if old else "since 4.4"
        self.assumptions.append(f"the rule of kernels {rule}: the file names no version")
        return old

    def _is_recent(self) -> bool:
        if self.kernel is not None:
            return self.kernel >= (6, 0)
        return any("boost" in z.pages for s in self.snapshots for z in s.zones)

    def _judge(self, numbers: list[ZoneNumbers], order: int) -> list[ZoneJudgement]:
        asked = Asked(order, self.flags, self.is_old, self._is_recent())
        return [judge_zone(zone, asked) for zone in numbers]

    def _verdict(self, zones: list[ZoneJudgement], numbers: list[ZoneNumbers]) -> str:
        if any(z.verdict == margins.SUCCEEDS for z in zones):
            return margins.SUCCEEDS
        return self._lead(zones, numbers).verdict

    def _lead(self, zones: list[ZoneJudgement], numbers: list[ZoneNumbers]) -> ZoneJudgement:
        """The zone whose verdict speaks for all: the highest one, of several that with most free pages."""

        def weight(i: int) -> tuple[bool, int, int]:
            zone = numbers[i]
            return (zone.free is not None or bool(zone.blocks), zone_rank(zone.zone), zone.free or 0)

        return zones[max(range(len(numbers)), key=weight)]

    def _put_into_words(self, diagnosis: Diagnosis) -> None:
        verdict = diagnosis.verdict
        is_report = self.snapshots[0].kind == "meminfo_report"
        is_by_hand = self.request is not None and self.request.outcome == "sysrq"
        if verdict != margins.SUCCEEDS:
            diagnosis.sentence = MEANING[verdict]
            return
        where = next(z.label for z in diagnosis.zones if z.verdict == margins.SUCCEEDS)
        if is_report and not is_by_hand:
            diagnosis.verdict = NOT_EXPLAINED
            diagnosis.sentence = (
                "This dump does not explain the failure: at its moment the request would have succeeded in "
                f"{where}. It is later than the failure; memory was freed, or compacted, in between."
                + self._vmalloc_words()
            )
        else:
            diagnosis.sentence = f"At the moment of the dump the request would have succeeded in {where}."

    def _vmalloc_words(self) -> str:
        size = self.snapshots[0].counters.get("vmalloc_bytes")
        return (
            f" It was part of a vmalloc of {size:,} bytes, which may have failed for its size."
            if size
            else ""
        )

    def _answer_for_all(self, diagnosis: Diagnosis, numbers: list[ZoneNumbers]) -> None:
        """No order is known: say what would happen at each."""
        good = [o for o, v in diagnosis.by_order.items() if v == margins.SUCCEEDS]
        bad = {o: v for o, v in diagnosis.by_order.items() if v != margins.SUCCEEDS}
        is_report = self.snapshots[0].kind == "meminfo_report"
        by_hand = self.request is not None and self.request.outcome == "sysrq"
        diagnosis.zones = self._judge(numbers, 0)
        words = [f"No request is named; with {self.flags.text}:"]
        if good:
            words.append(f"order {_ranges(good)} would succeed.")
        words += [
            f"Order {_ranges(group)}: {_IN_SHORT.get(verdict, verdict)}." for verdict, group in _grouped(bad)
        ]
        diagnosis.verdict = diagnosis.by_order[0]
        if by_hand:
            diagnosis.verdict = NO_FAILURE
            words.insert(0, "The report was asked for by hand, nothing failed.")
        elif is_report and good:
            diagnosis.verdict = NOT_EXPLAINED
            words.append(
                f"A failure of order {_ranges(good)} this dump does not explain: it is later than the "
                "failure. Name the request with --order."
            )
        diagnosis.sentence = " ".join(words)

    def _without_dump(self) -> str:
        if self.request is not None and self.request.outcome == "memcg":
            return "The limit of a memory cgroup was reached; free blocks of zones play no part in it."
        if self.request is not None:
            return (
                "The headline of a failure without its Mem-Info: nothing can be told but the request itself."
            )
        return MEANING[margins.UNKNOWN]


def _grouped(verdicts: dict[int, str]) -> list[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = {}
    for order, verdict in verdicts.items():
        groups.setdefault(verdict, []).append(order)
    return list(groups.items())


def _ranges(numbers: list[int]) -> str:
    """0, 1, 2, 5 as ``0..2, 5``."""
    parts = []
    for _, run in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        first, *rest = (n for _, n in run)
        parts.append(f"{first}..{rest[-1]}" if rest else str(first))
    return ", ".join(parts)
