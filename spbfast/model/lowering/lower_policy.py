"""The policy to the int64 array that kernels index by constants.P.

Owns the names by which a policy may be given in Python: a preset, a mapping of switches over a preset, a
validated Policy, or the bare switches of a golden trace. Reading YAML and its error places is config's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from spbfast.config import presets
from spbfast.config.policy import ALIASES, Policy, ShrinkTriggers
from spbfast.constants import NR_POLICY, P
from spbfast.errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeAlias

    PolicyLike: TypeAlias = str | Policy | Mapping[str, Any] | np.ndarray

TRIGGERS = tuple(ShrinkTriggers.model_fields)
_DURATIONS = ("slab_shrink_throttle", "evacuate_throttle")


def policy_array(policy: PolicyLike) -> np.ndarray:
    """The policy as kernels take it.

    Parameters
    ----------
    policy : str, Policy, mapping or int64 array
        A preset's name; a validated policy; keys of the YAML section `policy` over `preset` (v1@30 if not
        given), where a duration may also be an int in ns; or an array that is already lowered.

    Returns
    -------
    ndarray
        int64 [NR_POLICY], a fresh copy; durations in ns.

    Raises
    ------
    ConfigError
        Unknown preset, key or value; the message suggests the nearest name.
    """
    if isinstance(policy, np.ndarray):
        if policy.shape != (NR_POLICY,):
            raise ConfigError(f"a policy array has shape ({NR_POLICY},), got {policy.shape}")
        return policy.astype(np.int64)
    if isinstance(policy, str):
        policy = {"preset": policy}
    if not isinstance(policy, Policy):
        policy = complete_policy(policy)
    return _by_index(policy.parameters())


def switch_array(switches: Mapping[str, Any]) -> np.ndarray:
    """Bare switches, by the names of constants.P, as kernels take them; what is not given is 0.

    Shrink triggers are on: a trace's switches do not know them. Without `shrink_requests` all are silent.

    Raises
    ------
    KeyError
        A name that no switch has.
    """
    values = {**{f"trigger_{name}": 1 for name in TRIGGERS}, **switches}
    if not values.get("shrink_requests"):
        values["shrink_high_water"] = 0
    return _by_index(values)


def _by_index(values: Mapping[str, Any]) -> np.ndarray:
    out = np.zeros(NR_POLICY, np.int64)
    for name, value in values.items():
        out[P[name]] = int(value)
    return out


def complete_policy(given: Mapping[str, Any]) -> Policy:
    """The Policy that a mapping of keys over a preset means.

    Raises
    ------
    ConfigError
        Unknown preset, key or value.
    """
    try:
        name = presets.canonical_name(str(given.get("preset", presets.DEFAULT)))
    except ValueError as error:
        raise ConfigError(f"policy.preset: {error}") from None
    values = presets.preset_values(name)
    for key, value in given.items():
        if key != "preset":
            _put(values, str(key), value)
    try:
        return Policy.model_validate({**values, "preset": name})
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(item) for item in error.errors())) from None


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """One given key into the complete mapping, under the name that the model knows."""
    key = ALIASES.get(key, key) if key != "tainted_reserve_pb" else key
    if key == "tainted_reserve_pb":
        values["reserve_floor"], values["reserve_shift"] = value, -1
    elif key in _DURATIONS:
        values[key] = f"{value}ns" if isinstance(value, int | np.integer) else value
    elif key == "slab_shrink_triggers" and isinstance(value, Mapping):
        for trigger, switch in value.items():
            _put(values, f"slab_shrink_triggers.{trigger}", switch)
    elif key.startswith("slab_shrink_triggers."):
        values["slab_shrink_triggers"][key.partition(".")[2]] = value
    elif key in Policy.model_fields:
        values[key] = value
    else:
        near = difflib.get_close_matches(key, [*Policy.model_fields, *ALIASES], n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"policy.{key}: unknown key{hint}")


def _problem(item: Any) -> str:
    path = ".".join(str(part) for part in ("policy", *item["loc"]))
    return f"{path}: {item['msg'].removeprefix('Value error, ')}, got {item['input']!r}"
