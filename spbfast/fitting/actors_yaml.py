"""Fitted actors as a job in YAML, with a comment on where each number comes from.

Owns the text: a job of its own, which `spbfast validate` accepts and other jobs can extend. Numbers are
rounded to four figures; nothing else differs from the fit but what the comments name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.config.units import MAX_DURATION, format_duration, format_size
from spbfast.errors import DumpError
from spbfast.fitting.exponential_mixture import MixturePart
from spbfast.fitting.fitted_actors import SHORT_S, FittedActor, FittedRecording
from spbfast.observed import read_dump
from spbfast.text import printable

LONGEST_BEHIND = 20.0  # times the recording: what is only known to be longer is simulated with no more
MOST_SLOTS = 1 << 26  # of all actors; what is simulated is cut before it needs more
LEAST_SHARE = 1e-5
ASSUMED_MEMORY = 16 << 30
LONGEST_NAME = 60
MOST_TASKS = 16


def job_text(fit: FittedRecording, memory: int | None = None) -> str:
    """The job.

    Parameters
    ----------
    fit : FittedRecording
    memory : int, optional
        Bytes of the machine; None: assumed.
    """
    receipt = fit.receipt
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", fit.path.stem).strip("-._")[:LONGEST_NAME] or "recording"
    length = min(max(round(receipt.seconds * 1000), 1), MAX_DURATION // 10**6)
    censored = receipt.censored + receipt.censored_at_gap + receipt.moved
    lines = [
        f"# Actors fitted by `spbfast fit` to {printable(fit.path.name)}: {receipt.allocations:,} blocks "
        f"handed out in {receipt.seconds:.4g} s.",
        f"# Lives: {receipt.ended:,} ended, {censored:,} right-censored; "
        f"{receipt.truncated:,} frees of older blocks dropped; {receipt.lost:,} events lost.",
        "# Certainty of every rate, lifetime and share: fitted. Intervals hold 99 % each. Type and order",
        "# are the recording's own; who holds a block is told by flags. Memory in use at the start is not",
        "# fitted.",
        *(f"# Warning: {printable(text)}" for text in receipt.warnings),
        f"name: fitted-{name}",
        f"duration: {format_duration(length * 10**6)} # as long as the recording",
        "policy: mainline",
        f"machine: {{memory: {format_size(memory or ASSUMED_MEMORY)}, cpus: {min(max(fit.cpus, 1), 1024)}}} "
        f"# {'recorded' if memory else 'memory assumed'}",
        "actors:",
    ]
    within = limits_of(fit)
    for actor in fit.actors:
        lines += _actor_lines(actor, within, min(max(fit.cpus, 1), MOST_TASKS))
    return "\n".join(lines) + "\n"


def memory_of(path: Path) -> int | None:
    """Memory of the machine in a capture's zoneinfo, bytes in whole GiB; None where it is not told.

    Raises
    ------
    DumpError
        When the file is damaged.
    """
    try:
        seen = read_dump(path).of_kind("zoneinfo")
    except DumpError:
        return None
    pages = sum(zone.pages.get("present", 0) for zone in seen[0].zones) if seen else 0
    gib = min(round(pages * 4096 / (1 << 30)), 900)
    return gib << 30 if gib >= 1 else None


@dataclass(frozen=True)
class SimulatedWithin:
    """What a job cuts so that its actors need no more slots than a simulation has room for.

    Attributes
    ----------
    length : float
        Of the recording, s.
    behind : float
        Longest mean lifetime of parts that are only bounded, times `length`.
    steady : frozenset of str
        Actors whose bursts are left out.
    """

    length: float
    behind: float = LONGEST_BEHIND
    steady: frozenset[str] = frozenset()

    def mean(self, part: MixturePart) -> float:
        """Mean lifetime that the job has for a part, s; at least what actors can do."""
        mean = part.mean
        if part.is_bound:
            known = part.mean_low if self.behind >= LONGEST_BEHIND else 0.0
            mean = min(mean, max(self.behind * self.length, known))
        return max(mean, SHORT_S)

    def slots(self, actor: FittedActor) -> float:
        """Slots that an actor then needs."""
        burst = actor.burst if actor.name not in self.steady else None
        factor = (burst.on + burst.off) / burst.on if burst else 1.0
        held = sum(p.share * self.mean(p) for p in used_parts(actor)) or self.length
        return 2 * factor * actor.arrivals.rate * held


def limits_of(fit: FittedRecording) -> SimulatedWithin:
    """Cuts in order: bounded lifetimes, then bursts of actors with many slots, then lifetimes again."""
    length = fit.receipt.seconds
    within = SimulatedWithin(length)
    for behind, with_bursts in (
        (LONGEST_BEHIND, True),
        (5.0, True),
        (5.0, False),
        (1.0, False),
        (0.1, False),
    ):
        within = SimulatedWithin(length, behind)
        if not with_bursts:
            large = (a.name for a in fit.actors if within.slots(a) > MOST_SLOTS / 16)
            within = SimulatedWithin(length, behind, frozenset(large))
        if sum(map(within.slots, fit.actors)) <= MOST_SLOTS:
            break
    return within


def _actor_lines(actor: FittedActor, within: SimulatedWithin, tasks: int) -> list[str]:
    arrivals = actor.arrivals
    lines = [
        "  - kind: allocations",
        f"    name: {actor.name}",
        f"    rate: {_figures(arrivals.rate)} # fitted: {actor.blocks:,} blocks; "
        f"{_figures(arrivals.low)}..{_figures(arrivals.high)} /s",
        f"    order: {actor.order} # recorded",
        f"    type: {actor.type} # recorded; holder {actor.holder}",
    ]
    parts = used_parts(actor)
    if actor.lifetimes is None:
        lines.append("    lifetimes: # not known: no free was seen, and no block to the end; assumed")
        lines.append(f"      - {duration_text(within.length)}")
    else:
        found = actor.lifetimes
        lines.append(
            f"    lifetimes: # fitted to {actor.ended:,} ended lives; off by {found.distance:.3f} at most "
            f"(chance alone {found.distance_by_chance:.3f})"
        )
        lines += [f"      - {duration_text(within.mean(p))} # {part_comment(p)}" for p in parts]
    lines.append("    shares:")
    if actor.lifetimes is None:
        lines.append("      - 1.0")
    lines += [f"      - {p.share:.5f} # fitted: {p.share_low:.4f}..{p.share_high:.4f}" for p in parts]
    if actor.burst is not None and actor.name in within.steady:
        lines.append(
            "    # bursts were found and are left out: so many long-lived blocks need too many slots"
        )
    elif actor.burst is not None:
        burst = actor.burst
        on, off = (duration_text(max(round(x, 3), 0.001)) for x in (burst.on, burst.off))
        lines.append(
            f"    burst: {{on: {on}, off: {off}}} # fitted: means of {burst.cycles} cycles; "
            f"{burst.silent_share:.1%} came in between"
        )
    lines.append(f"    tasks: {tasks} # CPUs of the recording, at most {MOST_TASKS}")
    return lines


def used_parts(actor: FittedActor) -> list[MixturePart]:
    """Parts with a share that is worth a line."""
    found = actor.lifetimes.parts if actor.lifetimes else ()
    return [part for part in found if part.share >= LEAST_SHARE]


def part_comment(part: MixturePart) -> str:
    """Where a mean comes from, for people."""
    if part.is_bound:
        return (
            f"not identified: at least {duration_text(part.mean_low)}, {part.deaths:.0f} ended lives; assumed"
        )
    text = f"fitted: {duration_text(part.mean_low)}..{duration_text(part.mean_high)}"
    return f"{text}; fitted mean {duration_text(part.mean)}" if part.mean < SHORT_S else text


def duration_text(seconds: float) -> str:
    """A duration of four figures in the form that jobs read."""
    if not np.isfinite(seconds) or seconds > 1e6:
        return "277h"
    ns = max(round(seconds * 1e9), 1)
    digits = max(len(str(ns)) - 4, 0)
    ns = round(ns / 10**digits) * 10**digits
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= scale:
            return f"{ns / scale:.10g}{unit}"
    return f"{ns}ns"


def _figures(value: float) -> str:
    """Five figures, without an exponent."""
    text = np.format_float_positional(value, precision=5, fractional=False, trim="-")
    return text if "." in text or float(text) else "0"
