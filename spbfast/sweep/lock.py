"""One driver per results directory.

Owns the file `lock`: created exclusively, with host, process and a random key, its time renewed every 30 s
by a thread. A lock is stale when its process is gone (same host) or when it was not renewed for 120 s.
flock is not used because network file systems do not honour it reliably.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from spbfast.errors import ResultsError
from spbfast.sweep.files import hostname

HEARTBEAT_S = 30.0
STALE_S = 120.0
_held: set[str] = set()


class DirectoryLock:
    """Context manager that holds the lock of a results directory.

    Raises
    ------
    ResultsError
        On entry, when another living driver holds it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        self.key = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> DirectoryLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ResultsError(f"cannot create: {err.strerror}", self.path.parent) from err
        for _ in range(5):
            if self._create():
                _held.add(self.key)
                self._thread = threading.Thread(target=self._beat, name="spbfast-lock", daemon=True)
                self._thread.start()
                return self
            self._remove_if_stale()
        raise ResultsError("another driver keeps taking this directory; try again later", self.path.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        _held.discard(self.key)
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            if self._read().get("key") == self.key:
                self.path.unlink()

    def _create(self) -> bool:
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as err:
            raise ResultsError(f"cannot write: {err.strerror}", self.path) from err
        with os.fdopen(fd, "w") as f:
            json.dump({"host": hostname(), "pid": os.getpid(), "key": self.key}, f)
        return True

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text()))
        except (ValueError, FileNotFoundError):
            return {}

    def _remove_if_stale(self) -> None:
        """Remove a dead lock; moving it first means that only one of two rivals does."""
        holder = self._read()
        try:
            age = time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return
        if not is_stale(holder, age):
            raise ResultsError(
                f"is in use by process {holder.get('pid', '?')} on {holder.get('host', '?')}, which renewed "
                f"its lock {max(0.0, age):.0f} s ago. Wait for it or stop it; if you are sure that it is "
                f"gone, delete {self.path}.",
                self.path.parent,
            )
        grave = self.path.with_name(f".lock.{os.getpid()}.{uuid.uuid4().hex}.tmp")
        with contextlib.suppress(OSError):
            os.rename(self.path, grave)
            grave.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def is_stale(holder: dict[str, Any], age_s: float) -> bool:
    """Whether a lock's holder is gone: its process does not exist, or it stopped renewing."""
    if holder.get("host") == hostname() and isinstance(holder.get("pid"), int):
        if holder["pid"] == os.getpid():
            # In containers a restarted driver often gets the process id of the one that was killed.
            return holder.get("key") not in _held
        try:
            os.kill(holder["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return age_s > STALE_S
    return age_s > STALE_S
