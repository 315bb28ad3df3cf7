"""page_owner: who allocated each page, from debugfs or from the tracks that a crash prints.

Owns PageOwnerReader, which counts while the text streams by: pages by order, the page's type against its
block's, and what was migrated. Stacks and task names are not kept.
"""

from __future__ import annotations

import re
from collections import Counter

from spbfast.observed.cleanup import TextLine, without_prefix
from spbfast.observed.families import Collector, TextFamily
from spbfast.observed.values import TraceSummary

_ALLOCATED = re.compile(
    r"\bPage allocated via order (\d{1,3})\b"
    r"|\bpage last allocated via order (\d{1,3})\b(?:,\s*migratetype (\w{1,20}))?"
)
_PFN = re.compile(r"\bPFN (0x[0-9a-fA-F]{1,16}|\d{1,19}) type (\w{1,20}) Block (\d{1,12}) type (\w{1,20})")
_MIGRATED = re.compile(r"\bPage has been migrated, last migrate reason: ([\w ]{1,30})")
_MEMCG = re.compile(r"\b(?:Slab cache page|Charged (?:to|\()|memcg)")
_FRAME = re.compile(r"^\s*(?:\[<[0-9a-f]+>\]\s*)?(?:\? )?[\w.$]{1,120}\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?:\s|$)")
_TITLE = re.compile(
    r"page_owner tracks the page as|page last free (?:stack trace|pid)|page has been migrated"
    r"|page_owner (?:free )?(?:stack|info)"
)
_DETAIL = re.compile(r"^\s*(?:\\|pid \d|tgid \d|ts \d|free_ts|Flags 0x|[\w|()]+\)$)")


class PageOwnerReader(TextFamily):
    """Reader of page_owner text."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.summary: TraceSummary | None = None
        self.last_order: int | None = None
        self.with_place = 0
        self.notes: Counter[str] = Counter()

    def take(self, line: TextLine, follows: bool) -> bool:
        text = line.text
        if "allocated via" in text and (match := _ALLOCATED.search(text)):
            self._take_head(line.number, match)
            return True
        if "PFN" in text and (match := _PFN.search(text)):
            self._take_place(line.number, match)
            return True
        if _TITLE.search(text):
            self._opened(line.number)
            return True
        if self.summary is None or not follows:
            return False
        return self._take_rest(without_prefix(text))

    def finish(self) -> None:
        summary = self.summary
        if summary is None:
            return
        pages = summary.events["page"]
        for name, count in self.notes.items():
            summary.facts[name] = count
        if self.with_place < pages:
            self.receipt.say(
                "missing", f"{pages - self.with_place} of {pages} pages without the line of their PFN"
            )
        if not pages:
            self.receipt.say("missing", "page_owner text without the line of an allocation")

    def _opened(self, number: int) -> TraceSummary:
        if self.summary is None:
            self.summary = TraceSummary("page_owner", number, str(self.collector.path))
            self.collector.traces.append(self.summary)
        return self.summary

    def _take_head(self, number: int, match: re.Match[str]) -> None:
        self.last_order = int(match[1] or match[2])
        self._opened(number).count("page", self.last_order, match[3])

    def _take_place(self, number: int, match: re.Match[str]) -> None:
        summary = self._opened(number)
        if self.last_order is None:
            summary.count("page")
        self.with_place += 1
        self.last_order = None
        summary.count_type("page in block", f"{match[2]} in {match[4]}")

    def _take_rest(self, text: str) -> bool:
        """Stacks, notes and blank lines below a page."""
        assert self.summary is not None
        if match := _MIGRATED.search(text):
            self.notes["migrated"] += 1
            self.summary.count_type("migrated", match[1].strip())
            return True
        if _MEMCG.search(text):
            self.notes["with memory cgroup"] += 1
            return True
        return not text.strip() or bool(_FRAME.match(text) or _DETAIL.match(text))
