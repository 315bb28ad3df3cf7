"""A process that holds nearly all free memory of a zone and gives parts of it back when told.

Owns the limits that keep the machine safe: it stops at a given MemAvailable, ends after a given time and with
its parent, and is the first that the kernel would kill. It gives memory back in scattered runs, so that the
free lists afterwards are made of blocks whose order the trace tells.
"""

from __future__ import annotations

import contextlib
import mmap
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

PAGE = mmap.PAGESIZE
PIECE = 16 << 20
RUNS = (1, 1, 2, 4, 8, 16, 64)  # pages that are given back together
STEP_SECONDS = 0.01


def available_bytes() -> int:
    """MemAvailable."""
    return meminfo_bytes("MemAvailable")


def meminfo_bytes(name: str) -> int:
    """A row of /proc/meminfo.

    Raises
    ------
    OSError
        When there is none of that name.
    """
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/meminfo has no {name}")


def free_and_low(zone: str) -> tuple[int, int]:
    """Free pages and low watermark of a zone of node 0."""
    here, free, low = False, 0, 0
    for line in Path("/proc/zoneinfo").read_text().splitlines():
        words = line.split()
        if line.startswith("Node "):
            here = words[1] == "0," and words[-1] == zone
        elif here and words[:2] == ["pages", "free"]:
            free = int(words[2])
        elif here and words[:1] == ["low"]:
            low = int(words[1])
    return free, low


class Memory:
    """The memory that the hog holds."""

    def __init__(self) -> None:
        self.pieces: list[mmap.mmap] = []

    def fill(self, zone: str, keep_bytes: int) -> None:
        """Take memory until the zone is near its low watermark, or `keep_bytes` are left to others."""
        while available_bytes() - PIECE > keep_bytes:
            free, low = free_and_low(zone)
            if free < low + 2 * (PIECE // PAGE):
                return
            piece = mmap.mmap(-1, PIECE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            piece.madvise(mmap.MADV_NOHUGEPAGE)
            piece[::PAGE] = b"\1" * (PIECE // PAGE)
            self.pieces.append(piece)

    def give_back(self, nbytes: int, seed: int) -> None:
        """Give scattered runs of pages back, `nbytes` in all; the other pages stay."""
        draw = random.Random(seed)
        left = nbytes // PAGE
        for piece in draw.sample(self.pieces, len(self.pieces)):
            at = 0
            while at < PIECE // PAGE and left > 0:
                run = min(draw.choice(RUNS), PIECE // PAGE - at, left)
                if draw.random() < 0.6:
                    piece.madvise(mmap.MADV_DONTNEED, at * PAGE, run * PAGE)
                    left -= run
                at += run


def serve(zone: str, keep_bytes: int, seconds: int) -> None:
    """The process: fill, say so, then obey lines on standard input until it closes."""
    signal.alarm(seconds)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    memory = Memory()
    memory.fill(zone, keep_bytes)
    print(len(memory.pieces) * PIECE, flush=True)
    for line in sys.stdin:
        memory.give_back(int(line), seed=1)
        print("done", flush=True)


class Hog:
    """The process from outside."""

    def __init__(self, zone: str, keep_bytes: int, seconds: int) -> None:
        command = [sys.executable, "-m", "experiments.live_hog", zone, str(keep_bytes), str(seconds)]
        scripts = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=scripts
        )

    def __enter__(self) -> Hog:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._input.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._output.close()
        time.sleep(STEP_SECONDS)

    @property
    def _input(self):  # type: ignore[no-untyped-def]
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self):  # type: ignore[no-untyped-def]
        assert self._process.stdout is not None
        return self._process.stdout

    def wait_until_full(self) -> int:
        """Bytes that it holds.

        Raises
        ------
        OSError
            When it ended before.
        """
        line = self._output.readline()
        if not line:
            raise OSError(f"the process that fills memory ended with code {self._process.wait()}")
        return int(line)

    def give_back(self, nbytes: int) -> None:
        """Let it give memory back, and wait for it."""
        self._input.write(f"{nbytes}\n")
        self._input.flush()
        self._output.readline()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
