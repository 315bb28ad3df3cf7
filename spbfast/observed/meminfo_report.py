"""Mem-Info reports: what a kernel logs when a page allocation fails, at an OOM kill, or on SysRq-m.

Owns the assembling of a report from log lines, whatever logger, mail program or second CPU had a hand in
them: lines that can belong to a report are joined into one text, and report_text.py finds the values in it.
A report lasts until the next one, or until nothing of its kind has come for a while.
"""

from __future__ import annotations

import re

from spbfast.observed.cleanup import TextLine, without_prefix
from spbfast.observed.families import Collector, TextFamily
from spbfast.observed.receipt import shown
from spbfast.observed.report_text import ReportText
from spbfast.observed.values import FailedRequest, Snapshot

_ZONE = r"(?:DMA32|DMA|Normal|HighMem|Movable|Device)"
_START = re.compile(
    rf"\bMem-[Ii]nfo:|\b{_ZONE}\s+free:\s?\d+\s*[kK]B|\b{_ZONE}:\s+\d+(?:\s*[*_x×]\s*\d+)?\s*[kK]B"
    r"|\bactive_anon:\d+ inactive_anon:|\bActive:\d+ inactive:\d+"
)
_MEM_INFO = re.compile(r"\bMem-[Ii]nfo:")
_HEAD = re.compile(
    r"page allocation (?:failure|stalls)\b|\ballocation failure: order:|invoked oom-killer"
    r"|[Ss]ys[Rr]q ?: ?(?:Show Memory|Manual OOM)"
)
_ORDER = re.compile(r"(?<!default )(?<!min )\border\s*[:=]\s*(-?\d{1,3})\b")
_GFP = re.compile(r"\b(?:gfp_mask|mode)\s*[:=]\s*(0x[0-9a-fA-F]{1,8})\b(?:\s*\(([A-Z_|x0-9a-f\s]*)(\)?))?")
_CALLER = re.compile(r"\[ {0,8}\d{1,9}\.\d{3,9}\]\[ {0,8}([TC]\d{1,8})\]")
_NODES = re.compile(r"\b(?:nodemask|mems_allowed)=(\d{1,4}(?:[-,]\d{1,4}){0,8})\b")
_KERNEL = re.compile(r"(?:Not tainted|Tainted:[^.]{0,60}?|Linux version) +(\d\.\d{1,3}[\w.+~-]{0,60})")
_VMALLOC = re.compile(r"\bvmalloc: allocation failure: (\d{1,20}) bytes|\bvmalloc error: size (\d{1,20})")
_CONTENT = re.compile(
    rf"[a-z_\])]:\s?\d|[*_x×]\s*\d+\s*[kK]B|\d\s*[kK]B\b|\[\]:|\?\s+(?:yes|no)?\s*$|^\s*\d{{1,20}}(?:\s+\d{{1,20}})*\s*$"
    rf"|{_ZONE}:\s*(?:empty)?\s*$|Node\s+\d+\s*(?:{_ZONE})?\s*$|^\s*{_ZONE}\s*$|\bpages?\b|[Ss]wap|hugepages_\w+=|^\s*=\s*$|^\s*\(?[UMERCIH]{{1,7}}\)"
    rf"|^\s*(?:yes|no)\s*$|\b{_ZONE}\s+free:"
)
_FOREIGN = re.compile(
    r"\+0x[0-9a-f]+/0x|^\s*\[<[0-9a-f]+>\]|^\s*\[\s*\d+\]\s+\d|^\s*CPU\s*:?\s*\d+|\bCPU:"
    r"|Hardware name|^[0-9a-f ]{33,}$"
    r"|\b(?:R[0-9A-D][0-9X]|RIP|EIP|CR2): "
)
_AROUND = re.compile(
    r"^\s*(?:Call [Tt]race|Workqueue|Modules linked|Code:|Tasks state|Stack:|<?/?IRQ>|</?TASK>|\? )"
    r"|^\s*\[ *pid *\]|oom-kill:|Out of memory|oom_reaper|Kill(?:ed)? process|SLUB: Unable|^\s*cache: "
    r"|per-cpu:|^\s*cpu \d+ (?:hot|cold):|^\s*Free pages:|^\s*node \d+: slabs:|warn_alloc|cpuset=|nodemask="
)
_CGROUP = re.compile(r"^\s*memory: usage \d+kB, limit|\bMemory cgroup (?:out of memory|stats)")
_END = re.compile(r"\bTasks state|\bOut of memory\b|oom-kill:constraint|\[ ?pid ?\]|Memory cgroup stats")
MAX_REPORT = 1 << 20
PATIENCE = 300
MAX_REQUESTS = 2000
MAX_NODE = 1023
MAX_CALLERS = 64


class MemInfoReader(TextFamily):
    """Reader of failure, OOM and SysRq-m reports.

    Where the kernel prints who wrote a line, as in ``[ 1.000001][ T101]``, each caller's lines are put
    together apart. A line that says nothing of it continues the one before.
    """

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.last = ReportAssembler(collector)
        self.assemblers = {"": self.last}

    @property
    def is_open(self) -> bool:
        """Whether any line may belong to a report that has begun."""
        return any(a.is_open for a in self.assemblers.values())

    def take(self, line: TextLine, follows: bool) -> bool:
        match = _CALLER.search(line.text) if "][" in line.text else None
        if match and (match[1] in self.assemblers or len(self.assemblers) < MAX_CALLERS):
            self.last = self.assemblers.setdefault(match[1], ReportAssembler(self.collector))
        return self.last.take(line, follows)

    def finish(self) -> None:
        for assembler in self.assemblers.values():
            assembler.finish()


class ReportAssembler:
    """One writer's lines, put together to reports."""

    def __init__(self, collector: Collector) -> None:
        self.collector, self.receipt = collector, collector.receipt
        self.requests: list[FailedRequest] = []
        self.head = ""
        self.request: FailedRequest | None = None
        self.kernel = ""
        self.vmalloc_bytes: int | None = None
        self.text: list[str] | None = None
        self.length = self.quiet = self.start = self.nr_reports = 0

    @property
    def is_open(self) -> bool:
        """Whether any line may belong to a report that has begun."""
        return self.text is not None or bool(self.requests) or self.nr_reports > 0

    def take(self, line: TextLine, follows: bool) -> bool:
        """Whether the line belongs to a report or its surroundings."""
        body = without_prefix(line.text)
        if match := _KERNEL.search(body):
            self._note_kernel(match[1])
            return True
        if match := _VMALLOC.search(body):
            self.vmalloc_bytes = int(match[1] or match[2])
            return True
        if match := _HEAD.search(body):
            self._end_report()
            self._begin_request(line.number, body)
            return True
        if self.request is not None and self.request.outcome == "oom" and _CGROUP.search(body):
            self.request.outcome = "memcg"
            return True
        if self.request is not None and self._take_rest_of_head(body):
            return True
        if self._take_report_line(line.number, body):
            return True
        return self._take_surroundings(body, follows)

    def finish(self) -> None:
        """End the last report; headlines without one become snapshots of their own."""
        self._end_report()
        if self.request is None and not self.requests:
            return
        for request in self.requests:
            if not request.has_dump and request.outcome != "sysrq":
                text = f"line {request.line}: {request_words(request)}: no Mem-Info follows"
                self.receipt.say("missing", text)
                snapshot = self.collector.new_snapshot("meminfo_report", request.line)
                snapshot.request, snapshot.kernel = request, request.kernel

    def _note_kernel(self, version: str) -> None:
        self.kernel = version
        if self.request is not None and not self.request.kernel:
            self.request.kernel = version

    def _take_surroundings(self, body: str, follows: bool) -> bool:
        """Call traces, registers and tasks around a report."""
        if not (self.requests or self.nr_reports or self.text is not None):
            return False
        if _FOREIGN.search(body) or _AROUND.search(body) or (follows and re.match(r"^[0-9a-f ]{15,}$", body)):
            self.receipt.say("left_out", "call traces, registers and tasks around the reports")
            return True
        return False

    def _begin_request(self, number: int, body: str) -> None:
        outcome = "failure"
        if "invoked oom-killer" in body:
            outcome = "oom"
        elif "allocation stalls" in body:
            outcome = "stall"
        elif "allocation failure" not in body:
            outcome = "sysrq"
        self.request = FailedRequest(outcome, number)
        if len(self.requests) < MAX_REQUESTS:
            self.requests.append(self.request)
        self.head = body
        self._read_head()

    def _read_head(self) -> bool:
        """Order and flags from the headline; whether it is whole."""
        request = self.request
        assert request is not None
        if match := _ORDER.search(self.head):
            request.order = int(match[1])
        match = _GFP.search(self.head)
        if match:
            names = re.sub(r"\s+", "", match[2] or "")
            request.gfp = names or match[1]
        if nodes := _NODES.search(self.head):
            request.nodes = _node_list(nodes[1])
        if request.outcome == "oom" and request.order == -1:
            request.outcome = "sysrq"
        closed = match is not None and (match[2] is None or bool(match[3]))
        return request.outcome == "sysrq" or (closed and request.order is not None)

    def _take_rest_of_head(self, body: str) -> bool:
        """A headline that was wrapped: its rest names the order or the flags."""
        if len(self.head) > 2000 or _START.search(body) or _FOREIGN.search(body):
            return False
        is_cut = re.search(r"(?:[,(|:]|failure|killer|GFP_\w*)\s*$", self.head)
        if not is_cut or self._read_head():
            return False
        if not re.search(r"\b(?:order|mode|gfp_mask)\b|^\s*[|_A-Z]+[)|,]", body):
            return False
        self.head += " " + body
        self._read_head()
        self.receipt.say("repaired", "wrapped headline joined")
        return True

    def _take_report_line(self, number: int, body: str) -> bool:
        begins = _START.search(body)
        if begins and _MEM_INFO.search(body):
            self._end_report()
        if self.text is None:
            if not begins:
                return False
            self.text, self.start, self.length = [], number, 0
        if _END.search(body):
            self._end_report()
            return False
        if _FOREIGN.search(body) or not _CONTENT.search(body):
            return self._wait(body)
        self.quiet = 0
        self.length += len(body) + 1
        if self.length <= MAX_REPORT:
            self.text.append(self._without_remarks(number, body))
        return True

    def _wait(self, body: str) -> bool:
        """Another CPU's line in between, or the end."""
        if not body.strip():
            return True
        self.quiet += 1
        if self.quiet > PATIENCE:
            self._end_report()
        return bool(_MEM_INFO.search(body))

    def _without_remarks(self, number: int, body: str) -> str:
        text, mark, remark = body.partition(" //")
        if mark:
            self.receipt.say("left_out", f"line {number}: a remark: //{shown(remark, 40)}")
        if re.search(r"\S>\s*$", text) and len(text) > 60:
            self.receipt.say("missing", f"line {number}: cut by a pager ('>' at its end)")
            text = re.sub(r"\S*>\s*$", "", text)
        return text

    def _end_report(self) -> None:
        if self.text is None:
            return
        text, self.text, self.quiet = " ".join(self.text), None, 0
        self.nr_reports += 1
        report = ReportText(self.collector, self.start)
        snapshots = report.snapshots(text)
        for snapshot in snapshots:
            self._attach_request(snapshot)

    def _attach_request(self, snapshot: Snapshot) -> None:
        """The latest request that has no dump yet; with several waiting this is a guess."""
        waiting = [r for r in self.requests if not r.has_dump and r.line <= self.start]
        snapshot.kernel = self.kernel
        if not waiting:
            self.receipt.say("missing", f"line {snapshot.line}: Mem-Info without the headline of its request")
            return
        snapshot.request = waiting[-1]
        snapshot.request.has_dump = True
        snapshot.kernel = snapshot.request.kernel or self.kernel
        if len(waiting) > 1:
            self.receipt.say(
                "guessed",
                f"line {snapshot.line}: Mem-Info taken for that of the latest of {len(waiting)} requests",
            )
        if self.vmalloc_bytes is not None:
            snapshot.counters["vmalloc_bytes"] = self.vmalloc_bytes
            self.vmalloc_bytes = None


def _node_list(text: str) -> frozenset[int]:
    """``0-1,3`` as 0, 1, 3."""
    nodes: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        nodes.update(range(int(first), min(int(last.partition("-")[0] or first), MAX_NODE) + 1))
    return frozenset(nodes)


def request_words(request: FailedRequest) -> str:
    """A request in words, such as ``order 4, GFP_KERNEL, failed``."""
    order = "order not told" if request.order is None else f"order {request.order}"
    outcome = {"failure": "failed", "stall": "stalled", "oom": "OOM kill", "sysrq": "asked for by hand"}
    outcome["memcg"] = "OOM kill in a memory cgroup"
    return f"{order}, {request.gfp or 'flags not told'}, {outcome[request.outcome]}"
