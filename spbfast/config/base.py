"""The base of every configuration model, and what models describe their keys with.

Models describe; they never read files. Each key has its meaning and the source of its default, which
`spbfast explain` and the reference page print: a text that can be looked up, or "assumed" with the range to
vary.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PAGE = 4096
# Far above what makes sense, and safe: kernels add and multiply such numbers in 64 bits.
MAX_COUNT = 2**31 - 1
# Sums and quotients of weights between these are numbers.
LEAST_WEIGHT, GREATEST_WEIGHT = 1e-9, 1e9


def key(default: Any, text: str, source: str, **limits: Any) -> Any:
    """A key with its default (... for none), its meaning and where the default comes from."""
    return Field(default, description=text, json_schema_extra={"source": source}, **limits)


def _checked_weights(weights: tuple[float, ...]) -> tuple[float, ...]:
    if sum(weights) <= 0:
        raise ValueError(f"weights must be >= 0 with at least one above 0, got {list(weights)}")
    if wrong := [w for w in weights if 0 < w < LEAST_WEIGHT]:
        raise ValueError(f"weights must be 0 or at least {LEAST_WEIGHT:g}, got {wrong[0]:g}")
    return weights


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Pageblocks = Annotated[int, Field(ge=1, le=65_536)]
Weight = Annotated[float, Field(ge=0.0, le=GREATEST_WEIGHT)]
Weights = Annotated[tuple[Weight, ...], Field(max_length=64), AfterValidator(_checked_weights)]
TenWeights = Annotated[
    tuple[Weight, ...], Field(min_length=1, max_length=10), AfterValidator(_checked_weights)
]
OrderWeights = Annotated[
    tuple[Weight, ...], Field(min_length=1, max_length=11), AfterValidator(_checked_weights)
]


class Model(BaseModel):
    """A frozen section of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def canonical(self) -> dict[str, Any]:
        """Plain values in SI integers (bytes, nanoseconds), every default filled in.

        Returns
        -------
        dict
            Only dicts, lists, ints, floats, bools, strings and None, in the order of the fields.
        """
        return {name: plain(getattr(self, name)) for name in type(self).model_fields}


def plain(value: Any) -> Any:
    """`value` as dicts, lists and scalars, the form that identities are computed from."""
    if isinstance(value, Model):
        return value.canonical()
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.value if isinstance(value, Enum) else value
