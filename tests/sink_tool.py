"""Run commands in children whose standard output and error are connected to something that fails.

Everything is imported once; each command then runs in a fork. Prints one JSON object: exit codes and what the
other stream said, by verb and sink.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

from spbfast import cli
from tests import fake_engine
from tests.sweep_tools import make_job

# What commands import when they are called: once here instead of in each of 150 children.
IMPORTED = (
    *("netCDF4", "xarray", "matplotlib.pyplot", "scipy.stats", "rich.live"),
    *("spbfast.cli.doctor", "spbfast.results.goodenough", "spbfast.results.report.figures"),
    *("spbfast.results.together", "spbfast.results.unfinished", "spbfast.sweep.pools.local"),
    *("spbfast.sweep.run.driver", "spbfast.verify"),
)


def _full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _broken() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


SINKS = {"full": _full, "broken": _broken, "closed": None}


CASES = (
    ("full", "out", (1,)),
    ("full", "err", (2,)),
    ("broken", "both", (1, 2)),
    ("closed", "both", (1, 2)),
)


def child(words: list[str], sink: str, fds: tuple[int, ...], kept: Path) -> None:
    """Connect, run, and leave with the command's exit code."""
    log = os.open(kept, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
    for fd in (1, 2):
        os.dup2(log, fd)
    for fd in fds:
        make = SINKS[sink]
        if make is None:
            os.close(fd)
        else:
            os.dup2(make(), fd)
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = None if sink == "closed" and fd in fds else open(fd, "w", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    code = 99
    try:
        cli.main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def outcome(words: list[str], sink: str, fds: tuple[int, ...], kept: Path) -> list[object]:
    pid = os.fork()
    if pid == 0:
        child(words, sink, fds, kept)
    _, status = os.waitpid(pid, 0)
    return [os.waitstatus_to_exitcode(status), kept.read_text(errors="replace")]


def main() -> None:
    sys.modules["spbfast.model.engine"] = fake_engine
    for name in IMPORTED:
        importlib.import_module(name)
    commands = json.loads(sys.argv[1])
    found: dict[str, dict[str, list[object]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_job(Path(folder))
        kept = Path(folder) / "kept"
        for name, words in commands.items():
            found[name] = {"sound": outcome(words, "full", (), kept)}
            for sink, which, fds in CASES:
                found[name][f"{sink} {which}"] = outcome(words, sink, fds, kept)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
