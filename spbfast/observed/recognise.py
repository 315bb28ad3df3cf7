"""What a file is, by its first bytes; never by its name.

Owns the choice between the readers. Text is offered to all text readers line by line, so only what is not
text needs to be told apart here, and what nobody can read is refused by name.
"""

from __future__ import annotations

import os
from pathlib import Path

from spbfast.errors import DumpError
from spbfast.observed.capture_file import is_capture
from spbfast.observed.llfree import is_llfree
from spbfast.observed.plotfrag import is_plotfrag
from spbfast.observed.textlines import head_of_file, text_encoding

_MAGIC = {
    b"\x1f\x8b": "gzip-compressed; unpack it with gunzip",
    b"\xfd7zXZ\x00": "xz-compressed; unpack it with unxz",
    b"(\xb5/\xfd": "zstd-compressed; unpack it with unzstd",
    b"BZh": "bzip2-compressed; unpack it with bunzip2",
    b"PK\x03\x04": "a ZIP archive; unpack it and give the files inside",
    b"PERFILE2": "a perf.data file; give the text of `perf script`",
    b"\x17\x08\x44tracing": "a trace.dat file; give the text of `trace-cmd report`",
    b"\x7fELF": "a program or a core dump",
    b"%PDF": "a PDF; copy its text into a file",
    b"\x89PNG": "a picture; type or scan its text into a file",
    b"\xff\xd8\xff": "a picture; type or scan its text into a file",
    b"KDUMP": "a crash dump; give the log inside (crash> log)",
    b"SQLite format 3": "a database",
    b"\x89HDF": "an HDF5 or netCDF file, such as spbfast's own results",
}
BINARY_SHARE = 0.1


def kind_of_file(path: Path) -> tuple[str, str]:
    """``capture``, ``llfree``, ``plotfrag`` or ``text``, and the text's encoding.

    Raises
    ------
    DumpError
        When the file is empty, no plain file, or of a kind that is not read; the message names the kind.
    """
    head = head_of_file(path)
    if is_capture(head):
        return "capture", ""
    if is_llfree(head, os.stat(path).st_size):
        return "llfree", ""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise DumpError(path, 0, f"is {what}")
    if head[257:262] == b"ustar":
        raise DumpError(path, 0, "is a tar archive; unpack it and give the files inside")
    encoding = text_encoding(head)
    text = head.decode(encoding, "replace")
    strange = sum(1 for c in text if c == "\ufffd" or (c < " " and c not in "\t\n\r\f\x1b\0"))
    if strange + text.count("\0") / 4 > BINARY_SHARE * len(text):
        raise DumpError(path, 0, "is a binary file of no kind that is read; expected text of a kernel")
    return ("plotfrag" if is_plotfrag(text) else "text"), encoding
