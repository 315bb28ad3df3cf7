"""Nobody else gets in: what listens, who can connect, where credentials lie, what a file may not do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from distributed import Security

from spbfast.errors import ConfigError, SetupError, StorageError
from spbfast.sweep import run_sweep
from spbfast.sweep.pools import security
from tests.sweep_tools import ENGINE, ROOT, driver_command, make_job, write_job

pytestmark = pytest.mark.shell


def listening() -> set[tuple[str, int]]:
    """(address, port) of every listening TCP socket of this machine."""
    lines = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split()[3].rpartition(":") for line in lines]
    return {(address, int(port)) for address, _, port in pairs}


def session_ports(session: int) -> set[tuple[str, int]]:
    """Those of them that belong to a process of a session."""
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = set()
    for line in lines:
        for part in line.split("pid=")[1:]:
            try:
                own = os.getsid(int(part.split(",")[0])) == session
            except OSError:
                continue
            if own:
                address, _, port = line.split()[3].rpartition(":")
                found.add((address, int(port)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_nothing_listens_beyond_loopback_and_nothing_stays(tmp_path: Path, kind: str) -> None:
    config, out = write_job(tmp_path, replicates=100), tmp_path / "out"
    environ = os.environ | {"SPBFAST_FAKE_SLEEP": "1.0", "PYTHONPATH": str(ROOT)}
    options = (f"executor.kind={kind}", "executor.workers=2", "executor.batch=1")
    driver = subprocess.Popen(
        driver_command(config, out, *options),
        env=environ,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 90
        while not list(out.glob("shards/??/*.nc")):
            assert time.monotonic() < end
            time.sleep(0.05)
        during = session_ports(driver.pid)
        assert during
        assert {address for address, _ in during} == {"127.0.0.1"}
        if kind == "processes":
            _assert_no_plain_connection(during)
        driver.send_signal(signal.SIGTERM)
        _, err = driver.communicate(timeout=60)
        assert driver.returncode == 143, err.decode()
    finally:
        driver.kill()
    assert not during & listening()
    left = {p.suffix for p in out.rglob("*") if p.is_file()}
    assert left <= {"", ".nc", ".json", ".jsonl", ".yaml", ".log"}
    assert not list(out.glob(".tls-*"))


def _assert_no_plain_connection(ports: set[tuple[str, int]]) -> None:
    """Neither without TLS nor with a certificate of one's own does a conversation begin."""
    from distributed.comm import connect

    async def attempt(address: str, credentials: Security) -> object:
        # A server that never answers the first message is no conversation either.
        arguments = credentials.get_connection_args("client")
        return await asyncio.wait_for(connect(address, timeout=5, **arguments), 10)

    async def try_all() -> list[object]:
        tries = [
            attempt(f"{protocol}://{address}:{port}", credentials)
            for address, port in ports
            for protocol, credentials in (("tcp", Security()), ("tls", security.temporary_security()))
        ]
        return await asyncio.gather(*tries, return_exceptions=True)

    for outcome in asyncio.run(try_all()):
        assert isinstance(outcome, OSError | TimeoutError), outcome


def test_credentials_are_the_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert security.main([str(tmp_path / "tls")]) == 0
    finally:
        os.umask(old)
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.pem": 0o600, "cert.pem": 0o600, "key.pem": 0o600}
    found = security.read_credentials(tmp_path / "tls")
    assert found.require_encryption
    with pytest.raises(StorageError, match="cannot write credentials: File exists"):
        security.write_credentials(tmp_path / "tls")
    (tmp_path / "tls" / "key.pem").chmod(0o640)
    with pytest.raises(ConfigError, match="others may read .*chmod 600"):
        security.read_credentials(tmp_path / "tls")
    with pytest.raises(ConfigError, match="has no ca.pem and no cert.pem and no key.pem"):
        security.read_credentials(tmp_path)


def test_credentials_vanish_with_the_sweep_and_those_of_dead_ones_too(tmp_path: Path) -> None:
    (tmp_path / ".tls-dead").mkdir()
    with security.shared_credentials(tmp_path) as found:
        (here,) = tmp_path.glob(".tls-*")
        assert found.tls_ca_file == str(here / "ca.pem")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "tls", "insecure", "message"),
    [
        ("tcp://127.0.0.1:8786", False, False, None),
        ("tcp://[::1]:8786", False, False, None),
        ("tcp://localhost:8786", False, False, None),
        ("tcp://10.0.0.5:8786", False, False, "anybody who reaches it can run programs as you"),
        ("tcp://10.0.0.5:8786", True, False, "anybody who reaches it can run programs as you"),
        ("tcp://10.0.0.5:8786", False, True, None),
        ("tls://10.0.0.5:8786", True, False, None),
        ("tls://10.0.0.5:8786", False, False, "name the directory with ca.pem"),
        ("tcp://127.0.0.1.evil.org:8786", False, False, "anybody who reaches it"),
    ],
)
def test_schedulers_beyond_this_machine_need_tls(
    address: str, tls: bool, insecure: bool, message: str | None
) -> None:
    credentials = object() if tls else None
    if message is None:
        security.check_address(address, credentials, insecure)
        return
    with pytest.raises(ConfigError, match=message):
        security.check_address(address, credentials, insecure)


def test_a_scheduler_that_is_not_there(tmp_path: Path) -> None:
    job = make_job(tmp_path, "executor={kind: address, scheduler_file: nosuch.json}")
    with pytest.raises(SetupError, match="nosuch.json does not exist; is the scheduler running"):
        run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)


def test_a_batch_system_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    job = make_job(tmp_path, "executor={kind: lsf, memory: 1GiB}")
    with pytest.raises(SetupError, match="lsf needs the command bsub, which is not here"):
        run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)


def test_the_job_script_keeps_its_secrets_in_files(tmp_path: Path) -> None:
    from spbfast.sweep.pools.jobs import job_script

    for kind, mark in (("slurm", "#SBATCH"), ("pbs", "#PBS"), ("lsf", "#BSUB"), ("sge", "#$")):
        job = make_job(
            tmp_path, f"executor={{kind: {kind}, cores: 4, memory: 4GiB, queue: night, account: mm}}"
        )
        script = job_script(job.executor, tmp_path / "out")
        assert mark in script
        assert "night" in script
        assert f"--tls-key {tmp_path}/out/.tls/key.pem" in script
        assert "--protocol tls://" in script
        assert "--no-dashboard" in script
        assert "PRIVATE KEY" not in script
        assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="threads has no job script"):
        job_script(make_job(tmp_path, "executor.kind=threads").executor, tmp_path / "out")
