"""What every worker is doing right now, in files that outlive it.

Owns the directory `running/`: one small file per worker thread with the batch and the run it is working on,
overwritten in place. When a worker process dies, the driver reads there which run was being worked on, so
that only that one is suspected and the rest of the batch is not. Losing these files costs precision only.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.atomic import hostname

_LENGTH = 64
_local = threading.local()


class Notebook:
    """The file of one worker thread; if it cannot be written, there is none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fd = -1
        name = f"{hostname()}.{os.getpid()}.{threading.get_native_id()}.{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(directory / name, os.O_CREAT | os.O_WRONLY, 0o644)

    def put(self, batch_id: str, cell: Cell | None) -> None:
        """Say which run of which batch begins; None when the batch is over."""
        text = f"{batch_id} {cell}" if cell is not None else ""
        with contextlib.suppress(OSError):
            os.pwrite(self.fd, f"{text:<{_LENGTH - 1}}\n".encode(), 0)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.fd)


def notebook(directory: Path) -> Notebook:
    """This thread's file in a results directory."""
    found: Notebook | None = getattr(_local, "notebook", None)
    # A sweep that ended removed the file; a new one in the same process needs a new file.
    if found is None or found.directory != directory or _unlinked(found.fd):
        found = _local.notebook = Notebook(directory)
    return found


def _unlinked(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return os.fstat(fd).st_nlink == 0
    return True


@dataclass(frozen=True, slots=True)
class RunNote:
    """A run that a worker is, or was, working on; `process` names the worker's process."""

    batch_id: str
    cell: Cell
    process: str


def read_notes(directory: Path) -> list[RunNote]:
    """The runs that workers are, or were, working on."""
    found = []
    for path in _files(directory):
        with contextlib.suppress(OSError, ValueError):
            batch, _, cell = path.read_text().strip().partition(" ")
            if cell:
                found.append(RunNote(batch, Cell.parse(cell), path.name.rsplit(".", 2)[0]))
    return found


def clear_notes(directory: Path, *, own: bool = False) -> None:
    """Remove all notes, or those of this process; only the owner of a directory may remove all."""
    prefix = f"{hostname()}.{os.getpid()}." if own else ""
    for path in _files(directory):
        if path.name.startswith(prefix):
            with contextlib.suppress(OSError):
                path.unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()


def _files(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(directory.iterdir())
    return []
