"""Small loads for the running kernel, each in a folder of its own and within a given time and memory.

Owns what they do: a file tree that is written, compiled, packed, read and removed; memory in huge pages and
small ones; processes that are forked and talk over the loopback device; files that are looked up and read
from disk again and again. They use what every machine with Python has.
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


WALK_FILES = 4000
LOADS: dict[str, Callable[[Path, float, float], None]] = {"tree": tree, "huge": huge, "fork": fork}
MORE_LOADS = {"walk": walk}  # not among those that are judged page by page and published as recordings


def main() -> None:
    """Run a load: NAME SECONDS [PAUSE], in seconds between two rounds."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    with tempfile.TemporaryDirectory(prefix="spbfast-load-") as folder:
        {**LOADS, **MORE_LOADS}[name](Path(folder), time.monotonic() + seconds, pause)


if __name__ == "__main__":
    main()
