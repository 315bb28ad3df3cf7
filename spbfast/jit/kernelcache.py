"""Compiled kernels on disk, of which nothing is believed that was not checked.

Owns the place of the cache and the form of its entries: numba's pairs of files, an index (.nbi) and machine
code (.nbc), each behind a digest of its content and of its place. Numba itself believes what it finds, and
damaged machine code ends the process in LLVM. An entry that cannot be loaded, whatever the reason, is dropped
and compiled anew; one that cannot be written is not kept. Both are said once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numba.core import caching

DIGEST_BYTES = 16
VARIABLE = "SPBFAST_CACHE_DIR"
_log = logging.getLogger("spbfast.jit")
_said: set[str] = set()


class DamagedEntryError(Exception):
    """A file of the cache that is not what was written."""

    def __init__(self, path: str | Path, why: str) -> None:
        self.path, self.why = Path(path), why
        super().__init__(f"{path}: {why}")


def _say_once(kind: str, text: str) -> None:
    if kind not in _said:
        _said.add(kind)
        _log.warning("spbfast: %s", text)


def cache_candidates() -> list[Path]:
    """Where the cache may be, the first choice first."""
    given = os.environ.get(VARIABLE)
    if given:
        return [_expanded(given)]
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one counts for nothing, says the standard that defines it.
    home = Path(xdg) if os.path.isabs(xdg) else Path(os.path.expanduser("~")) / ".cache"
    uid = os.getuid() if hasattr(os, "getuid") else 0
    return [home / "spbfast", Path(tempfile.gettempdir()) / f"spbfast-{uid}"]


def _expanded(text: str) -> Path:
    """A path with `~` for the home directory, which a shell leaves as it is between quotes."""
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def find_cache_dir(name: str) -> Path | None:
    """The first candidate's folder of that name that can serve, None if there is none."""
    return next((base / name for base in cache_candidates() if not _fault(base / name)), None)


def _fault(path: Path) -> str:
    """Why a folder cannot be the cache, "" if it can."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Another user's directory in a shared temporary folder must not feed us machine code.
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return "belongs to another user"
        # One that is filled serves, too, when the disk is full or read-only.
        return "" if os.access(path, os.W_OK) or any(path.iterdir()) else "cannot be written"
    except OSError as error:
        return error.strerror or str(error)


def why_not_kept() -> str:
    """Why compiled kernels cannot be kept on disk, for people."""
    return "; ".join(f"{base}: {_fault(base)}" for base in cache_candidates())


def _content(path: str | Path) -> bytes:
    """What a file of the cache holds behind its digest."""
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedEntryError(path, error.strerror or str(error)) from error
    if raw[:DIGEST_BYTES] != _digest(path, raw[DIGEST_BYTES:]):
        raise DamagedEntryError(path, "is not what was written")
    return raw[DIGEST_BYTES:]


def _digest(path: str | Path, content: bytes) -> bytes:
    """Of the content, and of the place in this version's cache: another kernel's file is as bad as none."""
    place = "/".join(Path(path).parts[-3:])
    return hashlib.blake2b(place.encode(errors="surrogateescape") + b"\0" + content, digest_size=16).digest()


class CheckedFiles(caching.IndexDataCacheFile):
    """Numba's pair of files, with a digest in front of each."""

    def load(self, key: Any) -> Any:
        """The entry of a key, None if there is none; DamagedEntryError if it is not what was written."""
        name = self._load_index().get(key)
        if name is None:
            return None
        path = self._data_path(name)
        try:
            return self._unpickled(path)
        except FileNotFoundError:
            return None

    def _load_index(self) -> dict[Any, str]:
        try:
            version, stamp, overloads = self._unpickled(self._index_path)
        except FileNotFoundError:
            return {}
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._version, self._source_stamp, overloads))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _unpickled(self, path: str) -> Any:
        content = _content(path)
        try:
            return pickle.loads(content)
        except Exception as error:
            raise DamagedEntryError(path, f"cannot be loaded: {error}") from error

    def _write(self, path: str, value: Any) -> None:
        content = self._dump(value)
        if os.path.isdir(path):  # nothing replaces a directory
            _drop(Path(path))
        with self._open_for_write(path) as f:
            f.write(_digest(path, content) + content)


class _OurFolder(caching.UserProvidedCacheLocator):
    """Numba's folder for a source file, without its test whether something can be written just now."""

    def ensure_cache_path(self) -> None:
        os.makedirs(self.get_cache_path(), exist_ok=True)


class _OursOnly(caching.CompileResultCacheImpl):
    """Entries in our own directory; numba's other places do not know when a callee has changed."""

    _locator_classes = [_OurFolder]


class KernelCache(caching.FunctionCache):
    """The entries of one kernel."""

    _impl_class = _OursOnly

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = CheckedFiles(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel for a signature, None if it has to be compiled."""
        with self._dropping():
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel, if possible."""
        try:
            with self._dropping():  # another kernel of the same file may have left a damaged index
                super().save_overload(sig, data)
                return
            super().save_overload(sig, data)
        except (OSError, DamagedEntryError) as error:
            _say_once("kept", f"compiled kernels cannot be kept and will be compiled again: {error}")

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Drop what turns out to be damaged: the file that is, else all files of this kernel."""
        try:
            yield
        except DamagedEntryError as error:
            _drop(error.path)
            _say_once("damaged", f"a damaged compiled kernel is dropped and compiled anew: {error}")
        except OSError:
            raise
        except Exception as error:  # numba or LLVM may say anything of what they cannot load
            for path in Path(self._cache_path).glob(f"{self._impl.filename_base}.*"):
                _drop(path)
            _say_once("damaged", f"a compiled kernel cannot be loaded and is compiled anew: {error!r}")


class NoCache(caching.NullCache):
    """Keeps nothing, and says so when something was compiled."""

    def __init__(self, why: str) -> None:
        self.why = why

    def save_overload(self, sig: Any, cres: Any) -> None:
        """Say that this kernel will be compiled again."""
        _say_once(
            "kept",
            f"compiled kernels cannot be kept, so that every start compiles for about a minute: {self.why}; "
            f"set {VARIABLE} to a directory of your own",
        )


def cache_of(function: Callable[..., Any], directory: Path | None) -> Any:
    """Where the compiled code of a kernel is kept."""
    if directory is None:
        return NoCache(why_not_kept())
    folder = directory / _OurFolder.get_suitable_cache_subpath(function.__code__.co_filename)
    for _ in range(2):
        with suppress(RuntimeError):  # its folder is no folder, or cannot be made
            return KernelCache(function)
        if not folder.is_dir():
            _drop(folder)
    return NoCache(f"{folder} cannot be made")


def _drop(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def damaged_entries(directory: Path) -> list[DamagedEntryError]:
    """The files of a cache that are not what was written."""
    found = []
    for path in sorted(directory.glob("*/*.nb[ci]")):
        try:
            _content(path)
        except DamagedEntryError as error:
            found.append(error)
        except FileNotFoundError:
            continue
    return found
