"""The `executor` section: where and how the runs of a sweep are done. Never part of a result's identity.

Owns the keys, which kinds they belong to, and their limits. A configuration may come from a stranger, so
nothing here can put a command into a job script: directives and prologues for a batch system come from the
user's own dask-jobqueue configuration. Starts nothing: that is the work of sweep/pools.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from spbfast.config.base import MAX_COUNT, Model
from spbfast.config.units import MAX_DURATION, Duration, Size, format_duration, parse_duration
from spbfast.text import quote_value

BatchSystemName = Literal["slurm", "pbs", "lsf", "sge"]
BATCH_SYSTEMS: tuple[str, ...] = get_args(BatchSystemName)
ExecutorKind = Literal["threads", "processes", "serial", BatchSystemName, "address"]

# Keys that only some kinds understand. The others ignore them and say so, so that one file serves several
# kinds with `--set executor.kind=...`.
_JOB_KEYS = "jobs cores processes walltime queue account adapt lifetime".split()
_KINDS_OF = {key: BATCH_SYSTEMS for key in _JOB_KEYS} | {
    "workers": ("threads", "processes", "serial"),
    "address": ("address",),
    "scheduler_file": ("address",),
    "tls": ("address",),
    "insecure": (*BATCH_SYSTEMS, "address"),
}
_WORD = r"[A-Za-z0-9][A-Za-z0-9._@:,+-]{0,127}"
_ADDRESS = r"(tls|tcp)://[A-Za-z0-9.\[\]:_-]+:[0-9]{1,5}"
_SHARE = r"[0-9]{1,3}(\.[0-9]+)?%"
_SECOND_NS = 1_000_000_000
MAX_JOBS = 100_000
MAX_AUTO = 1_000_000


def _auto_or_count(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_AUTO:
        raise ValueError(f"must be 'auto' or a whole number, 1 to {MAX_AUTO}, got {quote_value(value)}")
    return value


def _auto_or_duration(value: Any) -> Any:
    if value == "auto":
        return value
    if (found := parse_duration(value)) > MAX_DURATION:
        raise ValueError(f"must be at most {format_duration(MAX_DURATION)}, got {value}")
    return found


def _count_or_share(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    if isinstance(value, str) and re.fullmatch(_SHARE, value) and float(value[:-1]) <= 100:
        return value
    raise ValueError(f"must be a number of runs such as 20, or a share such as 5%; got {quote_value(value)}")


def _plain_word(value: str) -> str:
    # It becomes a line of a job script, so it must not be able to say anything else there.
    if not re.fullmatch(_WORD, value):
        raise ValueError(
            f"must be one plain word (letters, digits and . _ - @ : , +), got {quote_value(value)}"
        )
    return value


def _dask_address(value: str) -> str:
    if not re.fullmatch(_ADDRESS, value):
        raise ValueError(f"must be an address such as tls://10.0.0.5:8786, got {quote_value(value)}")
    return value


AutoOrCount = Annotated[
    int | str,
    BeforeValidator(_auto_or_count),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_AUTO}]}),
]
AutoOrDuration = Annotated[
    int | str,
    BeforeValidator(_auto_or_duration),
    WithJsonSchema(
        {
            "type": "string",
            "examples": ["55min", "auto"],
            "description": f"at most {format_duration(MAX_DURATION)}",
        }
    ),
]
CountOrShare = Annotated[
    int | str,
    BeforeValidator(_count_or_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_COUNT},
                {"type": "string", "pattern": f"^{_SHARE}$"},
            ]
        }
    ),
]
Word = Annotated[
    str, AfterValidator(_plain_word), WithJsonSchema({"type": "string", "pattern": f"^{_WORD}$"})
]
Address = Annotated[
    str, AfterValidator(_dask_address), WithJsonSchema({"type": "string", "pattern": f"^{_ADDRESS}$"})
]


class Adapt(Model):
    """Limits between which the number of jobs follows the work."""

    min: Annotated[int, Field(ge=0, le=MAX_JOBS)] = Field(
        0, description="jobs that stay even when there is no work"
    )
    max: Annotated[int, Field(ge=1, le=MAX_JOBS)] = Field(description="jobs at most", examples=[40])

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min: must be at most max ({self.max}), got {self.min}")
        return self


class Executor(Model):
    """What runs the points; never part of a result's identity."""

    kind: ExecutorKind = Field(
        "threads",
        description="threads, processes or serial on this machine; a batch system; or a running scheduler",
    )
    workers: AutoOrCount = Field(
        "auto", description="threads or processes; auto is one per usable CPU, as far as memory allows"
    )
    batch: AutoOrCount = Field("auto", description="runs per task; auto aims at five seconds")
    memory: Size | None = Field(
        None,
        description="memory for all runs at a time on this machine, or of one job; the default here is 80 % "
        "of what is free",
    )
    timeout: Duration | None = Field(
        None, description="longest real time of one run; it is then tried twice more, alone"
    )
    max_failures: CountOrShare | None = Field(
        None, description="stop when more runs than this have failed: a number, or a share such as 5%"
    )
    jobs: Annotated[int, Field(ge=1, le=MAX_JOBS)] = Field(1, description="jobs of the batch system")
    cores: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="CPUs of one job")
    processes: Annotated[int, Field(ge=1, le=4096)] = Field(
        1, description="worker processes of one job, which share its cores and memory"
    )
    walltime: Duration = Field(parse_duration("1h"), description="time limit of one job")
    lifetime: AutoOrDuration = Field(
        "auto", description="when a worker hands over and ends; auto is 5 min, or a tenth, before walltime"
    )
    queue: Word | None = Field(None, description="queue or partition", examples=["batch"])
    account: Word | None = Field(None, description="account or project that pays", examples=["mm-lab"])
    adapt: Adapt | None = Field(None, description="let the number of jobs follow the work")
    address: Address | None = Field(None, description="scheduler to use", examples=["tls://10.0.0.5:8786"])
    scheduler_file: str | None = Field(
        None, description="file in which a scheduler left its address", examples=["scheduler.json"]
    )
    tls: str | None = Field(
        None, description="directory with ca.pem, cert.pem and key.pem for a scheduler's TLS"
    )
    insecure: bool = Field(
        False, description="allow connections without TLS beyond this machine; anybody can then run code"
    )

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.kind == "address" and (self.address is None) == (self.scheduler_file is None):
            raise ValueError("kind: address needs exactly one of the keys address and scheduler_file")
        if self.kind in BATCH_SYSTEMS:
            if self.memory is None:
                raise ValueError(f"memory: kind {self.kind} needs the memory of one job, e.g. memory: 16GiB")
            if self.cores < self.processes:
                raise ValueError(f"processes: must be at most cores ({self.cores}), got {self.processes}")
            if isinstance(self.lifetime, int) and self.lifetime >= self.walltime:
                raise ValueError("lifetime: must be shorter than walltime")
            if self.walltime < 60 * _SECOND_NS:
                raise ValueError("walltime: must be at least 1min, the resolution of batch systems")
        return self

    @property
    def unused_keys(self) -> list[str]:
        """Keys that were given but mean nothing to this kind."""
        given = self.model_fields_set
        return [k for k, kinds in _KINDS_OF.items() if k in given and self.kind not in kinds]

    @property
    def lifetime_s(self) -> float:
        """Seconds after which a job's workers hand over and end."""
        if isinstance(self.lifetime, int):
            return self.lifetime / _SECOND_NS
        walltime = self.walltime / _SECOND_NS
        return walltime - min(300.0, walltime / 10)

    @property
    def job_limits(self) -> tuple[int, int]:
        """Fewest and most jobs of the batch system at a time."""
        return (self.adapt.min, self.adapt.max) if self.adapt else (self.jobs, self.jobs)

    def allowed_failures(self, total: int) -> int | None:
        """Runs of `total` that may fail before the sweep stops; None is any number."""
        if isinstance(self.max_failures, str):
            return int(float(self.max_failures[:-1]) / 100 * total)
        return self.max_failures
