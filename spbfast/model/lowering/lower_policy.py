"""The policy to the int64 array that kernels index by constants.P.

Owns the one way from outside to that array: a preset's name, a mapping of switches over a preset, or a
validated Policy. Reading YAML and saying where an error is in a file is config's; the switches of golden
files are the business of spbfast/verify.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from spbfast.config import messages, presets
from spbfast.config.keybounds import bounds_of
from spbfast.config.policy import Policy
from spbfast.constants import NR_POLICY, P
from spbfast.errors import ConfigError
from spbfast.text import quote_value, suggest

if TYPE_CHECKING:
    from typing import TypeAlias

    PolicyLike: TypeAlias = str | Policy | Mapping[str, Any] | np.ndarray

_DURATIONS = ("slab_shrink_throttle", "evacuate_throttle")
# Keys that the specification, and so constants.P, calls by another name.
_KERNEL_NAMES = {"slab_shrink": "shrink_requests", **{key: f"{key}_ns" for key in _DURATIONS}}


def policy_array(policy: PolicyLike) -> np.ndarray:
    """The policy as kernels take it.

    Parameters
    ----------
    policy : str, Policy, mapping or int64 array
        A preset's name; a validated policy; keys of the YAML section `policy` over `preset` (v1@30 if not
        given); or an array that this function has returned.

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
        return _checked_array(policy)
    out = np.zeros(NR_POLICY, np.int64)
    for name, value in parameters(complete_policy(policy)).items():
        out[P[name]] = value
    return out


def _checked_array(given: np.ndarray) -> np.ndarray:
    if given.shape != (NR_POLICY,):
        raise ConfigError(f"a policy array has shape ({NR_POLICY},), got {given.shape}")
    if given.dtype.kind not in "iu":
        raise ConfigError(f"a policy array holds integers, got {given.dtype}")
    out = given.astype(np.int64)
    for key, info in Policy.model_fields.items():
        name = _KERNEL_NAMES.get(key, key)
        low, high = (0, 1) if info.annotation is bool else bounds_of(info)
        if name in P.__members__ and high is not None and not (low or 0) <= out[P[name]] <= high:
            raise ConfigError(
                f"policy.{key} must be {low or 0} to {high} in a policy array, got {out[P[name]]}"
            )
    return out


def parameters(policy: Policy) -> dict[str, int]:
    """Every switch and number as the integers that the kernels take, by the names of constants.P."""
    out: dict[str, int] = {}
    for key, value in policy.canonical().items():
        if isinstance(value, bool | int):
            out[_KERNEL_NAMES.get(key, key)] = int(value)
    for trigger, value in policy.slab_shrink_triggers.canonical().items():
        out[f"trigger_{trigger}"] = int(value)
    out["shrink_high_water"] = int(policy.slab_shrink and policy.slab_shrink_triggers.below_high_water)
    out["movable_reserve_soft"] = int(policy.movable_reserve == "soft")
    return out


def complete_policy(given: str | Policy | Mapping[str, Any]) -> Policy:
    """The Policy that a preset's name, or a mapping of keys over a preset, means.

    Raises
    ------
    ConfigError
        Unknown preset, key or value.
    """
    if isinstance(given, Policy):
        return given
    if not isinstance(given, str | Mapping):
        raise ConfigError(
            "policy must be a preset's name such as 'v1@30', or a mapping such as {'preset': 'v1@30', "
            f"'evacuate': False}}; got {quote_value(given)}"
        )
    if not isinstance(given, str) and (wrong := [key for key in given if not isinstance(key, str)]):
        raise ConfigError(f"policy: keys are names of switches, got {quote_value(wrong[0])}")
    keys = {"preset": given} if isinstance(given, str) else dict(given)
    try:
        name = presets.canonical_name(str(keys.pop("preset", presets.DEFAULT)))
    except ValueError as error:
        raise ConfigError(f"policy.preset: {error}") from None
    values = presets.flat_values(name)
    for key, value in _flat(keys):
        if key not in values:
            raise ConfigError(f"policy.{key}: unknown key{suggest(key, list(values))}")
        values[key] = value
    try:
        return Policy.model_validate({**presets.nested(values), "preset": name}, strict=True)
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(item) for item in error.errors())) from None


def _flat(keys: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in keys.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{section}{key}.")
        else:
            yield f"{section}{key}", value.item() if isinstance(value, np.generic) else value


def _problem(item: Any) -> str:
    path = ".".join(str(part) for part in ("policy", *item["loc"]))
    message = messages.reword({**item, "loc": item["loc"]}, Policy)
    return f"{path}: {message}"
