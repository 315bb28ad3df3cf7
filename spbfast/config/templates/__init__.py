"""Configurations to begin with: the YAML files beside this module.

Owns `spbfast init`. A template is complete in itself and says in its first comment what it is for.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from spbfast.errors import ConfigError, StorageError
from spbfast.text import quote_value, suggest_or_list

HERE = Path(__file__).parent
_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def template_names() -> list[tuple[str, str]]:
    """Names of the templates with the first comment of each."""
    files = sorted(HERE.glob("*.yaml"))
    return [(p.stem, p.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")) for p in files]


def write_template(path: Path, name: str) -> Path:
    """Write a template to a new file.

    Raises
    ------
    ConfigError
        For an unknown template, or when the file exists or has a name that no file can have.
    StorageError
        When the disk is full or read-only, or the directory somebody else's.
    """
    known = [n for n, _ in template_names()]
    if name not in known:
        raise ConfigError(f"--template: there is no template {name!r}{suggest_or_list(name, known)}")
    text = (HERE / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        # Exclusive creation: a file of the user's is never overwritten.
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                os.fsync(handle)
        except BaseException:
            path.unlink(missing_ok=True)  # half a file would be in the way of the next attempt
            raise
    except FileExistsError:
        if path.is_symlink() and not path.exists():
            raise ConfigError(
                f"{path} is a link to {os.readlink(path)}, which does not exist; nothing was written"
            ) from None
        raise ConfigError(f"{path} exists; choose another name, nothing was written") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in _PLACES:
            raise StorageError(f"cannot be written: {reason}; name another place", path) from None
        raise ConfigError(f"{quote_value(str(path))} cannot be written: {reason}") from None
    return path
