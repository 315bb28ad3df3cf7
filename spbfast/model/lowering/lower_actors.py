"""The actors of a scenario to arrays, in file order.

Owns the way through the list only: what an actor becomes stands in the file that demand/actor_kinds.py names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spbfast.model.demand.actor_kinds import LOWERINGS
from spbfast.model.demand.demand_plan import DemandBuilder, DemandPlan

if TYPE_CHECKING:
    from spbfast.config.models import Scenario


def lower_actors(scenario: Scenario, first_owner: int) -> DemandPlan:
    """The demand of a scenario.

    Parameters
    ----------
    scenario : Scenario
        Its sections machine, boot, slab, pagecache and actors are read.
    first_owner : int
        Number of the first owner made here; 0 is the page cache, the slab caches have their own.

    Raises
    ------
    ValueError
        When a rate is too high for one tick.
    """
    plan = DemandBuilder(scenario, first_owner)
    for actor in scenario.actors:
        if actor.enabled:
            kind, lower = LOWERINGS[actor.kind]
            plan.begin(kind, actor)
            lower(plan, actor)
    return plan.finish()
