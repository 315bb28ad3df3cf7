"""The actors of a scenario, which request memory: one model for each `kind`.

Owns their keys and the checks within one; what all of them ask for is actor_sums.py's. Rates are long-run
means; shares of memory are shares of bytes. What an actor does each tick is in spbfast/model/demand, in the
file that actor_kinds.py names for its kind; demand is a function of seed, replicate, actor and tick alone.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from spbfast.config.base import PAGE, Model, OrderWeights, Share, TenWeights, Weights, key
from spbfast.config.startblocks import StartBlocks
from spbfast.config.units import ByteRate, Duration, Size, format_duration, format_size

REGION = 2 << 20  # what a huge page covers
MB = 10**6
MS = 10**6
SECOND = 10**9
SHORTEST = 100_000  # lifetime of a part of `allocations`: more would be hit in a tick than is worth it
# Demand is counted in fixed point per tick (MAX_PER_TICK of model/state/demand_layout.py).
MOST_PER_SECOND = (1 << 16) * 1000
MOST_PLACES = 1 << 30  # pages and blocks that actors can name, in 32 bits
PerSecond = Annotated[float, Field(ge=0.0, le=1.0)]
Skew = Annotated[float, Field(ge=0.0, le=4.0)]


def too_fast(per_second: float) -> str:
    """What is wrong with a demand that a tick cannot hold."""
    return (
        f"asks for {per_second:.3g} units a second while active; a tick of 1ms holds less than 65536 of "
        f"them, so give less than {MOST_PER_SECOND / per_second:.3g} of that"
    )


class Actor(Model):
    """The keys that every actor has."""

    boot_key: ClassVar[str] = ""  # the key that says how much memory the actor holds at t = 0, if any
    name: str | None = Field(
        None,
        description="name by which paths address the actor; its kind if not given",
        pattern=r"^[A-Za-z][A-Za-z0-9_-]*$",
        max_length=40,
    )
    enabled: bool = Field(True, description="false: the actor requests nothing")

    @property
    def label(self) -> str:
        """The name, or the kind."""
        return self.name or str(getattr(self, "kind", ""))

    @property
    def boot_bytes(self) -> int:
        """Memory that the actor holds at t = 0."""
        return getattr(self, self.boot_key) if self.boot_key else 0

    @property
    def places(self) -> float:
        """Pages and blocks that the actor may hold at once, each of which has a name."""
        return 0

    def fastest(self) -> dict[str, float]:
        """Units a second that the actor asks for while it is active, by the key that decides."""
        return {}

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        for key_, per_second in self.fastest().items():
            if per_second >= MOST_PER_SECOND:
                raise ValueError(f"{key_}: {too_fast(per_second)}")
        return self


class Burst(Model):
    """Demand that comes and goes; the mean stays the given rate."""

    on: Duration = Field(description="length of the active part of a cycle", examples=["2s"], gt=0)
    off: Duration = Field(description="length of its idle part", examples=["3s"])

    @model_validator(mode="after")
    def _check(self) -> Burst:
        if self.on < MS:
            raise ValueError(f"on: must be at least 1ms, got {format_duration(self.on)}")
        return self

    @property
    def factor(self) -> float:
        """By how much the rate is higher while active."""
        return (self.on + self.off) / self.on


class KernelStatics(Actor):
    """Unmovable memory that boot leaves behind: early slab, per-CPU data, page tables, stacks."""

    boot_key = "total"
    kind: Literal["kernel_statics"]
    total: Size = key(4 * 10**9, "memory, never freed", "flagship: assumed 3GB..5GB", ge=PAGE)
    order_weights: OrderWeights = key(
        (0.6, 0.1, 0.1, 0.2), "shares of its bytes in blocks of order 0, 1, 2, ..; any scale", "assumed"
    )

    @property
    def places(self) -> float:
        """Its pages."""
        return self.total / PAGE


class ReclaimableStatics(Actor):
    """Dentry and inode caches at t = 0."""

    boot_key = "total"
    kind: Literal["reclaimable_statics"]
    total: Size = key(2_500 * MB, "slab memory, packed", "flagship: assumed 2GB..3GB", ge=PAGE)
    memcg_skew: Skew = key(
        1.0, "0: all memcgs alike; 1: the k-th has a share of 1/k, root first", "assumed, 0..2"
    )
    superblock_skew: Skew = key(
        0.0, "0: all superblocks alike; 1: the k-th has a share of 1/k", "assumed, 0..2"
    )


class Pinned(Model):
    """Long-term pins of an actor: whole clusters of its memory that no migration ever moves."""

    share: Share = key(..., "share of its clusters that are pinned, for good", "assumed, 0..1")
    cluster: Size = key(
        REGION,
        "size of a cluster, a power of two; a huge page is pinned if any cluster in it is",
        "assumed: what vfio, RDMA or registered buffers pin are whole regions",
        ge=PAGE,
        le=1 << 40,
    )

    @model_validator(mode="after")
    def _check(self) -> Pinned:
        if self.cluster & (self.cluster - 1):
            above = format_size(1 << self.cluster.bit_length())
            raise ValueError(
                f"cluster: must be a power of two, e.g. {above}; got {format_size(self.cluster)}"
            )
        return self


_PINNED: Any = Field(
    None,
    description="long-term pins of this actor: {share: .., cluster: 2MiB}; without it workers.pinned_share "
    "draws each block of its memory alone",
    json_schema_extra={"source": "mainline: pin_user_pages(FOLL_LONGTERM)"},
)


class Daemons(Actor):
    """Anonymous memory of services: there at t = 0, churning slowly."""

    boot_key = "memory"
    kind: Literal["daemons"]
    memory: Size = key(10 * 10**9, "anonymous memory", "flagship: assumed 5GB..30GB", ge=REGION)
    thp_share: Share = key(0.5, "share of it requested as huge pages", "flagship: assumed")
    churn_per_second: PerSecond = key(
        0.001, "share of its memory per second that is freed and touched again", "assumed, 0..0.01"
    )
    pinned: Pinned | None = _PINNED

    @property
    def places(self) -> float:
        """Its pages."""
        return self.memory / PAGE

    def fastest(self) -> dict[str, float]:
        """Regions that are touched again."""
        return {"churn_per_second": self.churn_per_second * self.memory / REGION}


class Guests(Actor):
    """Virtual machines: touched memory, rewriting, ballooning, restarts, and host memory held for them."""

    kind: Literal["guests"]
    count: int = key(18, "number of guests", "seed", ge=1, le=1024)
    start: Duration = key(2 * SECOND, "start of the first guest", "assumed")
    spacing_min: Duration = key(5 * SECOND, "least time between two starts", "flagship: assumed")
    spacing_max: Duration = key(25 * SECOND, "greatest time between two starts", "flagship: assumed")
    memory: Size = key(4 << 30, "memory per guest, a multiple of 2MiB", "flagship: assumed 2GiB..8GiB")
    touch_rate: ByteRate = key(
        500 * MB, "how fast a guest touches it", "flagship: assumed 300MB/s..1GB/s", gt=0
    )
    thp_share: Share = key(0.8, "share of it requested as huge pages", "flagship: assumed 0.7..0.9")
    rewrite_per_second: PerSecond = key(
        0.01, "share of its memory per second that is freed and touched again", "flagship: assumed 0..0.03"
    )
    balloon_per_second: PerSecond = key(
        0.01, "share per second that is given back for balloon_time", "flagship: assumed 0..0.03"
    )
    balloon_time: Duration = key(2 * SECOND, "how long ballooned memory stays away", "assumed, 0.1s..30s")
    restart: bool = key(True, "restart guests, which frees all of one at once", "flagship: syzkaller does")
    restart_min: Duration = key(120 * SECOND, "least time between a start and the restart", "flagship: 2 min")
    restart_max: Duration = key(
        300 * SECOND, "greatest time between a start and the restart", "flagship: 5 min"
    )
    restart_pause: Duration = key(2 * SECOND, "from the end of a guest to its next start", "assumed, 0s..10s")
    page_tables_per_region: int = key(
        2,
        "unmovable pages per touched 2MiB: the page table (deposited for a huge page too) and the EPT page",
        "mainline; sizes assumed, 1..3",
        ge=0,
        le=8,
    )
    buffers: Size = key(40 * MB, "KVM, vhost and ring buffers per guest", "flagship: assumed 20MB..60MB")
    pinned: Pinned | None = _PINNED

    @model_validator(mode="after")
    def _check(self) -> Guests:
        if self.memory < REGION or self.memory % REGION:
            below = format_size(max(self.memory // REGION, 1) * REGION)
            raise ValueError(
                f"memory: must be a multiple of 2MiB, e.g. {below}; got {format_size(self.memory)}"
            )
        for low, high in (("spacing_min", "spacing_max"), ("restart_min", "restart_max")):
            _check_not_above(self, low, high)
        if self.restart and self.restart_min < SECOND:
            raise ValueError(
                f"restart_min: must be at least 1s, got {format_duration(self.restart_min)}; "
                "to have no restarts write restart: false"
            )
        return self

    @property
    def places(self) -> float:
        """Pages of all guests, and of the host for them."""
        tables = self.memory / REGION * self.page_tables_per_region
        return self.count * (self.memory / PAGE + tables + self.buffers / PAGE)

    def fastest(self) -> dict[str, float]:
        """Pages that a guest touches, and regions that it rewrites or gives back."""
        regions = self.memory / REGION
        return {
            "touch_rate": self.touch_rate / PAGE,
            "rewrite_per_second": self.rewrite_per_second * regions,
            "balloon_per_second": self.balloon_per_second * regions,
        }


class PageCacheLoad(Actor):
    """Files read and written through the page cache."""

    kind: Literal["page_cache"]
    rate: ByteRate = key(300 * MB, "bytes per second that enter it", "flagship: assumed 100MB/s..500MB/s")
    read_once: Share = key(0.6, "share that is never used again", "flagship: assumed")
    dropped: Share = key(
        0.05, "share of the entering folios for which an old one is dropped: truncation", "assumed, 0..0.5"
    )
    folio_weights: TenWeights | None = key(
        None,
        "shares of the bytes in folios of order 0, 1, 2, ..; not given: pagecache.folio_weights",
        "assumed",
    )
    burst: Burst | None = key(None, "not given: steady", "assumed")

    def fastest(self) -> dict[str, float]:
        """Pages that enter."""
        return {"rate": self.rate / PAGE * (self.burst.factor if self.burst else 1.0)}


class SlabGrowth(Actor):
    """Trees being walked: inodes and dentries that come, and files that are deleted."""

    kind: Literal["slab_growth"]
    rate: ByteRate = key(
        62 * MB, "bytes of slab per second, packed", "seed: 25..35 GB in 8 min = 52MB/s..73MB/s"
    )
    unlinked: Share = key(
        0.05,
        "share of the new inodes for which an old one of the same instance is deleted",
        "assumed, 0..0.5",
    )
    walkers: int = key(4, "trees walked at once", "assumed, 1..32", ge=1, le=256)
    walk_time: Duration = key(
        500 * MS, "how long a walker stays in one memcg and superblock", "assumed, 10ms..60s", ge=MS
    )
    memcg_skew: Skew = key(
        0.5, "0: all memcgs alike; 1: the k-th has a share of 1/k, root first", "assumed, 0..2"
    )
    superblock_skew: Skew = key(
        0.0, "0: all superblocks alike; 1: the k-th has a share of 1/k", "assumed, 0..2"
    )
    burst: Burst | None = key(None, "not given: steady", "flagship: bursts while trees are walked")


class Network(Actor):
    """Short-lived unmovable buffers, allocated in interrupts."""

    kind: Literal["network"]
    rate: int = key(3000, "order-2 and order-3 buffers per second", "memtier measurement", ge=0, le=10**6)
    order3_share: Share = key(0.39, "share of them that are order 3", "memtier measurement: 61/39")
    order0_factor: float = key(10.0, "order-0 buffers per higher-order buffer", "flagship", ge=0.0, le=100.0)
    lifetime: Duration = key(20 * MS, "mean lifetime, exponential", "flagship: 1ms..50ms", ge=MS)
    tasks: int = key(4, "CPUs that issue the requests in turn", "assumed, 1..cpus", ge=1, le=1024)

    @property
    def places(self) -> float:
        """Buffers that live at once."""
        return self.rate * (1 + self.order0_factor) * self.lifetime / SECOND

    def fastest(self) -> dict[str, float]:
        """Buffers of order 0; the others are fewer."""
        return {"order0_factor": self.rate * self.order0_factor}


class Churn(Actor):
    """Order-0 allocations of everything else, with lifetimes from milliseconds to seconds."""

    kind: Literal["churn"]
    rate: int = key(100_000, "allocations per second", "flagship: assumed 50,000..400,000", ge=0, le=10**7)
    movable: Share = key(0.7, "share that is movable", "flagship: assumed")
    lifetimes: tuple[Duration, ...] = key(
        (5 * MS, 100 * MS, 2 * SECOND),
        "mean lifetimes of its parts, each exponential",
        "assumed",
        min_length=1,
        max_length=8,
    )
    shares: Weights = key(
        (0.6, 0.3, 0.1), "share of the allocations with each lifetime; any scale", "assumed"
    )
    tasks: int = key(16, "CPUs that issue the requests in turn", "assumed, 1..cpus", ge=1, le=1024)

    @model_validator(mode="after")
    def _check(self) -> Churn:
        _check_parts(self.shares, self.lifetimes, MS)
        return self

    @property
    def places(self) -> float:
        """Pages that live at once."""
        return self.rate * _mean_lifetime(self.shares, self.lifetimes) / SECOND


class ExtentBuffers(Actor):
    """Metadata nodes of btrfs, kept as single pages."""

    boot_key = "at_boot"
    kind: Literal["extent_buffers"]
    at_boot: Size = key(750 * MB, "memory at t = 0", "assumed")
    total: Size = key(2 * 10**9, "memory that it grows to", "flagship: assumed 1GB..3GB", ge=1 << 20)
    growth: ByteRate = key(4 * MB, "bytes per second until then", "assumed, 1MB/s..10MB/s")
    churn_per_second: PerSecond = key(0.002, "share of the nodes replaced per second", "assumed, 0..0.02")
    pages_per_node: int = key(4, "order-0 pages of a node", "btrfs: 16 KiB nodes", ge=1, le=16)
    movable: bool = key(
        False, "ask for movable pages under every policy; policy.extent_buffers_movable decides else", "v1 41"
    )

    @model_validator(mode="after")
    def _check(self) -> ExtentBuffers:
        if self.at_boot > self.total:
            raise ValueError(
                f"at_boot: must be at most total ({format_size(self.total)}), got {format_size(self.at_boot)}"
            )
        return self

    @property
    def places(self) -> float:
        """Its pages."""
        return self.total / PAGE

    def fastest(self) -> dict[str, float]:
        """Nodes that come and that are replaced."""
        node = PAGE * self.pages_per_node
        return {"growth": self.growth / node, "churn_per_second": self.churn_per_second * self.total / node}


class GiganticPages(Actor):
    """Pages of a superpageblock's size, 1GiB unless changed, as hugetlb requests them, each held a while."""

    kind: Literal["gigantic_pages"]
    count: int = key(
        4, "how many are requested; each is held, given back and requested again", "ours", ge=1, le=4096
    )
    start: Duration = key(10 * SECOND, "when the first one is requested", "ours")
    interval: Duration = key(5 * SECOND, "time between two requests of a round", "ours, 1ms or more", ge=MS)
    hold: Duration = key(60 * SECOND, "how long each is held; 0s: for ever", "ours, 0s or 1ms or more")
    pause: Duration = key(10 * SECOND, "pause between giving one back and requesting it again", "ours", ge=MS)

    @model_validator(mode="after")
    def _check(self) -> GiganticPages:
        if 0 < self.hold < MS:
            raise ValueError(f"hold: must be 0s or at least 1ms, got {format_duration(self.hold)}")
        return self


class Kvmalloc(Actor):
    """Large kernel buffers that live long: contiguous if there is a block, else mapped page by page."""

    kind: Literal["kvmalloc"]
    rate: int = key(50, "buffers allocated per second", "assumed, 1..1000", ge=0, le=100_000)
    lifetime: Duration = key(60 * SECOND, "mean lifetime, exponential", "assumed, 1s..1h", ge=MS)
    order_weights: TenWeights = key(
        (0.4, 0.3, 0.2, 0.1), "shares of the buffers in blocks of order 1, 2, 3, ..; any scale", "assumed"
    )

    @property
    def places(self) -> float:
        """Pages of the buffers that live at once, and their page tables."""
        sizes = [(2 << order) + 1 + (2 << order) // 512 for order in range(len(self.order_weights))]
        mean = sum(w * size for w, size in zip(self.order_weights, sizes, strict=True))
        return self.rate * self.lifetime / SECOND * mean / sum(self.order_weights)


class Allocations(Actor):
    """Blocks of one order and type, with lifetimes of any mixture; `spbfast fit` finds them in recordings."""

    kind: Literal["allocations"]
    rate: float = key(1000.0, "blocks allocated per second, the long-run mean", "assumed", ge=0.0, le=1e7)
    order: int = key(0, "of the blocks: 2^order pages", "assumed, 0..9", ge=0, le=10)
    type: Literal["unmovable", "movable", "reclaimable"] = key(
        "unmovable", "migratetype asked for", "assumed"
    )
    lifetimes: tuple[Duration, ...] = key(
        (5 * MS, 100 * MS, 2 * SECOND),
        "mean lifetimes of its parts, each exponential, at least 100us",
        "assumed",
        min_length=1,
        max_length=8,
    )
    shares: Weights = key((0.6, 0.3, 0.1), "share of the blocks with each lifetime; any scale", "assumed")
    burst: Burst | None = key(None, "not given: steady", "assumed")
    tasks: int = key(4, "CPUs that issue the requests in turn", "assumed, 1..cpus", ge=1, le=1024)
    from_start: StartBlocks | None = key(None, "blocks in use at the start that it frees", "ours; none")

    @model_validator(mode="after")
    def _check(self) -> Allocations:
        _check_parts(self.shares, self.lifetimes, SHORTEST)
        return self

    @property
    def places(self) -> float:
        """Slots: twice the blocks that live at once while active, and those of the start."""
        new = 2 * self._fastest * _mean_lifetime(self.shares, self.lifetimes) / SECOND
        return new + (self.from_start.blocks if self.from_start else 0)

    @property
    def _fastest(self) -> float:
        return self.rate * (self.burst.factor if self.burst else 1.0)

    def fastest(self) -> dict[str, float]:
        """Blocks, and what ends them."""
        old = self.from_start
        ends = {"from_start": old.blocks * SECOND / old.lifetime} if old else {}
        return {"rate": 2 * self._fastest, "lifetimes": SECOND / min(self.lifetimes), **ends}


def _check_parts(shares: tuple[float, ...], lifetimes: tuple[int, ...], shortest: int) -> None:
    if len(shares) != len(lifetimes):
        raise ValueError(f"shares: must have one value per lifetime ({len(lifetimes)}), got {len(shares)}")
    if min(lifetimes) < shortest:
        least = format_duration(shortest)
        raise ValueError(f"lifetimes: must be at least {least}, got {format_duration(min(lifetimes))}")


def _mean_lifetime(shares: tuple[float, ...], lifetimes: tuple[int, ...]) -> float:
    parts = zip(shares, lifetimes, strict=False)
    return sum(share * life for share, life in parts) / sum(shares)


def _check_not_above(model: Any, low: str, high: str) -> None:
    below, above = getattr(model, low), getattr(model, high)
    if below > above:
        raise ValueError(
            f"{low}: must be at most {high} ({format_duration(above)}), got {format_duration(below)}"
        )


def _distinct(actors: tuple[Any, ...]) -> tuple[Any, ...]:
    labels = [actor.label for actor in actors]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"two actors are called {twice[0]!r}; give each a name of its own")
    return actors


ActorSpec = Annotated[
    KernelStatics
    | ReclaimableStatics
    | Daemons
    | Guests
    | PageCacheLoad
    | SlabGrowth
    | Network
    | Churn
    | ExtentBuffers
    | GiganticPages
    | Allocations
    | Kvmalloc,
    Field(discriminator="kind"),
]
ActorList = Annotated[tuple[ActorSpec, ...], Field(max_length=256), AfterValidator(_distinct)]
