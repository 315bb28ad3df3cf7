"""Undo what mail programs, loggers and web pages do to kernel text.

Owns the repair of lines: quoted-printable, quote marks, HTML entities, escapes such as a literal ``\\x0a``,
terminal colours, stamps in the middle of glued lines, and the prefixes of loggers. Each repair is told to the
receipt. Joining wrapped lines is the readers' matter: only they know where a record ends.
"""

from __future__ import annotations

import html
import quopri
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from spbfast.observed.receipt import Receipt
from spbfast.observed.textlines import LINE_LIMIT

_ESCAPED = re.compile(r"=(?:[0-9A-F]{2}|$)")
_SOFT_BREAK = re.compile(r"=[ \t]*$")
_QUOTE = re.compile(r"^(?:[ \t]{0,8}>(?=[ \t>\[A-Za-z<$#]|$)[ \t]?)+")
_ENTITY = re.compile(r"&(?:gt|lt|amp|quot|nbsp|#x?[0-9a-fA-F]{1,6});")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LITERAL = re.compile(r"\\x0[aAdD]|#012(?=\s|[A-Za-z\[])|\\n(?=[ \[A-Z])")
_LITERAL_BLANK = re.compile(r"\\x09|\\t(?=\s)|#011")
_MARKDOWN = re.compile(r"\\(?=[*_\[\]<>])")
_SUSPECT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\\&>\xa0\u200b\u200e\u200f\ufeff]")
_BLANKS = re.compile(r"[ \t]{40,}")
_LONG = 400
_STAMP = re.compile(r"\[ {0,5}\d{1,8}\.\d{6}\]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\ufeff]")
_STAMP_INSIDE = re.compile(r"(?<=\S)\s*(?=\[ {0,5}\d{1,8}\.\d{6}\])")
_TRACE = re.compile(r"\b(?:mm|kmem)_\w+:|:\s*objects to shrink")

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_PREFIXES = [
    re.compile(p)
    for p in (
        r"<\d{1,3}>",
        r"\d{1,3},\d{1,20},\d{1,20},[-c][^;]{0,60};",
        r"[^=*]{0,120}?\bkernel(?:\[\d+\])?: ?",
        r"\[ {0,8}\d{1,9}\.\d{3,9}\] ?",
        r"\[ {0,8}[TC]\d{1,8}\] ?",
        r"\[(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[^\]]{10,30}\] ?",
        r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d\S*\s+",
        r"\d\d-\d\d \d\d:\d\d:\d\d\.\d+\s+\d+\s+\d+ [VDIWEF] [^:]{0,30}: ?",
        rf"(?:\w{{3}} )?{_MONTH} {{1,2}}\d{{1,2}} \d\d:\d\d:\d\d(?:\.\d+)?(?: \d{{4}})? ",
        r"kern(?:\.\w+)? *: *\w+ *: ?",
    )
]


class TextLine(NamedTuple):
    """A line after repair, with its number in the file."""

    number: int
    text: str


def is_quoted_printable(sample: Iterable[str]) -> bool:
    """Whether every ``=`` is an escape or a line end, and at least one can be nothing else."""
    telling = 0
    blanks = 0
    for line in sample:
        if "=" not in line:
            continue
        escapes = len(_ESCAPED.findall(line))
        if escapes != line.count("="):
            return False
        telling += "=3D" in line or line.endswith("=")
        blanks += line.endswith("=20")
    return telling > 0 or blanks > 1


def unwrap_quoted_printable(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Decode quoted-printable lines; a soft break joins the next line, up to the limit of a line."""
    held, start = "", 0
    for number, line in lines:
        start = start if held else number
        if _SOFT_BREAK.search(line) and len(held) + len(line) < LINE_LIMIT:
            held += _SOFT_BREAK.sub("", line)
            continue
        yield start, _decoded_escapes(held + line)
        held = ""
    if held:
        yield start, _decoded_escapes(held)


def cleaned_lines(lines: Iterable[tuple[int, str]], receipt: Receipt) -> Iterator[TextLine]:
    """Repaired lines; one line of the file may become several, with the same number."""
    for number, line in lines:
        if len(line) > _LONG:
            line = _BLANKS.sub(" " * 40, line)
        if not _SUSPECT.search(line) and "#01" not in line and not _STAMP.search(line):
            yield TextLine(number, line)
            continue
        parts = _split_literals(line, receipt) if "\\" in line or "#01" in line else [line]
        for part in parts:
            for piece in _unglued(_without_marks(part, receipt), receipt):
                yield TextLine(number, piece)


def without_prefix(text: str) -> str:
    """A line without what loggers put before it (syslog, journal, dmesg, logcat, kmsg)."""
    rest = text.lstrip()
    for _ in range(6):
        for prefix in _PREFIXES:
            match = prefix.match(rest)
            if match and match.end():
                rest = rest[match.end() :]
                break
        else:
            break
    return rest


def _decoded_escapes(text: str) -> str:
    return quopri.decodestring(text.encode("utf-8", "replace")).decode("utf-8", "replace")


def _without_marks(line: str, receipt: Receipt) -> str:
    text = line
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
        receipt.say("repaired", "terminal colours taken out")
    if "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
        receipt.say("repaired", "HTML entities decoded")
    text = _CONTROL.sub("", text).replace("\xa0", " ")
    quote = _QUOTE.match(text) if ">" in text else None
    if quote:
        text = text[quote.end() :]
        receipt.say("repaired", "quote marks '>' taken off")
    return text


def _split_literals(text: str, receipt: Receipt) -> list[str]:
    text = _MARKDOWN.sub("", _LITERAL_BLANK.sub(" ", text))
    parts = _LITERAL.split(text)
    if len(parts) > 1:
        receipt.say("repaired", "line ends written as text (\\x0a, \\n or #012) turned into line ends")
    return parts


def _unglued(text: str, receipt: Receipt) -> list[str]:
    """Split where a second dmesg stamp stands inside a line."""
    if "[" not in text or _TRACE.search(text):
        return [text]
    parts = _STAMP_INSIDE.split(text)
    if len(parts) == 1:
        return parts
    first, *rest = parts
    if without_prefix(first).strip() == "" or re.fullmatch(r".{0,120}kernel:\s*", first):
        return [text]
    receipt.say("repaired", "lines glued together split at their time stamps")
    return [first, *rest]
