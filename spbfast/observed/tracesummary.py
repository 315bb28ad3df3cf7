"""What a trace holds: events counted while they stream by, and the traps of such traces.

Owns TraceReader. Told to the receipt: requests that failed (pfn 0), frees printed twice or beside their
batched form, lost events, the meaning of migrate type numbers, zone-level events beside request-level ones.
"""

from __future__ import annotations

from collections import OrderedDict

from spbfast.observed.cleanup import TextLine
from spbfast.observed.families import Collector, TextFamily
from spbfast.observed.receipt import counted
from spbfast.observed.tracetext import TraceEvent, TraceEvents
from spbfast.observed.values import TraceSummary

WINDOW = 512  # frees remembered to find the same page under a second name
REQUESTS = {"mm_page_alloc", "mm_page_free", "mm_page_free_direct", "mm_page_free_batched"}
BUDDY = {"mm_page_alloc_zone_locked", "mm_page_pcpu_drain"}
MAX_NAMES = 200


class TraceReader(TextFamily):
    """Reader of traces as text; keeps counts, not events."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.events = TraceEvents(collector.receipt)
        self.summary: TraceSummary | None = None
        self.failed = self.doubled = self.batched_beside = self.page_is_pfn = self.without_time = 0
        self._recent: OrderedDict[tuple[str, int], None] = OrderedDict()

    def take(self, line: TextLine, follows: bool) -> bool:
        taken = self.events.take(line, follows)
        if self.events.ready:
            self._count_ready()
        return taken

    def finish(self) -> None:
        self.events.finish()
        self._count_ready()
        self.events.say_lost()
        if self.summary is not None:
            self._say_traps(self.summary)
        elif self.events.other_events:
            self.receipt.say(
                "left_out", f"{counted(self.events.other_events, 'event')}, none of memory management"
            )

    def _count_ready(self) -> None:
        for event in self.events.ready:
            if self.summary is None:
                self.summary = TraceSummary("events", event.line, str(self.collector.path))
                self.collector.traces.append(self.summary)
            self._count(self.summary, event)
        self.events.ready.clear()

    def _count(self, summary: TraceSummary, event: TraceEvent) -> None:
        fields = event.fields
        name = event.name if event.name in summary.events or len(summary.events) < MAX_NAMES else "?"
        order = fields.get("order", fields.get("alloc_order"))
        summary.count(name, order, fields.get("migratetype", fields.get("alloc_migratetype")))
        summary.note_time(event.time_ns)
        self.without_time += event.time_ns is None
        if event.cpu is not None and len(summary.cpus) < 8192:
            summary.cpus.add(event.cpu)
        self.failed += event.is_failed_allocation
        pfn = event.pfn
        if pfn is not None:
            self._note_page(event, pfn)

    def _note_page(self, event: TraceEvent, pfn: int) -> None:
        """Find a free that was printed before, under its own name or another."""
        self.page_is_pfn += event.fields.get("page") == pfn
        recent = self._recent
        if event.name.startswith("mm_page_alloc"):
            for name in REQUESTS:
                recent.pop((name, pfn), None)
            return
        if event.name not in REQUESTS:
            return
        self.doubled += (event.name, pfn) in recent
        other = {"mm_page_free": "mm_page_free_batched", "mm_page_free_batched": "mm_page_free"}.get(
            event.name
        )
        self.batched_beside += other is not None and (other, pfn) in recent
        recent[event.name, pfn] = None
        if len(recent) > WINDOW:
            recent.popitem(last=False)

    def _say_traps(self, summary: TraceSummary) -> None:
        say = self.receipt.say
        names = set(summary.events)
        if self.failed:
            say("read", f"{self.failed} of the allocations failed (pfn 0): no page was handed out")
        if self.doubled:
            say(
                "contradictory",
                f"{counted(self.doubled, 'free')} printed twice, with no allocation in between",
            )
        if self.batched_beside:
            both = "mm_page_free and mm_page_free_batched"
            text = f"{counted(self.batched_beside, 'page')} freed under {both}: one free each"
            say("contradictory", text)
        if self.page_is_pfn:
            say("read", f"page= holds the page frame number itself in {counted(self.page_is_pfn, 'event')}")
        if names & REQUESTS and names & BUDDY:
            say("read", "events of callers and of the buddy lists side by side: count one level, not both")
        if self.without_time:
            say("missing", f"{counted(self.without_time, 'event')} without a time stamp")
        if self.events.other_events:
            say("left_out", f"{counted(self.events.other_events, 'event')} not of memory management")
        if self.events.chains:
            say("left_out", f"{counted(self.events.chains, 'line')} of call chains")
        if summary.types:
            self._say_types(names)

    def _say_types(self, names: set[str]) -> None:
        if "mm_page_free_direct" in names:
            numbers = (
                "0 Unmovable, 1 Reclaimable, 2 Movable, as before 4.4 (the trace has mm_page_free_direct)"
            )
        else:
            numbers = "0 Unmovable, 1 Movable, 2 Reclaimable, 3 HighAtomic, as since 4.4"
        self.receipt.say("guessed", f"migrate type numbers: {numbers}")
