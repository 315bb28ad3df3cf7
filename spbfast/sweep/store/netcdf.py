"""The netCDF library as this package uses it; the only module that imports it.

Owns the one lock under which this process uses the library, and the way in which files are opened. The
library cannot open a file whose name is not text in the terminal's encoding, and locks every file that it
opens, which some network file systems refuse: our files appear whole by a rename, and a directory has a lock
of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spbfast.errors import StorageError

if TYPE_CHECKING:
    import xarray as xr

_VARIABLE = "HDF5_USE_FILE_LOCKING"
# Read once, when the library is loaded; what a user has set stays.
_TOO_LATE = "netCDF4" in sys.modules and _VARIABLE not in os.environ
os.environ.setdefault(_VARIABLE, "FALSE")

import netCDF4  # noqa: E402


def _netcdf_lock() -> Any:
    # netCDF4 in threads without a lock crashes the process, even on different files. A user may read an
    # open dataset while a sweep writes in the same process, so the lock has to be the one xarray uses.
    try:
        from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK
    except ImportError:
        return threading.Lock()
    return NETCDF4_PYTHON_LOCK


NETCDF_LOCK = _netcdf_lock()


def open_netcdf(path: str | Path, mode: str = "r") -> Any:
    """A netCDF file, opened for reading ("r"), writing anew ("w") or adding to it ("a").

    The caller holds NETCDF_LOCK.
    """
    # The bytes of the name as they are, whatever encoding the terminal claims.
    name = os.fsencode(path).decode("latin-1")
    return netCDF4.Dataset(name, mode, format="NETCDF4", encoding="latin-1")  # type: ignore[arg-type]


def open_as_dataset(path: str | Path, chunks: Any | None = None) -> xr.Dataset:
    """A netCDF file as a lazy dataset; as `xarray.open_dataset`, but under any name."""
    import xarray as xr

    return xr.open_dataset(_text_name(path), engine="netcdf4", chunks=chunks)


def write_dataset(ds: xr.Dataset, path: str | Path) -> None:
    """Write a dataset anew; as `to_netcdf`, but under any name."""
    ds.to_netcdf(_text_name(path), engine="netcdf4")


def _text_name(path: str | Path) -> str:
    """A file's name where it is text in this locale, which xarray needs, and else that of a link to it."""
    try:
        str(path).encode(sys.getfilesystemencoding())
        return str(path)
    except UnicodeEncodeError:
        link = Path(_links().name) / f"{uuid.uuid4().hex}.nc"
        link.symlink_to(Path(path).absolute())
        return str(link)


@functools.cache
def _links() -> tempfile.TemporaryDirectory[str]:
    """The folder of such links, for as long as this process lives: datasets are read when they are used."""
    return tempfile.TemporaryDirectory(prefix="spbfast-")


def open_bytes(content: bytes) -> Any:
    """The content of a netCDF file, for reading. The caller holds NETCDF_LOCK."""
    return netCDF4.Dataset("content", "r", memory=content)


def library_versions() -> str:
    """Versions of netCDF and HDF5."""
    return f"netCDF {netCDF4.__netcdf4libversion__}, HDF5 {netCDF4.__hdf5libversion__}"


def why_no_locks(directory: Path) -> str:
    """Why files in a directory cannot be locked, "" if they can."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=directory) as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def remarks_on_locks(directory: Path) -> Iterator[str]:
    """A line for a directory where files cannot be locked.

    Raises
    ------
    StorageError
        When the library insists on locking them.
    """
    why = why_no_locks(directory)
    if not why:
        return
    if _TOO_LATE or os.environ[_VARIABLE].upper() not in ("FALSE", "0"):
        raise StorageError(
            f"files cannot be locked here ({why}), and the HDF5 library locks every file; set "
            f"{_VARIABLE}=FALSE before netCDF4 is imported: the directory's own lock suffices",
            directory,
        )
    yield f"files cannot be locked here ({why}): the directory's own lock suffices, HDF5's are not used"
