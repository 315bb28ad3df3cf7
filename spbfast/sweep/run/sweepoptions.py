"""What the caller of a sweep decides beside the job: when to stop, what to take over, how to report.

Owns the options and how their texts on the command line are read. Does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TextIO

from spbfast.config.units import parse_duration
from spbfast.errors import ArgumentError, ConfigError
from spbfast.sweep.run.progress import Progress
from spbfast.text import quote_value

LONGEST_LIMIT_S = 10**9  # some thirty years: beyond any batch system, and far from what a clock holds
_SHARD_OF = "--shard-of: must be I/N with 0 <= I < N, e.g. 0/8; got "


@dataclass(frozen=True)
class SweepOptions:
    """How to run a sweep.

    Attributes
    ----------
    fail_fast : bool
        Stop at the first failing run.
    max_failures : int or str, optional
        Stop when more runs than this have failed, a number or a share such as "5%"; by default what the
        executor section says.
    retry_failed : bool
        Run those again that failed before.
    time_limit_s : float, optional
        Stop after this many seconds, as a signal would, with exit code 75. The end of a SLURM job around
        this process stops it as well.
    shard_of : (int, int), optional
        Do only the i-th (from 0) of n disjoint parts, without Dask and without writing results.nc: a task
        of a job array. `spbfast.sweep.consolidate` joins what the parts have done.
    steal_lock : bool
        Take the directory from a driver that seems to hold it.
    force_new : bool
        Move results that are in the directory aside and begin anew.
    allow_changed_sources : bool
        Go on where other sources of the kernels have made the runs that are there.
    dashboard : bool
        Serve Dask's dashboard on the loopback address while the sweep runs.
    quiet : bool
        Show nothing.
    json_lines : bool
        Show progress as one JSON object per line.
    progress : Progress, optional
        Replaces the display on `stream` (standard error).
    engine : str
        Module that provides run_replicate, MODEL_VERSION, state_bytes and warmup.

    Raises
    ------
    ConfigError
        When options exclude each other.
    """

    fail_fast: bool = False
    max_failures: int | str | None = None
    retry_failed: bool = False
    time_limit_s: float | None = None
    shard_of: tuple[int, int] | None = None
    steal_lock: bool = False
    force_new: bool = False
    allow_changed_sources: bool = False
    dashboard: bool = False
    quiet: bool = False
    json_lines: bool = False
    progress: Progress | None = None
    stream: TextIO | None = None
    engine: str = "spbfast.model.engine"

    def __post_init__(self) -> None:
        self._check_types()
        if self.shard_of is None:
            return
        i, n = self.shard_of
        if not 0 <= i < n:
            raise ConfigError(f"{_SHARD_OF}{i}/{n}")
        if self.force_new:
            raise ConfigError(
                "--force-new and --shard-of exclude each other: one task would move away the others'"
            )

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is False and not isinstance(value, bool):
                raise ArgumentError(f"{field.name} must be True or False, got {quote_value(value)}")
        limit, part = self.time_limit_s, self.shard_of
        if limit is not None and not (isinstance(limit, int | float) and 0 < limit <= LONGEST_LIMIT_S):
            raise ArgumentError(
                f"time_limit_s must be seconds above 0, at most {LONGEST_LIMIT_S}, got {quote_value(limit)}"
            )
        if part is not None and not (isinstance(part, tuple) and [type(k) for k in part] == [int, int]):
            raise ArgumentError(f"shard_of must be two whole numbers such as (0, 4), got {quote_value(part)}")
        if not isinstance(self.engine, str):
            raise ArgumentError(f"engine must be the name of a module, got {quote_value(self.engine)}")

    @property
    def share(self) -> str:
        """K-of-N for one of N parts, "" for the whole sweep."""
        return "" if self.shard_of is None else "{}-of-{}".format(*self.shard_of)

    def changed(self, **keywords: Any) -> SweepOptions:
        """The same with some options set.

        Raises
        ------
        ArgumentError
            When there is no such option.
        """
        known = [f.name for f in fields(self)]
        if unknown := [k for k in keywords if k not in known]:
            raise ArgumentError(f"a sweep has no option {unknown[0]!r}; it has: {', '.join(known)}")
        return replace(self, **keywords)


def parse_shard_of(text: str | None) -> tuple[int, int] | None:
    """The numbers of I/N.

    Raises
    ------
    ConfigError
        When it is nothing of the kind.
    """
    if text is None:
        return None
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal()):
        raise ConfigError(f"{_SHARD_OF}{text}")
    return int(i), int(n)


def parse_time_limit(text: str | None) -> float | None:
    """Seconds of a duration such as 2h.

    Raises
    ------
    ConfigError
        When it is none.
    """
    try:
        return None if text is None else parse_duration(text) / 1e9
    except ValueError as error:
        raise ConfigError(f"--time-limit: {error}") from None


def parse_max_failures(text: str | None) -> int | str | None:
    """A number of runs, or a share such as 5%; the executor section checks which."""
    return int(text) if text is not None and text.isdecimal() else text
