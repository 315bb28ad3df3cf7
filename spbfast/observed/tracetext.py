"""Events of traces as text: ftrace, trace-cmd report, perf script, perf trace, bpftrace's CSV.

Owns the parsing of one event (`parse_event`) and TraceEvents, which puts wrapped events together while lines
stream by. Page frames are told by `pfn=`, never by `page=`: that is a hashed pointer, or a copy of the pfn.
Nothing is counted here; tracesummary.py does that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from spbfast.observed.cleanup import TextLine
from spbfast.observed.receipt import Receipt, counted

_EVENT = re.compile(
    r"(?:\b[a-z_]\w{0,30}:)?\b((?:mm_(?:page|compaction|vmscan|shrink|migrate|collapse|khugepaged|lru|filemap)\w{0,40}"
    r"|kmem_cache_\w{1,30}|kmalloc\w{0,20}|kfree|reclaim_retry_zone|compact_retry|oom_score_adj_update|mark_victim"
    r"|rss_stat|test_pages_isolated|cma_\w{1,30})):(?=\s|$)"
)
# The usual form, matched at one stroke: task-pid, CPU, flags, time, event, plain fields.
_USUAL = re.compile(
    r"\s*[^=\[\]]{0,40}-(\d{1,10})\s+\[(\d{1,5})\](?:\s+[.\w#]{4,6})?\s+(\d{1,12})\.(\d{3,9}): "
    r"((?:mm_(?:page|compaction|vmscan)|kmem_cache|kmalloc)\w{0,40}): "
    r"(\w+=[^\s=()]+(?: \w+=[^\s=()]+)*) {0,80}$"
)
_SHRINK_WITHOUT_NAME = re.compile(r":\s*(?=objects to shrink -?\d)")
_PREFIX = re.compile(r"(?:\[(\d{1,5})\]|\s(\d{1,4})\))[^\[\]]*$")
_SECONDS = re.compile(r"(?<![\w.])(\d{1,12})\.(\d{3,9}):?\s*(?:[a-z]\w*:)?\s*$")
_MICROS = re.compile(r"(?<![\w.])(\d{1,18})us[!+#*@$]?\s*:\s*$")
_PID = re.compile(r"(?:^|\S)-(\d{1,10})\s*(?=\(|\[|\d+\.|$|\s+\d)|\s(\d{1,10})(?:/\d{1,10})?\s+\[")
_TIMED = re.compile(r"(?:\[\d{3,5}\]\s+(?:[.\w#]{1,8}\s+)?|-\d{1,10}\s+)\d{1,12}\.\d{3,9}:")
_FIELD = re.compile(
    r"([A-Za-z_]\w{0,40})=\s?(\(null\)|\(nil\)|\([^()]{0,80}~[^()]{0,80}\)|[^\s,]+)(?:\s+\((-?\d{1,20})\))?"
)
_PHRASE = re.compile(
    r"\b(objects to shrink|gfp_flags|pgs_scanned|lru_pgs|cache items|delta|total_scan|priority"
    r"|unused scan count|new scan count|last shrinker return val|nid)"
    r":?\s+(-?\d{1,20}|[A-Z_|0-9a-fx]+)(?![\w+])"
)
_CHAIN = re.compile(
    r"^\s*=>\s*\S+|^\s+[0-9a-f]{8,16}\s+[\w.\[]+(?:\+0x|\s*\(|\]|\s*$)"
    r"|^\s*\S{1,80}\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?:\s+\(|\s*$)|<stack trace>"
)
_LOST = re.compile(
    r"\bCPU:\s?(\d{1,5})\s+\[(?:LOST\s+(\d{1,18})\s+)?EVENTS(?:\s+(DROPPED))?\]|\bLOST (\d{1,18}) events",
    re.I,
)
_WRITTEN = re.compile(r"entries-in-buffer/entries-written:\s*(\d{1,18})/(\d{1,18})")
_CSV_HEAD = re.compile(r"^\s*nsecs,cpu,pid,op,pfn,order,migratetype,gfp\s*$")
_CSV = re.compile(
    r"^\s*(\d{1,19}),(\d{1,5}),(\d{1,10}),([AF]),(0x[0-9a-f]{1,16}|\d{1,19}),(\d{1,3}),(-?\d{1,3}),(\w*)\s*$"
)
_ABOUT = re.compile(r"^\s*(?:cpus=\d+|CPU \d+ is empty|version = \d+)\s*$")
_LATENCY_CPU = re.compile(r"-\d{1,10}\s+(\d{1,4})[.\w#]{3,8}\s")
MAX_JOINED = 12
MAX_FIELDS = 40
MAX_EVENT = 8192


class TraceEvent(NamedTuple):
    """One event of a trace.

    Attributes
    ----------
    line : int
    time_ns : int or None
        Time stamp in nanoseconds.
    cpu, pid : int or None
    name : str
        The event's name without its subsystem.
    fields : dict
        Integers where they are numbers (pfn in either base), else text. Phrases of the shrinker events
        ("cache items") are keys, too.
    """

    line: int
    time_ns: int | None
    cpu: int | None
    pid: int | None
    name: str
    fields: dict[str, int | str]

    @property
    def pfn(self) -> int | None:
        """The page frame, None where the event has none or the request failed."""
        value = self.fields.get("pfn")
        return value if isinstance(value, int) and value > 0 and not self.is_failed_allocation else None

    @property
    def is_failed_allocation(self) -> bool:
        """Whether this is an allocation that got nothing: pfn 0, whatever `page=` says."""
        if not self.name.startswith("mm_page_alloc") or "pfn" not in self.fields:
            return False
        pfn = self.fields["pfn"]
        is_null = self.fields.get("page") in (0, "(null)", "(nil)")
        return pfn == 0 or (is_null and isinstance(pfn, int) and pfn >= 1 << 40)


class TraceEvents:
    """Puts events together from lines: some wrapped, some with call chains below them.

    Call `take` with each line; events come out of `ready`, the last one after `finish`.
    """

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        self.ready: list[TraceEvent] = []
        self.other_events = self.chains = self.lost_events = 0
        self.lost_marks = 0
        self.is_csv = False
        self._text = ""
        self._number = self._joined = 0
        self._open = False  # may be continued
        self._usual: re.Match[str] | None = None
        self._prefix_alone = False  # wrapped between time stamp and name

    def take(self, line: TextLine, follows: bool) -> bool:
        """Whether the line belongs to a trace; events that are complete are in `ready` then."""
        text = line.text
        usual = _USUAL.match(text)
        if usual:
            self._begin(line, usual)
            return True
        if _EVENT.search(text) or _SHRINK_WITHOUT_NAME.search(text):
            return self._take_event(line)
        if "," in text and self._take_csv(line):
            return True
        if text.lstrip().startswith("#") and self._take_comment(text, follows):
            return True
        if ("EVENTS" in text or "LOST" in text.upper()) and (match := _LOST.search(text)):
            self.finish()
            self.lost_marks += 1
            self.lost_events += int(match[2] or match[4] or 0)
            return True
        return self._take_other(line, follows)

    def finish(self) -> None:
        """Hand out the event that was being put together."""
        if self._text:
            event = (
                _usual_event(self._usual, self._number)
                if self._usual
                else parse_event(self._text, self._number)
            )
            if event is not None:
                self.ready.append(event)
        self._text, self._usual, self._open = "", None, False

    def say_lost(self) -> None:
        """Tell the receipt of events that the recorder says it lost."""
        if self.lost_marks:
            nr = self.lost_events
            text = counted(nr, "event") if nr else "an unknown number of events"
            self.receipt.say("lost", f"{text} at {counted(self.lost_marks, 'mark')} of the recorder")

    def _begin(self, line: TextLine, usual: re.Match[str] | None = None) -> None:
        self.finish()
        self._text, self._number, self._joined = line.text[:MAX_EVENT], line.number, 0
        self._usual, self._prefix_alone, self._open = usual, False, True

    def _take_event(self, line: TextLine) -> bool:
        """A line with an event's name: a new event, or the rest of one whose prefix stood alone."""
        text = line.text
        if self._text and self._prefix_alone and not _TIMED.search(text):
            self._prefix_alone = False
            self._join(text)
        else:
            self._begin(line)
        self._open = True
        return True

    def _take_other(self, line: TextLine, follows: bool) -> bool:
        text = line.text
        if _TIMED.search(text):
            self.finish()
            if text.rstrip().endswith(":"):  # wrapped right behind the time stamp
                self._text, self._number, self._joined = text, line.number, 0
                self._open = self._prefix_alone = True
            else:
                self.other_events += 1
            return True
        if _ABOUT.match(text):
            return True
        if not follows:
            return False
        if not text.strip():
            self._open = False
            return True
        is_open = bool(self._text) and self._open
        if is_open and (_FIELD.search(text) or _PHRASE.search(text)):
            self._join(text)
            return True
        if _CHAIN.search(text):
            self.chains += 1
            self._open = False
            return True
        if is_open and _is_tail(text):
            self._join(text)
            return True
        return False

    def _join(self, text: str) -> None:
        self._joined += 1
        if self._joined <= MAX_JOINED:
            self._usual = None
            self._text = f"{self._text.rstrip()} {text.strip()}"[:MAX_EVENT]
            self.receipt.say("repaired", "wrapped events joined")

    def _take_comment(self, text: str, follows: bool) -> bool:
        """Header of ftrace: how many entries were written and how many are still in the buffer."""
        match = _WRITTEN.search(text)
        if match:
            kept, written = int(match[1]), int(match[2])
            if written > kept:
                self.receipt.say(
                    "lost", f"{written - kept} of {written} events overwritten before they were read"
                )
            return True
        return follows or "tracer:" in text or "TASK-PID" in text

    def _take_csv(self, line: TextLine) -> bool:
        if _CSV_HEAD.match(line.text):
            self.is_csv = True
            return True
        match = _CSV.match(line.text) if self.is_csv else None
        if match is None:
            return False
        time, cpu, pid, letter, pfn, order, mt, gfp = match.groups()
        name = "mm_page_alloc" if letter == "A" else "mm_page_free"
        fields: dict[str, int | str] = {
            "pfn": int(pfn, 0) if pfn.startswith("0x") else int(pfn),
            "order": int(order),
        }
        if letter == "A":
            fields |= {"migratetype": int(mt), "gfp_flags": gfp}
        self.ready.append(TraceEvent(line.number, int(time), int(cpu), int(pid), name, fields))
        return True


def parse_event(text: str, number: int) -> TraceEvent | None:
    """One event from its whole text, None where there is no event of memory management in it."""
    match = _EVENT.search(text)
    if match:
        name, prefix, rest = match[1], text[: match.start()], text[match.end() :]
    else:
        match = _SHRINK_WITHOUT_NAME.search(text)
        if match is None:
            return None
        name, prefix, rest = "mm_shrink_slab_start", text[: match.end()], text[match.end() :]
    fields: dict[str, int | str] = {}
    for key, word, decimal in _FIELD.findall(rest)[:MAX_FIELDS]:
        fields[key] = int(decimal) if decimal else _value(key, word)
    if name.startswith("mm_shrink_slab"):
        for phrase, word in _PHRASE.findall(rest)[:MAX_FIELDS]:
            fields[phrase] = _value(phrase, word)
    return TraceEvent(number, _time_of(prefix), _cpu_of(prefix), _pid_of(prefix), name, fields)


def _usual_event(match: re.Match[str], number: int) -> TraceEvent:
    """One event of the usual form."""
    pid, cpu, seconds, decimals, name, rest = match.groups()
    fields: dict[str, int | str] = {}
    for word in rest.split():
        key, _, value = word.partition("=")
        if value.isdecimal() and len(value) < 12 and key != "page" and key != "ptr":
            fields[key] = int(value)
        else:
            fields[key] = _value(key, value)
    time_ns = int(seconds) * 1_000_000_000 + int(decimals.ljust(9, "0"))
    return TraceEvent(number, time_ns, int(cpu), int(pid), name, fields)


def _value(key: str, word: str) -> int | str:
    """A number where the field is one. `pfn=` may be hexadecimal without 0x; `page=` is kept as printed."""
    word = word.rstrip(",;")
    if word in ("(null)", "(nil)"):
        return 0
    plain = word.removeprefix("-")
    if len(word) > 24:
        return word
    try:
        if plain.startswith("0x"):
            return int(word, 16)
        if plain.isascii() and plain.isdigit() and not (key in ("page", "ptr") and plain.strip("0")):
            return int(word)
        if key == "pfn":
            return int(word, 16)
    except ValueError:
        return word
    return word


def _time_of(text: str) -> int | None:
    prefix = text.rstrip()[-80:]
    if match := _SECONDS.search(prefix):
        return int(match[1]) * 1_000_000_000 + int(match[2].ljust(9, "0"))
    if match := _MICROS.search(prefix):
        return int(match[1]) * 1000
    return None


def _cpu_of(prefix: str) -> int | None:
    if match := _PREFIX.search(prefix):
        return int(match[1] or match[2])
    match = _LATENCY_CPU.search(prefix)
    return None if match is None else int(match[1])


def _pid_of(prefix: str) -> int | None:
    """The digits behind the last dash before the CPU; perf puts blanks there. Names may hold both."""
    found = None
    for match in _PID.finditer(prefix):
        found = match
    return None if found is None else int(found[1] or found[2])


def _is_tail(text: str) -> bool:
    """A short piece that a mail program wrapped: ``scan count 12 total_scan 8``, ``~ 0x10002d)``."""
    return len(text) < 120 and bool(
        re.match(r"^\s*(?:[a-z~|_A-Z0-9].*\d|\|[A-Z_|]+|[A-Z_|]{3,})\s*\)?\s*$", text)
    )
