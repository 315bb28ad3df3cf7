"""A real SLURM of one node for tests: private daemons on loopback, with their own key, ports and directories.

Needs the Debian packages slurm-wlm and munge, and touches no configuration of the system.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scancel", "squeue", "scontrol")
NODE_CPUS = 4
# A node refuses to start a job again while its first credential could still be valid.
CREDENTIAL_S = 3
CONF = """\
ClusterName=spbfast
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire={expire}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
KillWait=5
OverTimeLimit=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={mib} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What of SLURM is not installed here."""
    os.environ["PATH"] = _path_with_sbin(os.environ["PATH"])
    return [p for p in PROGRAMS if shutil.which(p) is None]


def _path_with_sbin(path: str) -> str:
    return path if "/usr/sbin" in path.split(":") else f"{path}:/usr/sbin"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def slurm(root: Path) -> Iterator[dict[str, str]]:
    """Start SLURM below `root`; gives the environment in which its commands reach it."""
    for name in ("state", "spool"):
        (root / name).mkdir()
    key = root / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = root / "slurm.conf"
    mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1 << 20)
    conf.write_text(
        CONF.format(
            host=socket.gethostname().split(".")[0],
            root=root,
            user=getpass.getuser(),
            ctld_port=_free_port(),
            d_port=_free_port(),
            cpus=NODE_CPUS,
            expire=CREDENTIAL_S,
            mib=mib // 2,
        )
    )
    environ = {**os.environ, "SLURM_CONF": str(conf), "PATH": _path_with_sbin(os.environ["PATH"])}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={root}/munge.socket"]
    munged += [f"--{n}-file={root}/munge.{n}" for n in ("pid", "log", "seed")]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            with open(root / f"{command[0]}.out", "wb") as out:
                daemons.append(subprocess.Popen(command, env=environ, stdout=out, stderr=out))
            if command is munged:
                wait_until((root / "munge.socket").exists, 10, "munged")
        wait_until(lambda: "idle" in ask(environ, "sinfo", "-h", "-o", "%t"), 30, "an idle node")
        yield environ
    finally:
        subprocess.run(["scancel", "-u", getpass.getuser()], env=environ, capture_output=True, timeout=20)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def ask(environ: dict[str, str], *command: str) -> str:
    """Output of a SLURM command, "" if it fails."""
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""


def submit(environ: dict[str, str], *arguments: str, cwd: Path) -> str:
    """Job id of a new job."""
    command = ["sbatch", "--parsable", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split(";")[0]


def jobs(environ: dict[str, str]) -> list[str]:
    """Jobs that wait or run, as 'id state name'."""
    return ask(environ, "squeue", "-h", "-r", "-o", "%i %T %j").splitlines()


def wait_until(test: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, f"no {what} within {seconds:g} s"
        time.sleep(0.1)


def wait_for_jobs(environ: dict[str, str], ids: Sequence[str], seconds: float) -> None:
    """Wait until these jobs have left the queue."""
    wait_until(
        lambda: not any(j.split()[0].split("_")[0] in ids for j in jobs(environ)), seconds, "end of jobs"
    )


def start_again(environ: dict[str, str], job: str) -> None:
    """Spare a requeued job the two minutes that SLURM has it wait."""
    wait_until(lambda: f"{job} PENDING" in "".join(jobs(environ)), 30, "requeued job")
    time.sleep(2 * CREDENTIAL_S + 1)
    update = ["scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=10"]
    wait_until(lambda: subprocess.run(update, env=environ, capture_output=True).returncode == 0, 20, "start")
