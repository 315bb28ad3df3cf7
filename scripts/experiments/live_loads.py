"""Small loads for the running kernel, each in a folder of its own and within a given time and memory.

Owns what they do: a file tree that is written, compiled, packed, read and removed; memory in huge pages and
small ones; processes that are forked and talk over the loopback device; files that are looked up and read
from disk again and again; a file larger than memory that is read beside a hog. They use what every machine
with Python has.
"""

from __future__ import annotations

import compileall
import mmap
import os
import random
import shutil
import socket
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.live_hog import available_bytes, meminfo_bytes

PAGE = mmap.PAGESIZE
MIB = 1 << 20


def tree(folder: Path, until: float, pause: float = 0.0) -> None:
    """A file tree: thousands of small files, compiled, packed, read, some removed, then all."""
    draw = random.Random(1)
    turn = 0
    while time.monotonic() < until:
        top = folder / f"tree{turn}"
        for i in range(1500):
            path = top / f"d{i % 40}" / f"m{i}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"def f{i}(x):\n    return [x + {i}] * {i}\n" * draw.randrange(1, 60))
        compileall.compile_dir(str(top), quiet=2, workers=1)
        with tarfile.open(folder / "all.tar", "w") as tar:
            tar.add(top)
        for path in sorted(top.rglob("*.py"))[::3]:
            path.unlink()
        sum(len(path.read_bytes()) for path in top.rglob("*") if path.is_file())
        if turn:
            shutil.rmtree(folder / f"tree{turn - 1}")
        turn += 1
        time.sleep(pause)


def huge(folder: Path, until: float, pause: float = 0.0) -> None:
    """Memory: some in huge pages, some in small ones, touched, freed in part, and freed."""
    draw = random.Random(2)
    while time.monotonic() < until:
        held = []
        for size in (64, 32, 96, 16):
            memory = mmap.mmap(-1, size * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE if draw.random() < 0.7 else mmap.MADV_NOHUGEPAGE)
            memory[::PAGE] = b"\1" * (size * MIB // PAGE)
            held.append(memory)
        for memory in held:
            for at in range(0, len(memory), 4 * MIB):
                if draw.random() < 0.5:
                    memory.madvise(mmap.MADV_DONTNEED, at + MIB, MIB)
        for memory in held:
            memory.close()
        time.sleep(pause)


def fork(folder: Path, until: float, pause: float = 0.0) -> None:
    """Processes: forked in groups, each writes to its memory; bytes go over the loopback device."""
    server = socket.create_server(("127.0.0.1", 0))
    sink = threading.Thread(target=_swallow, args=(server,), daemon=True)
    sink.start()
    block = os.urandom(MIB)
    with socket.create_connection(server.getsockname()) as line:
        while time.monotonic() < until:
            children = [_child(i) for i in range(24)]
            for _ in range(8):
                line.sendall(block)
            for pid in children:
                os.waitpid(pid, 0)
            time.sleep(pause)


def _swallow(server: socket.socket) -> None:
    peer, _ = server.accept()
    while peer.recv(1 << 16):
        pass


def _child(number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    data = bytearray((number % 8 + 1) * MIB)
    data[::PAGE] = b"\1" * (len(data) // PAGE)
    os._exit(0)


def walk(folder: Path, until: float, pause: float = 0.0) -> None:
    """A walk through some 130 MiB of files that are not in memory: each is looked up, read and let go of."""
    draw = random.Random(3)
    for i in range(WALK_FILES):
        path = folder / f"d{i % 64}" / f"f{i}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(1 << draw.randrange(10, 18)))
    os.sync()
    while time.monotonic() < until:
        for path in _let_go(folder):
            if time.monotonic() >= until:
                return
            path.read_bytes()
        time.sleep(pause)


def _let_go(folder: Path) -> list[Path]:
    """The files below a folder, with none of their pages in memory."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return paths


def short(folder: Path, until: float, pause: float = 0.0, again: float = 0.0) -> None:
    """Memory is short: page cache fills it, a file larger than memory is read on, and a hog wants huge pages.

    The file is one hole: its pages come without a disk, one by one, and whoever needs memory has others of
    them reclaimed. Time begins when memory is full; a line on standard output says so. The hog stays below
    `HOG_MOST` bytes, and asks for nothing while fewer than `HOG_LEAVES` bytes are available. Of the pages
    that fill memory the share `again` is read twice more, here and there: the kernel keeps those longer.
    """
    began, path = time.monotonic(), folder / "hole"
    size = 2 * os.sysconf("SC_PHYS_PAGES") * PAGE // READ * READ
    with open(path, "wb") as file:
        file.truncate(size)
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        filled = _fill(file.fileno(), size)
        _read_again(file.fileno(), filled, again)
        full = time.monotonic()
        until += full - began
        print("ready", flush=True)
        hog = os.fork()
        if not hog:
            try:
                _hog(until)
            finally:
                os._exit(0)
        read = 0
        while time.monotonic() < until:
            os.pread(file.fileno(), READ, (filled + read) % size)
            read += READ
            time.sleep(max(full + read / READ_RATE - time.monotonic(), 0.0))
    os.waitpid(hog, 0)


def _fill(file: int, size: int) -> int:
    """Read ahead until hardly a page is free; bytes."""
    for at in range(0, size, READ):
        os.posix_fadvise(file, at, READ, os.POSIX_FADV_WILLNEED)
        if at % FILL_STEP == 0 and _is_full():
            return at + READ
    return 0


def _read_again(file: int, filled: int, share: float) -> None:
    """Read single pages anywhere twice; not twice in a row, which counts once."""
    draw = random.Random(5)
    pages = [page for page in range(filled // PAGE) if draw.random() < share]
    for page in 2 * pages:
        os.pread(file, PAGE, page * PAGE)


def torn(folder: Path, until: float, pause: float = 0.0) -> None:
    """As `short`, with memory in which pages that stay lie scattered among those that reclaim takes."""
    short(folder, until, pause, TORN_SHARE)


def _is_full() -> bool:
    return meminfo_bytes("MemFree") < FULL * os.sysconf("SC_PHYS_PAGES") * PAGE


def _hog(until: float) -> None:
    """Pieces in huge pages, one after the other; each is held for a while, and half of them go in parts."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    draw = random.Random(4)
    held: list[mmap.mmap] = []
    while time.monotonic() < until:
        time.sleep(HOG_PAUSE)
        if available_bytes() > HOG_LEAVES:
            memory = mmap.mmap(-1, HOG_PIECE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
            memory[::PAGE] = b"\1" * (HOG_PIECE // PAGE)
            held.append(memory)
        if len(held) * HOG_PIECE > HOG_MOST * draw.random():
            _give_up(held.pop(draw.randrange(len(held))), draw)


def _give_up(memory: mmap.mmap, draw: random.Random) -> None:
    """Free a piece: at once, or every second quarter of a MiB first, which splits its huge pages."""
    if draw.random() < 0.5:
        for at in range(0, HOG_PIECE, MIB // 2):
            memory.madvise(mmap.MADV_DONTNEED, at, MIB // 4)
    memory.close()


WALK_FILES = 4000
READ, READ_RATE, FILL_STEP = 64 << 10, 80 * MIB, 64 * MIB  # bytes at once, a second, between two looks
TORN_SHARE = 0.3
FULL = 0.03  # of memory is free when the load begins
HOG_PIECE, HOG_MOST, HOG_LEAVES, HOG_PAUSE = 16 * MIB, 3 << 30, 8 << 30, 0.2
LOADS: dict[str, Callable[[Path, float, float], None]] = {"tree": tree, "huge": huge, "fork": fork}
# Not among those that are judged page by page and published as recordings.
MORE_LOADS = {"walk": walk, "short": short, "torn": torn}


def main() -> None:
    """Run a load: NAME SECONDS [PAUSE], in seconds between two rounds."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    with tempfile.TemporaryDirectory(prefix="spbfast-load-") as folder:
        {**LOADS, **MORE_LOADS}[name](Path(folder), time.monotonic() + seconds, pause)


if __name__ == "__main__":
    main()
