"""Populations: a fixed number of slots of which one at random is freed and allocated again.

Owns the kind POPULATION (actors network and churn). Lifetimes are exponential with mean slots / rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spbfast.constants import CLS_HIGH, CLS_KSWAPD, CLS_NORETRY, CLS_NOWARN, MOVABLE, UNMOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import SECOND, DemandBuilder, most_in_tick, per_tick
from spbfast.model.demand.demand_rows import first_counter, nr_due, put_row
from spbfast.model.primitives.draws import below, draw
from spbfast.model.state.demand_layout import ACC, CLS_USER, OP_REPLACE, Ap

if TYPE_CHECKING:
    from spbfast.config.actors import Churn, Network

CLS_ATOMIC = CLS_HIGH | CLS_KSWAPD | CLS_NOWARN


def _populations(
    plan: DemandBuilder,
    actor: Network | Churn,
    owner_name: str,
    mt: int,
    cls: int,
    parts: list[tuple[float, int, int]],
    cpu: int,
) -> None:
    """Populations (per second, mean lifetime in ns, order) that share an owner and the actor's CPUs."""
    sizes = [max(round(rate * life / SECOND), 1) for rate, life, _ in parts]
    owner, base = plan.owner(owner_name, sum(sizes), mt), 0
    for (per_second, _, order), size in zip(parts, sizes, strict=True):
        rate = per_tick(actor, per_second)
        plan.entry(
            most_in_tick(rate),
            tasks=actor.tasks,
            cpu=cpu,
            owner=owner,
            base=base,
            units=size,
            order=order,
            alt_order=0 if order else -1,
            mt=mt,
            cls=cls | CLS_NORETRY if order else cls,
            rate=rate,
        )
        base += size


def lower_network(plan: DemandBuilder, actor: Network) -> None:
    """A population for each order of buffers."""
    rates = {
        2: actor.rate * (1 - actor.order3_share),
        3: actor.rate * actor.order3_share,
        0: actor.rate * actor.order0_factor,
    }
    parts = [(rate, actor.lifetime, order) for order, rate in rates.items()]
    _populations(plan, actor, actor.label, UNMOVABLE, CLS_ATOMIC, parts, plan.take_cpus(actor.tasks))


def lower_churn(plan: DemandBuilder, actor: Churn) -> None:
    """A population for each migratetype and lifetime."""
    cpu, scale = plan.take_cpus(actor.tasks), sum(actor.shares)
    for name, mt, share in (
        ("movable", MOVABLE, actor.movable),
        ("unmovable", UNMOVABLE, 1 - actor.movable),
    ):
        rates = [actor.rate * share * part / scale for part in actor.shares]
        parts = [(rate, life, 0) for rate, life in zip(rates, actor.lifetimes, strict=True)]
        _populations(plan, actor, f"{actor.label}.{name}", mt, CLS_USER, parts, cpu)


@kernel
def tick_population(p, s, stream, tick, rows, n):
    """Replace slots at random; the tasks behind a population take turns, a tick each."""
    c = first_counter(tick)
    base, units, owner = p[Ap.BASE], p[Ap.UNITS], p[Ap.OWNER]
    order, alt, mt, cls = p[Ap.ORDER], p[Ap.ALT_ORDER], p[Ap.MT], p[Ap.CLS]
    cpu = (p[Ap.CPU] + tick % p[Ap.TASKS]) % p[Ap.CPUS]
    for i in range(nr_due(s, ACC, p[Ap.RATE], draw(stream, c))):
        slot = base + below(draw(stream, c + 1 + i), units)
        n = put_row(rows, n, cpu, OP_REPLACE, owner, slot, 1, order, alt, mt, cls)
    return n
