"""File systems without locks, and a directory's own lock, which appears whole."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from spbfast.cli.repair import check_directory
from spbfast.errors import ResultsError, StorageError
from spbfast.sweep import run_sweep
from spbfast.sweep.run.progress import Progress
from spbfast.sweep.store import netcdf
from spbfast.sweep.store.lock import DirectoryLock, _read
from tests.sweep_tools import ENGINE, ROOT, make_job


class Heard(Progress):
    """Keeps what a sweep says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def go(directory: Path, *overrides: str, engine: str = ENGINE, **options: Any) -> tuple[Any, str]:
    """A sweep in `out`, and what it said."""
    settings = {k: options.pop(k) for k in ("sweep", "replicates", "duration") if k in options}
    heard = Heard()
    job = make_job(directory, *overrides, **settings)
    outcome = run_sweep(job, directory / "out", engine=engine, progress=heard, **options)
    return outcome, "\n".join(heard.lines)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ENOSYS])
def test_a_file_system_without_locks_gets_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    outcome, said = go(tmp_path, replicates=1)
    assert outcome.exit_code == 0
    assert f"files cannot be locked here ({os.strerror(number)})" in said
    assert any("which nothing here needs" in f.text for f in check_directory(tmp_path / "out"))
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
    with pytest.raises(StorageError, match="set HDF5_USE_FILE_LOCKING=FALSE"):
        list(netcdf.remarks_on_locks(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ENOLCK",
        pytest.param("EOPNOTSUPP", marks=pytest.mark.long),
        pytest.param("EIO", marks=pytest.mark.long),
    ],
)
def test_the_netcdf_library_itself_asks_for_no_locks(tmp_path: Path, name: str) -> None:
    """With a flock that always fails, in front of the C library's."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    body = f"(void)fd; (void)how; errno = {name}; return -1;"
    text = f"#include <errno.h>\nint flock(int fd, int how) {{ {body} }}\n"
    (tmp_path / "flock.c").write_text(text)
    library = tmp_path / "flock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "flock.c"], check=True)
    make_job(tmp_path)
    code = (
        "import sys\nfrom tests import fake_engine\nsys.modules['spbfast.model.engine'] = fake_engine\n"
        "from spbfast.cli import main\nmain(sys.argv[1:])\n"
    )
    environ = {k: v for k, v in os.environ.items() if k != "HDF5_USE_FILE_LOCKING"}
    environ |= {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1"}
    for words in (
        ["sweep", "job.yaml", "-o", "out"],
        ["consolidate", "out"],
        ["compare", "out", "--metric", "spb_tainted"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if words[0] == "sweep":
            assert done.stderr.count("files cannot be locked here") == 1


def test_a_lock_is_never_seen_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DirectoryLock(tmp_path) as lock:
        assert _read(lock.path)["key"] == lock.key
        assert list(tmp_path.iterdir()) == [lock.path]

    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with DirectoryLock(tmp_path) as lock:
        assert _read(lock.path)["key"] == lock.key
        with pytest.raises(ResultsError, match=f"in use by process {os.getpid()}"), DirectoryLock(tmp_path):
            pass


def test_a_lock_that_is_just_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.touch()
    text = json.dumps({"pid": 1, "host": "elsewhere", "key": "k", "world": "another"})
    threading.Timer(0.15, path.write_text, [text]).start()
    with pytest.raises(ResultsError, match="in use by process 1 on elsewhere"), DirectoryLock(tmp_path):
        pass
