"""The compiled program of a run, as Python calls it: one function a verb.

Owns nothing; engine.py knows when what is called.
"""

from __future__ import annotations

from collections.abc import Sequence

from spbfast.model.loop.verbs import Verb, run_verb
from spbfast.model.lowering.lower_machine import Lowered
from spbfast.model.state.sample_layout import Samples, make_samples
from spbfast.model.state.world import padded


def _do(
    verb: Verb,
    run: Lowered,
    a: int = 0,
    b: int = 0,
    *,
    number: int = 0,
    key: int | None = None,
    samples: Sequence[Samples] | None = None,
) -> tuple[int, bool]:
    shown = (make_samples(0),) * len(run.worlds) if samples is None else tuple(samples)
    value, done = run_verb(
        int(verb),
        padded(run.worlds),
        run.policy,
        run.actors,
        run.rows,
        run.key if key is None else key,
        run.folio_chances,
        padded(shown),
        number,
        a,
        b,
    )
    return int(value), bool(done)


def boot_demand(run: Lowered, first: int, last: int) -> tuple[int, bool]:
    """Boot-time demand of steps first..last-1: error code, and whether demand is complete."""
    return _do(Verb.BOOT_DEMAND, run, first, last)


def boot_cache(run: Lowered, number: int, folios: int, keep: int) -> bool:
    """Up to `folios` folios of page cache in world `number`, until `keep` pages are free; whether done."""
    return _do(Verb.BOOT_PAGE_CACHE, run, folios, keep, number=number, key=run.boot_key)[1]


def run_until(run: Lowered, samples: Sequence[Samples], tick: int) -> int:
    """Simulate ticks up to `tick`; an error code. `samples` has one item a world."""
    return _do(Verb.SIMULATE, run, b=tick, samples=samples)[0]


def finish(run: Lowered, samples: Sequence[Samples]) -> None:
    """Run what is due at the end and take the last sample."""
    _do(Verb.FINISH, run, samples=samples)


def contig_obtained(run: Lowered, number: int, owner: int, more: int) -> int:
    """1 GiB pages that requests in world `number` get: those free, and what `more` requests get beyond."""
    return _do(Verb.ASK_FOR_CONTIG, run, owner, more, number=number)[0]
