"""The bare switches of a golden trace, under the names that the specification gives them.

Owns the step from a trace's mapping to the policy array. A trace knows no presets and no defaults, so nothing
here asks spbfast.config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spbfast.constants import NR_POLICY, P

_TRIGGERS = [p for p in P if p.name.startswith("trigger_")]


def switch_array(switches: Mapping[str, Any]) -> np.ndarray:
    """Switches, by the names of constants.P, as kernels take them; any that is not given is 0.

    Slab-shrink triggers are on unless given: most traces predate them. Without `shrink_requests` none of them
    does anything, nor does the target, which must be at least 1 in any policy.

    Returns
    -------
    ndarray
        int64 [NR_POLICY].

    Raises
    ------
    KeyError
        A name that no switch has.
    """
    out = np.zeros(NR_POLICY, np.int64)
    out[_TRIGGERS] = 1
    out[P.slab_shrink_target_objs] = 1
    for name, value in switches.items():
        out[P[name]] = int(value)
    if not out[P.shrink_requests]:
        out[P.shrink_high_water] = 0
    return out
