"""Damaged and hostile dumps and traces: always an observation or a DumpError, soon, in little memory.

`python -m tests.fuzz_observed --minutes 10` runs for that long with new seeds; test_fuzz_observed.py runs
some hundred. A file that provokes anything else is kept and named. Seeds are the files of tests/observed
and, where SPBFAST_REALFILES_DIR is set, those of that folder.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import quopri
import random
import resource
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from spbfast.errors import DumpError
from spbfast.observed import capture_file as container
from spbfast.observed import diagnose, read_dump, read_events
from spbfast.observed.describe import diagnosis_data, diagnosis_text, observation_data, observation_text
from spbfast.observed.llfree import LlfreeRecord, pack_record
from tests.test_capture_file import batch, capture_bytes

ROOT = Path(__file__).resolve().parents[1]
# Processor time, so that a busy machine is not taken for a slow reader.
SECONDS_MAX = 20.0
MEGABYTES_MAX = 500
LARGEST = 1 << 20  # bytes of one example; `hostile_files` has larger ones
Mutation = Callable[[random.Random, bytes, bytes], bytes]
NASTY = [
    b"99999999999999999999",
    b"18446744073709551615",
    b"9" * 30,
    b"-1",
    b">100000",
    b"0x" + b"f" * 40,
    b"(null)",
    b"=",
    b"=3D",
    b"\x00",
    b"\xff\xfe",
    b"\r",
    b"\\x0a",
    b"[  1.000001]",
    b" " * 5000,
    b"(" * 3000,
    b"Node 0, zone Normal",
    b"Mem-Info:",
    b"page allocation failure: order:",
    b"kB",
    b"{" * 500,
    "٣×−".encode(),
]


def seeds() -> list[bytes]:
    """Files to damage."""
    folders = [ROOT / "tests" / "observed"]
    if folder := os.environ.get("SPBFAST_REALFILES_DIR"):
        folders.append(Path(folder))
    files = [p.read_bytes() for folder in folders for p in sorted(folder.iterdir()) if p.is_file()]
    record = LlfreeRecord(1, 2_000_000, 4096, True, 9, 8, 77)
    page = (1).to_bytes(4, "little") + bytes(12) + pack_record(record) * 255
    header = b"".join(n.to_bytes(4, "little") for n in (1, 2, 8191))
    return [*files, header.ljust(4096, b"\0") + page, capture_bytes(batch(60))]


def _lines(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Lines dropped, doubled, swapped or taken from another file."""
    lines = data.split(b"\n")
    for _ in range(rng.randrange(1, 6)):
        i = rng.randrange(len(lines))
        lines[i : i + rng.randrange(3)] = rng.choice(
            [[], [lines[i]] * 2, other.split(b"\n")[:5], lines[i:][::-1][:4]]
        )
        lines = lines or [b""]
    return b"\n".join(lines)


def _interleave(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Two logs, as two CPUs write them."""
    one, two = data.split(b"\n"), other.split(b"\n")
    mixed = []
    while one or two:
        source = one if one and (not two or rng.random() < 0.5) else two
        mixed.append(source.pop(0))
    return b"\n".join(mixed)


def _wrap(rng: random.Random, data: bytes, other: bytes) -> bytes:
    width = rng.choice([20, 40, 72, 76, 80])
    text = data.decode("utf-8", "replace")
    mark = rng.choice(["", "> ", ">", "> > ", "| ", "\t", "Mar  5 06:07:08 h kernel: "])
    lines = [piece for line in text.split("\n") for piece in textwrap.wrap(line, width) or [""]]
    return "\n".join(mark + line for line in lines).encode()


def _bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Bytes changed, cut out, or put in."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 12)):
        i = rng.randrange(len(out) + 1)
        out[i : i + rng.choice([0, 0, 1, 7, 200])] = rng.choice([*NASTY, bytes([rng.randrange(256)])])
    return bytes(out)


def _numbers(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Words replaced by nasty ones."""
    words = data.split(b" ")
    for _ in range(rng.randrange(1, 20)):
        words[rng.randrange(len(words))] = rng.choice(NASTY)
    return b" ".join(words)


def _chunks(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The chunks of a capture with bytes changed behind its checksums, doubled or in another order."""
    if not container.is_capture(data):
        return data
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            chunks = list(container.read_chunks(Path(file.name)))
    except DumpError:
        return data
    out = io.BytesIO()
    container.write_prolog(out)
    for tag, body in rng.sample(chunks, len(chunks)) if rng.random() < 0.2 else chunks:
        changed = _bytes(rng, body, other) if rng.random() < 0.4 else body
        container.write_chunk(
            out, rng.choice(container.TAGS) if rng.random() < 0.1 or not tag else tag, changed
        )
    return out.getvalue()


MUTATIONS: list[Mutation] = [
    _chunks,
    _lines,
    _interleave,
    _wrap,
    _bytes,
    _numbers,
    lambda rng, data, other: data[: rng.randrange(len(data) + 1)],
    lambda rng, data, other: data + other,
    lambda rng, data, other: data * rng.randrange(2, 60),
    lambda rng, data, other: data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\\x0a", b" ", b"\n\n"])),
    lambda rng, data, other: quopri.encodestring(data),
    lambda rng, data, other: data.replace(b"*", rng.choice([b"_", b"", b"x", b"\\*"])),
    lambda rng, data, other: data.decode("utf-8", "replace").encode("utf-16"),
    lambda rng, data, other: bytes(rng.randrange(256) for _ in range(rng.randrange(5000))),
]


def damaged(rng: random.Random, files: list[bytes]) -> bytes:
    """A file with one to four kinds of damage."""
    data = rng.choice(files)
    if container.is_capture(data) and rng.random() < 0.7:
        return _chunks(rng, data, rng.choice(files))[:LARGEST]
    for _ in range(rng.randrange(1, 5)):
        data = rng.choice(MUTATIONS)(rng, data or b"x", rng.choice(files))[:LARGEST]
    return data


def _capture_of(tag: bytes, data: bytes) -> bytes:
    file = io.BytesIO()
    container.write_prolog(file)
    for _ in range(4):
        container.write_chunk(file, tag, data)
    return file.getvalue()


def hostile_files() -> dict[str, bytes]:
    """Large files made to hang a reader or to fill memory."""
    mega = 1 << 20
    row = b"Node %d, zone   Normal" + b"      1" * 11 + b"\n"
    nodes = b"".join(row % (i % 9999) for i in range(40000))
    zones = b"".join(b"Node %d DMA: 1*4kB 1*8kB = 12kB " % (i % 9999) for i in range(40000))
    return {
        "one line": b"x" * (64 * mega),
        "one line of blanks": b"Node 0, zone Normal " + b" " * (32 * mega),
        "lines of blanks": (b"a?" + b" " * 60000 + b"x\n") * 200,
        "quoted": b"> " * 30000 + b"\n" + b">" * 60000 + b"\n",
        "deep json": b'{"events": [' + b"[" * mega,
        "deep events": b'{"events": [' + b'{"a":' * mega,
        "endless event": b'{"events": [{"a": "' + b"x" * (16 * mega),
        "many nodes": nodes,
        "many zones in one report": b"Mem-Info:\n" + zones.replace(b" Node", b"\nNode"),
        "many zones in one line": b"Mem-Info:\n" + zones[:60000] + b"\n",
        "many counters": b"".join(b"nr_x%d 1\n" % i for i in range(300000)),
        "many caches": b"slabinfo - version: 2.1\n"
        + b"".join(b"c%d 1 1 1 1 1 : tunables\n" % i for i in range(200000)),
        "many requests": b"x: page allocation failure: order:3, mode:0x20(GFP_ATOMIC)\n" * 50000,
        "many reports": b"Mem-Info:\nDMA free:4kB min:4kB low:4kB high:4kB\nDMA: 1*4kB (U) = 4kB\n" * 20000,
        "fields": b"a-1 [000] .... 1.000001: mm_page_free: " + b"a=" * 25000 + b"(\n",
        "fields in order": b"a-1 [000] .... 1.000001: mm_page_free: " + b"a=bbbb " * 8000 + b"(\n",
        "brackets": (b"[000] " * 10000 + b"\n") * 20,
        "many tables of caches": (b"slabinfo - version: 2.1\n" + b"c 1 1 1 1 1 : tunables\n" * 200) * 2000,
        "many keys": b"".join(
            b"DMA free:4kB " + b"".join(b"k%d:4kB " % i for i in range(5000)) + b"\n" for _ in range(99)
        ),
        "many CPUs": b"Node 0, zone DMA\n  pages free 1\n" + b"  cpu: 1\n  count: 1\n" * 300000,
        "soft breaks": b"a=3D=\n" * 500000,
        "nul": bytes(8 * mega) + b"Node 0, zone Normal 1\n",
        "events of a capture": _capture_of(container.EVENTS, bytes(container.MAX_CHUNK)),
        "tables of a capture": _capture_of(
            container.SNAPSHOT, b'{"texts":{"a":"' + b"Node " * 10**7 + b'"}}'
        ),
        "a capture of brackets": _capture_of(container.HEAD, b'{"events":' + b"[" * 10**7),
        "types": b"".join(b"Node 0, zone Normal, type T%d 1 2 3\n" % i for i in range(60000)),
    }


def check(path: Path) -> None:
    """Everything that can be done with one file.

    Raises
    ------
    AssertionError
        When it takes too long.
    """
    start = time.process_time()
    try:
        observation = read_dump(path)
        json.dumps(observation_data(observation))
        observation_text(observation)
        for diagnosis in diagnose(observation, order=3):
            json.dumps(diagnosis_data(diagnosis))
            diagnosis_text(diagnosis)
    except DumpError as error:
        names_file = str(path) in str(error)
    else:
        names_file = True
    assert names_file, "an error does not name its file"
    try:
        for _ in read_events(path):
            pass
    except DumpError:
        pass
    seconds = time.process_time() - start
    assert seconds < SECONDS_MAX, f"{seconds:.1f} s of processor time"


def run(examples: int, seed: int, until: float | None = None, keep: Path | None = None) -> int:
    """Try damaged files; how many were tried.

    Raises
    ------
    AssertionError
        When a file ends in anything but an observation or a DumpError, with the file's name.
    """
    files, rng = seeds(), random.Random(seed)
    folder = keep or Path(tempfile.mkdtemp(prefix="spbfast-fuzz-"))
    path = folder / f"example-{os.getpid()}.txt"
    tried = 0
    for _ in range(examples):
        path.write_bytes(damaged(rng, files))
        try_file(path)
        tried += 1
        if until is not None and time.monotonic() > until:
            break
    path.unlink()
    if keep is None:
        folder.rmdir()
    return tried


def try_file(path: Path) -> None:
    """`check`, with any other exception named together with the file."""
    try:
        check(path)
    except Exception as error:
        raise AssertionError(f"{path}: {''.join(traceback.format_exception(error))}") from None


def peak_megabytes() -> float:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_hostile(folder: Path) -> None:
    """Try the hostile files, and hold the memory limit against them."""
    files = hostile_files()
    base = peak_megabytes()
    for name, data in files.items():
        path = folder / "hostile.txt"
        path.write_bytes(data)
        start = time.process_time()
        try_file(path)
        used = peak_megabytes()
        print(f"{name}: {time.process_time() - start:.1f} s, peak {used:.0f} MB")
        assert used - base < MEGABYTES_MAX, f"{name}: {used:.0f} MB"


def main() -> int:
    """Fuzz for some minutes, after the hostile files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hostile-only", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        run_hostile(Path(folder))
    tried, number = 0, options.seed
    while not options.hostile_only and time.monotonic() < end:
        tried += run(200, number, end)
        number += 1
    peak = peak_megabytes()
    print(f"{tried} examples, seeds {options.seed}..{number}, peak memory {peak:.0f} MB, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
