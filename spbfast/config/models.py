"""The sections of a job: the simulated scenario, and around it the sweep, the output and the executor.

Scenario is the part that decides results and therefore identities; hashes cover its `canonical()`. JobFile is
the shape of a YAML file, job.py has what `load_config` returns. The machine and the actors have their models
in machine.py, caches.py and actors.py, the policy in policy.py, the executor in executor.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from spbfast.config.actor_sums import check_boot_fits, check_demand, check_starts
from spbfast.config.actors import ActorList
from spbfast.config.base import PAGE, Model
from spbfast.config.branch import Branch
from spbfast.config.caches import PageCacheSpec, SlabSpec, SwapSpec
from spbfast.config.executor import Executor
from spbfast.config.khugepaged import KhugepagedSpec
from spbfast.config.latencies import WorkersSpec
from spbfast.config.machine import BootSpec, MachineSpec, PcpSpec, ReclaimSpec
from spbfast.config.policy import Policy
from spbfast.config.replayspec import ReplaySpec
from spbfast.config.replicates import Replicates, ReplicatesSpec
from spbfast.config.units import Duration, format_duration, format_size, parse_duration
from spbfast.outputs.tracepoints import GROUPS as RECORD_GROUPS
from spbfast.outputs.tracepoints import NAMES as RECORD_KINDS
from spbfast.outputs.tracepoints import check_names
from spbfast.text import quote_value

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
MAX_SAMPLES = 1_000_000


def _whole_ticks(value: int) -> int:
    if value <= 0 or value % 1_000_000:
        raise ValueError(
            f"must be a whole number of milliseconds, at least 1ms; got {format_duration(value)}"
        )
    return value


def _plain_name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        better = re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-._")[:80] or "my-sweep"
        raise ValueError(
            f"{quote_value(value)} must be letters, digits, '.', '_' and '-' only; write e.g. {better}"
        )
    return value


def _record_names(value: Any) -> Any:
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"must be a list of kinds of records, or all; got {quote_value(value)}")
    return check_names(value if isinstance(value, str) else tuple(value))


Span = Annotated[Duration, AfterValidator(_whole_ticks)]
Records = Annotated[
    tuple[str, ...],
    BeforeValidator(_record_names),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*RECORD_GROUPS]},
                {"type": "array", "items": {"enum": [*RECORD_GROUPS, *RECORD_KINDS]}, "uniqueItems": True},
            ]
        }
    ),
]
Name = Annotated[
    str,
    AfterValidator(_plain_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$", "examples": ["throttle"]}),
]


_RANGE = WithJsonSchema(
    {
        "type": "object",
        "description": "per key a range or a list of choices",
        "additionalProperties": {
            "anyOf": [
                {"type": "array", "minItems": 2},
                {
                    "type": "object",
                    "required": ["min", "max"],
                    "additionalProperties": False,
                    "properties": {
                        "min": {"description": "least value, with its unit"},
                        "max": {"description": "greatest value, with its unit"},
                        "scale": {"enum": ["linear", "log"], "default": "linear"},
                        "step": {"description": "values are min plus a multiple of this"},
                    },
                },
            ]
        },
    }
)


class DesignSpec(Model):
    """Points that a sampling method chooses within ranges."""

    kind: Literal["lhs", "sobol", "random", "saltelli", "morris"] = Field(
        description="lhs: Latin hypercube; sobol: Sobol sequence; random: independent uniform; "
        "saltelli, morris: for `spbfast sensitivity`"
    )
    samples: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        description="points; saltelli: base samples N, which make N*(d+2) points for d ranges; "
        "morris: trajectories N, which make N*(d+1)",
        examples=[256],
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="seed of the design itself; of saltelli and morris below 2^32"
    )
    second_order: bool = Field(False, description="saltelli: also pairwise indices, from N*(2d+2) points")
    levels: Annotated[int, Field(ge=2, le=64, multiple_of=2)] = Field(
        4, description="morris: levels of its grid"
    )
    ranges: Annotated[dict[str, Any], _RANGE] = Field(
        description="per key {min, max, scale: linear or log, step}, or a list of choices"
    )

    @model_validator(mode="after")
    def _check_seed(self) -> Self:
        if self.kind in ("saltelli", "morris") and self.seed >= 2**32:
            raise ValueError(f"seed: must be less than {2**32} for {self.kind}, got {self.seed}")
        return self


class SweepSpec(Model):
    """Which points a sweep visits.

    The rows of one of `zip`, `points`, `points_file` and `design`, each with every combination of `grid`.
    """

    baseline: dict[str, Any] | None = Field(
        None, description="one extra point with these values, the other side of every comparison"
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="every combination of these values; keys are dotted paths"
    )
    zip: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="one point per position, taking that value of each list; the lists are equally long",
    )
    points: list[dict[str, Any]] = Field(default_factory=list, description="points one by one")
    points_file: str | None = Field(
        None,
        description="a CSV or Parquet file of points, relative to this file; keys in its header",
    )
    design: DesignSpec | None = Field(None, description="points chosen by a sampling method")
    seeding: Literal["common", "independent"] = Field(
        "common",
        description="common: replicate k meets the same random demand in every point, which comparisons "
        "need; independent: every point has its own draws",
    )
    branch_at: Span | None = Field(
        None,
        description="simulate each replicate once up to this moment, under the file's own policy, and "
        "continue every point from there under its own values",
        examples=["300s"],
    )
    keep_states: bool = Field(
        False, description="keep the machines at branch_at in the results directory when all points are done"
    )


def _section(model: type[Model], text: str) -> Any:
    """A section that may be left out."""
    return Field(default_factory=model, description=text)


class OutputSpec(Model):
    """How much of each run is kept."""

    level: Literal["summary", "series", "spb"] = Field(
        "series", description="summary: scalars; series: and samples over time; spb: and per superpageblock"
    )
    every: Span = Field(parse_duration("1s"), description="simulated time between two samples")
    ask_1g_every: Span | None = Field(
        None,
        description="simulated time between two samples at which gigantic pages are asked for; that is "
        "undone from a copy of the machine, which doubles the memory; not given: only at the end",
    )
    records: Records = Field(
        (),
        description="kinds of event records that `spbfast run` keeps: names, page_events, or all",
    )
    records_max: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        1_000_000, description="records kept of each kind; later ones are counted as dropped"
    )
    records_boot: bool = Field(False, description="record boot, too, with the time 0")


class StartSpec(Model):
    """A saved state to start from, in place of a boot."""

    state: str = Field(
        description="a state file of `spbfast run --save-state`, relative to this file; the run continues at "
        "the moment it was saved"
    )
    digest: str | None = Field(
        None, description="the digest that the state file must have; what it has is filled in"
    )

    def canonical(self) -> dict[str, Any]:
        """The content of the file, wherever it lies."""
        return {"state": self.digest}


class ScenarioFields(Model):
    """The sections of a file that decide what is simulated."""

    duration: Span = Field(description="simulated time, boot not counted")
    policy: Policy = Field(
        description="the allocator policy: a preset name (default v1@30), or a preset with changes"
    )
    machine: MachineSpec = _section(MachineSpec, "memory and CPUs")
    boot: BootSpec = _section(BootSpec, "how the state at time 0 is built")
    pcp: PcpSpec = _section(PcpSpec, "per-CPU page lists")
    reclaim: ReclaimSpec = _section(ReclaimSpec, "watermarks and reclaim of page cache")
    workers: WorkersSpec = _section(WorkersSpec, "latencies and costs of deferred work")
    slab: SlabSpec = _section(SlabSpec, "slab caches of file metadata and their shrinkers")
    pagecache: PageCacheSpec = _section(PageCacheSpec, "the page cache's order and sizes")
    swap: SwapSpec = _section(SwapSpec, "what becomes of pages in swap")
    khugepaged: KhugepagedSpec = _section(KhugepagedSpec, "huge pages rebuilt in the background")
    actors: ActorList = Field((), description="what requests memory: a list of actors, each with its kind")
    replay: ReplaySpec | None = Field(None, description="a recording to repeat, in place of actors")

    @model_validator(mode="after")
    def _check_boot(self) -> Self:
        machine = self.machine
        high = machine.watermarks(self.reclaim.watermark_scale)[2]
        room = (machine.nr_managed - high) * PAGE
        if room <= 0:
            low, reserve = format_size(machine.nr_managed * PAGE), format_size(high * PAGE)
            raise ValueError(
                f"machine: has {low} for use, and its high watermark keeps {reserve} of it free; give more "
                "memory, or lower machine.min_free or reclaim.watermark_scale"
            )
        try:
            check_boot_fits(room, self.actors)
            check_demand(self.actors, self.slab.bytes_per_inode)
            check_starts(self.actors, bool(machine.files))
        except ValueError as error:
            raise ValueError(f"actors: {error}") from None
        return self


class Scenario(ScenarioFields):
    """One simulated machine under one policy: everything that decides the result, defaults filled."""

    output_every: int = Field(description="nanoseconds between two samples (output.every)")
    ask_1g_every: int | None = Field(
        None, description="nanoseconds between two askings (output.ask_1g_every)"
    )
    start: StartSpec | None = None
    branch: Branch | None = None

    def canonical(self) -> dict[str, Any]:
        """Plain values; without what there is none of, so that identities stay."""
        values = super().canonical()
        for name in ("start", "branch", "replay", "ask_1g_every"):
            if getattr(self, name) is None:
                del values[name]
        return values


class JobFile(ScenarioFields):
    """The shape of a configuration file."""

    name: Name = Field(
        description="name of the job; results go to results/NAME. Not given, or only in the extended file: "
        "the file's own name without .yaml"
    )
    extends: str | None = Field(None, description="a file, relative to this one, that this one builds on")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="root seed of all randomness")
    replicates: Replicates = Field(
        ReplicatesSpec(min=1, max=1),
        description="runs per point, or min, max and until; replicate k meets the same demand in every point",
    )
    presets: dict[str, Any] = Field(
        default_factory=dict, description="presets of your own: each NAME with what `policy` may hold"
    )
    start: StartSpec | None = Field(None, description="start from a saved state instead of booting")
    sweep: SweepSpec | None = Field(None, description="the points of `spbfast sweep`")
    output: OutputSpec = _section(OutputSpec, "what is recorded")
    executor: Executor = _section(Executor, "what runs the points")

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        every, shown = self.output.every, format_duration(self.output.every)
        if self.duration // every > MAX_SAMPLES:
            least = format_duration(-(-self.duration // MAX_SAMPLES // 10**6) * 10**6)
            raise ValueError(
                f"output.every: {shown} makes {self.duration // every} samples of a duration of "
                f"{format_duration(self.duration)}, at most {MAX_SAMPLES} are kept; write at least {least}"
            )
        return self

    @model_validator(mode="after")
    def _check_asking(self) -> Self:
        every, asking = self.output.every, self.output.ask_1g_every
        if asking is None:
            return self
        if self.replay is not None:
            raise ValueError(
                "output.ask_1g_every: a job that replays a recording asks for nothing; remove it"
            )
        if asking % every:
            raise ValueError(
                f"output.ask_1g_every: {format_duration(asking)} is no multiple of output.every, "
                f"{format_duration(every)}; write {format_duration(-(-asking // every) * every)}"
            )
        return self

    def scenario(self) -> Scenario:
        """The part that decides results."""
        values = {name: getattr(self, name) for name in ScenarioFields.model_fields}
        at = self.sweep.branch_at if self.sweep is not None else None
        branch = None if at is None else Branch(at=at, policy=self.policy)
        return Scenario.model_construct(
            **values,
            output_every=self.output.every,
            ask_1g_every=self.output.ask_1g_every,
            start=self.start,
            branch=branch,
        )
