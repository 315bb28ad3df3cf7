"""The base of every configuration model: frozen, and closed to unknown keys.

Models describe; they never read files. A field carries its meaning as `description` and, where it matters,
`json_schema_extra={"unit": ..., "source": ...}`, which `spbfast explain` and the reference page print.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict


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
