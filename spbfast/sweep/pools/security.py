"""Credentials of a sweep's scheduler: only who can read them can connect.

A Dask scheduler runs whatever it is sent. So wherever there is a socket there is TLS in both directions,
with a key and a certificate made for one sweep. On one machine they stay in memory; for other machines they
lie in a directory that only its owner may enter. `python -m spbfast.sweep.pools.security DIR` makes such a
directory for a scheduler started by hand. Knows nothing of runs or results.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spbfast.errors import ConfigError, StorageError
from spbfast.sweep.store.atomic import hostname, write_failed

CA, CERT, KEY = "ca.pem", "cert.pem", "key.pem"
PREFIX = ".tls-"
INSECURE_WARNING = (
    "warning: executor.insecure: connections beyond this machine are neither encrypted nor checked; "
    "whoever reaches the scheduler's port can run programs as you"
)


def temporary_security() -> Any:
    """Fresh credentials in memory, required of everybody."""
    from distributed.security import Security

    return Security.temporary()


def write_credentials(directory: Path) -> None:
    """Write fresh credentials as ca.pem, cert.pem and key.pem, readable by the owner alone.

    Raises
    ------
    StorageError
        When the directory exists or cannot be written.
    """
    security = temporary_security()
    texts = {CA: security.tls_ca_file, CERT: security.tls_client_cert, KEY: security.tls_client_key}
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
        for name, text in texts.items():
            fd = os.open(directory / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(fd, "w") as f:
                f.write(text)
    except OSError as err:
        raise write_failed(err, directory, "cannot write credentials") from err


def read_credentials(directory: Path) -> Any:
    """Credentials from a directory, as paths that all roles share.

    Raises
    ------
    ConfigError
        When a file is missing, or others may read the key.
    """
    from distributed.security import Security

    paths = [directory / name for name in (CA, CERT, KEY)]
    if missing := [p.name for p in paths if not p.is_file()]:
        raise ConfigError(
            f"executor.tls: {directory} has no {' and no '.join(missing)}; "
            f"make it with: python -m spbfast.sweep.pools.security {directory}"
        )
    if paths[2].stat().st_mode & 0o077:
        raise ConfigError(f"executor.tls: others may read {paths[2]}; forbid it with: chmod 600 {paths[2]}")
    ca, cert, key = (str(p.resolve()) for p in paths)
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        **{f"tls_{role}_cert": cert for role in ("client", "scheduler", "worker")},
        **{f"tls_{role}_key": key for role in ("client", "scheduler", "worker")},
    )


@contextlib.contextmanager
def shared_credentials(results: Path) -> Iterator[Any]:
    """Credentials of one sweep, in its results directory while it runs."""
    remove_stale(results)
    directory = results / f"{PREFIX}{hostname()}.{os.getpid()}.{uuid.uuid4().hex}"
    try:
        write_credentials(directory)
        yield read_credentials(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def remove_stale(results: Path) -> None:
    """Remove credentials of drivers that were killed; only the owner of the directory may call it."""
    for old in results.glob(f"{PREFIX}*"):
        shutil.rmtree(old, ignore_errors=True)


def is_loopback(address: str) -> bool:
    """Whether an address such as tcp://127.0.0.1:8786 stays on this machine."""
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    if host == "localhost" or address.startswith("inproc://"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: str, security: Any, insecure: bool) -> None:
    """Refuse a scheduler beyond this machine that does not speak TLS.

    Raises
    ------
    ConfigError
        Unless `insecure`.
    """
    encrypted = address.startswith("tls://") and security is not None
    if encrypted or insecure or is_loopback(address):
        return
    if address.startswith("tls://"):
        raise ConfigError(
            f"executor.tls: the scheduler at {address} speaks TLS; name the directory with ca.pem, cert.pem "
            "and key.pem"
        )
    raise ConfigError(
        f"executor.address: the scheduler at {address} takes connections without TLS, so anybody who reaches "
        "it can run programs as you; start it with --tls-ca-file, --tls-cert and --tls-key (see "
        "docs/cluster.md), or say executor.insecure: true"
    )


def main(arguments: list[str]) -> int:
    """Make a directory with credentials."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m spbfast.sweep.pools.security DIRECTORY", file=sys.stderr)
        return 2
    try:
        write_credentials(Path(arguments[0]))
    except StorageError as error:
        print(f"spbfast: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
