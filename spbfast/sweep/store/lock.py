"""One driver per results directory, or one per share of it in array mode.

Owns the files `lock` and `lock.K-of-N`: created exclusively, with host, process, batch job and a random key,
their time renewed every 30 s by a thread. A lock is dead when its process is gone, or its batch job was
requeued and now runs us; it is silent when it was not renewed for 120 s. Ages are taken from the file
system's own clock, and a silent lock is watched for one more heartbeat, so a clock that jumps costs nobody
their lock. flock is not used because network file systems do not honour it reliably.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from spbfast.errors import ResultsError
from spbfast.places import read_json_file
from spbfast.sweep.store.atomic import hostname, temporary_name, write_failed

HEARTBEAT_S = 30.0
STALE_S = 120.0
WRITING_TRIES, WRITING_S = 5, 0.1
ALIVE, SILENT, DEAD = range(3)
_held: set[str] = set()


class InUseError(ResultsError):
    """Somebody who lives holds the lock."""


class DirectoryLock:
    """Context manager that holds the lock of a results directory.

    Parameters
    ----------
    directory : Path
        Created if needed.
    share : str
        "" for the whole directory, K-of-N for one task of a job array. The whole excludes all shares.
    steal : bool
        Take the lock from whoever holds it.
    on_lost : callable, optional
        Called from a thread when somebody else has taken the lock.

    Raises
    ------
    ResultsError
        On entry, when another living driver holds it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        share: str = "",
        steal: bool = False,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.path = directory / (f"lock.{share}" if share else "lock")
        self.key = uuid.uuid4().hex
        self.lost = False
        self.predecessor: dict[str, Any] = {}
        self._share, self._steal, self._on_lost = share, steal, on_lost
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> DirectoryLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise write_failed(err, self.path.parent, "cannot create") from err
        self._take()
        try:
            for rival in self._rivals():
                self._clear(rival)
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._beat, name="spbfast-lock", daemon=True)
        self._thread.start()
        return self

    def _take(self) -> None:
        for _ in range(5):
            if self._create():
                _held.add(self.key)
                return
            self._clear(self.path)
        raise InUseError("another driver keeps taking this directory; try again later", self.path.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._release()

    def _release(self) -> None:
        _held.discard(self.key)
        with contextlib.suppress(OSError):
            if _read(self.path).get("key") == self.key:
                self.path.unlink()

    def _rivals(self) -> list[Path]:
        """Locks of the other mode: the whole against shares, a share against the whole."""
        if self._share:
            whole = self.path.with_name("lock")
            return [whole] if whole.exists() else []
        return sorted(self.path.parent.glob("lock.*-of-*"))

    def _create(self) -> bool:
        """Create the lock with its content at once, so that nobody reads an empty one."""
        text = json.dumps({**_own_traits(), "key": self.key})
        own = temporary_name(self.path)
        try:
            own.write_text(text)
            return _linked(own, self.path) or self._create_exclusively(text)
        except FileExistsError:
            return False
        except OSError as err:
            raise write_failed(err, self.path) from err
        finally:
            with contextlib.suppress(OSError):
                own.unlink()

    def _create_exclusively(self, text: str) -> bool:
        """The same where a file can have one name only."""
        fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            with os.fdopen(fd, "w") as f:
                f.write(text)
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise
        return True

    def _clear(self, path: Path) -> None:
        """Remove a dead lock; moving it first means that only one of two rivals does."""
        holder = _read_patiently(path)
        age = _age(path)
        if age is None:
            return
        verdict = DEAD if self._steal else judge(holder, age)
        if verdict == ALIVE or (verdict == SILENT and _renewed(path)):
            raise InUseError(
                f"is in use by process {holder.get('pid', '?')} on {holder.get('host', '?')}"
                f"{_job_words(holder)}, which renewed its lock {max(0.0, age):.0f} s ago. Wait for it or "
                f"stop it; if you are sure that it is gone, use --steal-lock.",
                path.parent,
            )
        self.predecessor = holder or {"pid": 0}
        grave = temporary_name(path)
        with contextlib.suppress(OSError):
            os.rename(path, grave)
            grave.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                if _read(self.path).get("key") == self.key:
                    os.utime(self.path)
                    continue
                self.lost = True
                if self._on_lost is not None:
                    self._on_lost()
                return


def _linked(own: Path, path: Path) -> bool:
    """Give a file a second name; False where that cannot be done, FileExistsError where the name is taken."""
    try:
        os.link(own, path)
    except OSError as error:
        if os.stat(own).st_nlink == 2:  # done, but the file server's answer was lost
            return True
        if isinstance(error, FileExistsError):
            raise
        return False
    return True


def _read_patiently(path: Path) -> dict[str, Any]:
    """Who holds a lock; one that is empty may be just being written."""
    for _ in range(WRITING_TRIES):
        if (holder := _read(path)) or not path.exists():
            return holder
        time.sleep(WRITING_S)
    return {}


def _job_words(holder: dict[str, Any]) -> str:
    return f" (batch job {holder['job']})" if holder.get("job") else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json_file(path))
    except (ValueError, TypeError, OSError):
        return {}


def _age(path: Path) -> float | None:
    """Seconds since a lock was renewed by the clock of the file system that holds it; None if it is gone."""
    probe = temporary_name(path)
    try:
        probe.touch()
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return None


def _renewed(path: Path) -> bool:
    """Watch a silent lock for a little more than a heartbeat: does its holder live after all?"""
    try:
        before = path.stat().st_mtime_ns
        end = time.monotonic() + 1.2 * HEARTBEAT_S
        while time.monotonic() < end:
            time.sleep(min(1.0, HEARTBEAT_S / 10))
            if path.stat().st_mtime_ns != before:
                return True
    except FileNotFoundError:
        pass
    return False


def _own_traits() -> dict[str, Any]:
    """What tells this process from all others, on this machine and elsewhere."""
    return {
        "host": hostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "world": _world(),
        # The same after the batch job was requeued, when its earlier runs are gone.
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "restart": _restart(),
    }


def _world() -> str:
    """One boot of one machine, and the process numbers seen there: process ids mean nothing elsewhere."""
    parts = [hostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _restart() -> int:
    """How often the batch job was requeued."""
    text = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdigit() else 0


def judge(holder: dict[str, Any], age_s: float) -> int:
    """ALIVE, SILENT or DEAD: what is known of a lock's holder."""
    if holder.get("key") in _held:
        return ALIVE
    if holder.get("world") == _world() and isinstance(holder.get("pid"), int):
        return ALIVE if _start_of(holder["pid"]) == holder.get("started") else DEAD
    job = holder.get("job")
    if job and job == os.environ.get("SLURM_JOB_ID") and int(holder.get("restart") or 0) < _restart():
        return DEAD
    return SILENT if age_s > STALE_S else ALIVE
