"""Where the points of a sweep leave the run that they share, and what may differ from there on.

Owns `sweep.branch_at` as a part of a scenario, and the list of switches that shape a machine's state. Saved
states and the planning of sweeps refuse the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spbfast.config.base import Model
from spbfast.config.policy import Policy

if TYPE_CHECKING:
    from spbfast.config.models import Scenario

# Switches that shape lists, labels or timers: a state is continued under the values it was made with.
# All other switches only decide what happens next.
SHAPING_SWITCHES = {
    "superpageblocks": "free lists are kept per superpageblock, or for the zone as a whole",
    "pcp_owned_pageblocks": "CPUs have lists of pageblocks of their own, or none",
    "sticky_content": "content bits are a history, or what is in use now",
    "relabel_on_empty": "empty superpageblocks are labelled movable, or keep their labels",
    "highatomic_reserve": "pageblocks are labelled as a reserve, or none is",
    "compact_within_superpageblock": "its timer starts at the end of boot",
}


class Branch(Model):
    """The moment at which a run leaves the part that it shares with others.

    Attributes
    ----------
    at : int
        That moment, in ns since the end of boot.
    policy : Policy
        What the machine was under until then.
    state : str or None
        A file with the machine at that moment; None: the shared part is simulated.
    """

    at: int
    policy: Policy
    state: str | None = None

    def canonical(self) -> dict[str, Any]:
        """What decides results: a file holds what simulating would give."""
        return {"at": self.at, "policy": self.policy.canonical()}


def shared_part(scenario: Scenario) -> Scenario:
    """The run up to the branch, the same for all points of a sweep."""
    branch = scenario.branch
    assert branch is not None
    return scenario.model_copy(update={"policy": branch.policy, "duration": branch.at, "branch": None})
