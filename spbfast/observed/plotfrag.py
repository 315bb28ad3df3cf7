"""plot-fragmentation's JSON: extfrag and compaction events, sampled while a machine ran.

Owns the streaming of its events: one object at a time, so that the file may be large, cut off, or hostile.
`fragmentation_index` is a placeholder of that tool and is not used.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spbfast.errors import DumpError
from spbfast.observed.families import Collector
from spbfast.observed.receipt import shown
from spbfast.observed.textlines import HEAD_BYTES, head_of_file, open_regular, text_encoding
from spbfast.observed.values import TraceSummary

MAX_OBJECT = 1 << 20
MAX_DEPTH = 50
_EVENTS = re.compile(r'"events"\s*:\s*\[')
_METADATA = re.compile(r'"metadata"\s*:\s*(?=\{)')
_SEPARATORS = " \t\r\n,"


class _Window:
    """A sliding piece of a JSON text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        encoding = text_encoding(head_of_file(path))
        self.file = open_regular(path)
        self.decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self.text, self.line, self.at_end = "", 1, False

    def more(self) -> bool:
        """Read on; False at the end of the file."""
        raw = self.file.read(HEAD_BYTES)
        self.text += self.decoder.decode(raw, final=not raw)
        self.at_end = not raw
        return not self.at_end

    def drop(self, nr_chars: int) -> None:
        self.line += self.text.count("\n", 0, nr_chars)
        self.text = self.text[nr_chars:]


def is_plotfrag(head: str) -> bool:
    """Whether a text begins as such a file does."""
    start = head.lstrip("\ufeff \t\r\n")
    return start.startswith("{") and any(f'"{k}"' in start for k in ("events", "metadata", "event_type"))


def read_plotfrag(path: str | Path, summary: TraceSummary | None = None) -> Iterator[dict[str, Any]]:
    """Events of a file, one dict each; metadata goes into `summary.facts`.

    Raises
    ------
    DumpError
        When there is no list of events, or an event is no JSON.
    """
    window = _Window(Path(path))
    with window.file:
        _skip_to_events(window, summary)
        while (event := _next_object(window)) is not None:
            yield event
        if summary is not None and window.at_end and not window.text.lstrip(_SEPARATORS).startswith("]"):
            summary.facts["cut"] = True


def summarise_plotfrag(collector: Collector) -> None:
    """Count a file's events into the collector."""
    summary = TraceSummary("plotfrag", 1, str(collector.path))
    collector.traces.append(summary)
    for event in read_plotfrag(collector.path, summary):
        kind, order = event.get("event_type"), event.get("order")
        pair = None
        if "migrate_from" in event and "migrate_to" in event:
            pair = f"{shown(str(event['migrate_to']), 20)} from {shown(str(event['migrate_from']), 20)}"
        name = shown(str(kind), 30)
        known = name in summary.events or len(summary.events) < 50
        summary.count(name if known else "?", order if isinstance(order, int) else None, pair)
        time = event.get("timestamp")
        if isinstance(time, int | float) and 0 <= time < 1e10:
            summary.note_time(round(time * 1e9))
    _say_limits(collector, summary)


def _say_limits(collector: Collector, summary: TraceSummary) -> None:
    receipt = collector.receipt
    total, told = sum(summary.events.values()), summary.facts.get("total_events")
    if summary.facts.pop("cut", False):
        receipt.say("missing", f"the file ends within its list of events, after {total}")
    if isinstance(told, int) and told != total:
        receipt.say("lost", f"{total} of the {told} events that the metadata tells of are in the file")
    receipt.say("left_out", "fragmentation_index is a placeholder of plot-fragmentation and not used")
    receipt.say("missing", "events are sampled, and name no page frame")


def _skip_to_events(window: _Window, summary: TraceSummary | None) -> None:
    decoder = json.JSONDecoder()
    while True:
        has_more = window.more()
        match = _EVENTS.search(window.text)
        metadata = _METADATA.search(window.text, 0, match.start() if match else len(window.text))
        if metadata and summary is not None and (match or not has_more):
            facts = _decoded_object(decoder, window, metadata.end())
            if facts is not None:
                summary.facts.update({str(k)[:40]: _fact(v) for k, v in list(facts[0].items())[:30]})
        if match:
            window.drop(match.end())
            return
        if not has_more or len(window.text) > MAX_OBJECT:
            raise DumpError(window.path, window.line, 'no list "events" as plot-fragmentation writes it')


def _next_object(window: _Window) -> dict[str, Any] | None:
    """The next event, None at the end of the list or of the file."""
    decoder = json.JSONDecoder()
    while True:
        start = len(window.text) - len(window.text.lstrip(_SEPARATORS))
        if start:
            window.drop(start)
        if window.text.startswith("]"):
            return None
        if window.text and not window.text.startswith("{"):
            raise DumpError(
                window.path, window.line, f"expected an event {{...}}, found {shown(window.text, 20)}"
            )
        decoded = _decoded_object(decoder, window, 0) if window.text else None
        if decoded is not None:
            window.drop(decoded[1])
            return decoded[0]
        if len(window.text) > MAX_OBJECT:
            raise DumpError(
                window.path, window.line, f"an event of more than {MAX_OBJECT} characters, or no JSON"
            )
        if not window.more():
            if not window.text.strip(_SEPARATORS):
                return None
            if _is_damaged(window.text):
                raise DumpError(window.path, window.line, f"an event is no JSON: {shown(window.text, 40)}")
            return None


def _decoded_object(
    decoder: json.JSONDecoder, window: _Window, start: int
) -> tuple[dict[str, Any], int] | None:
    """An object and where it ends, None while it is not whole."""
    piece = window.text[start : start + MAX_OBJECT]
    if _depth(piece) > MAX_DEPTH:
        raise DumpError(window.path, window.line, f"JSON nested deeper than {MAX_DEPTH}; events are flat")
    try:
        value, end = decoder.raw_decode(piece)
    except (ValueError, RecursionError):
        return None
    return value, start + end


def _depth(text: str) -> int:
    """How deep the opening brackets at the start of a text nest: a bound on the recursion of a decoder."""
    depth = deepest = 0
    for char in re.findall(r"[\[{\]}]", text[:4096]):
        depth += 1 if char in "[{" else -1
        deepest = max(deepest, depth)
        if depth <= 0:
            break
    return deepest


def _is_damaged(text: str) -> bool:
    """Whether the rest of a file holds a closed object that is no JSON, and not only a cut one."""
    return "}" in text


def _fact(value: Any) -> object:
    return value if isinstance(value, int | float | bool) else shown(str(value), 80)
