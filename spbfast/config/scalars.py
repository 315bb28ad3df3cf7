"""What a single key of a scenario holds, and whether its values can be judged alone.

Owns the type of a key that holds one number, switch or word, and the groups of keys whose values have to be
judged together. Never reads files.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from spbfast.config import messages
from spbfast.config.models import ScenarioFields
from spbfast.config.tree import YamlNode, lookup, split_path
from spbfast.config.units import formatter_of, parse_duration, parse_rate, parse_size

# Sections in which no check reads two keys; tests/test_design.py holds them to it.
FREE = frozenset({"duration", "policy", "boot", "pcp", "workers", "pagecache", "swap", "khugepaged"})
# What the checks of the whole scenario read: does boot fit above the high watermark, can demand be counted?
# A recording goes with no section about demand or memory.
TOGETHER = frozenset({"machine", "reclaim", "actors", "slab", "replay"})
_UNITS = {parse_duration: "ns", parse_size: "B", parse_rate: "B/s"}


@dataclass(frozen=True)
class Scalar:
    """The type of a key that holds one number, switch or word.

    Attributes
    ----------
    unit : str
        What turns an integer of the canonical form back into text: "ns", "B", "B/s", or "".
    """

    annotation: Any
    kind: type
    unit: str

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """What checks a value."""
        return TypeAdapter(self.annotation)

    def canonical(self, value: Any) -> Any:
        """The value as the canonical form has it.

        Raises
        ------
        ValueError
            When the key cannot hold it (pydantic's error, which is one).
        """
        return self.adapter.validate_python(value, strict=True)

    def text(self, number: Any) -> Any:
        """A canonical number as a file would write it."""
        return f"{number}{self.unit}" if self.unit else number

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, None if nothing is."""
        try:
            self.canonical(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            write = formatter_of(getattr(self.annotation, "__metadata__", ()))
            return messages.reword({**first, "loc": ()}, ScenarioFields, write)
        return None


def scalar_at(tree: YamlNode, path: str) -> Scalar | None:
    """The scalar type of the key at a dotted path of a file's tree; None if it is no plain scalar."""
    info: Any = None
    here: Any = ScenarioFields
    node: YamlNode | None = tree
    for step in split_path(path):
        here = messages.strip(here)
        node = _below(node, step)
        if isinstance(here, type) and issubclass(here, BaseModel):
            info = here.model_fields.get(step)
            here = info.annotation if info is not None else None
        else:
            members = messages.union_models(get_args(here)[0]) if get_args(here) else []
            here, info = _member(members, node), None
        if here is None:
            return None
    kind = messages.strip(here)
    if info is None or kind not in (int, float, bool, str):
        return None
    unit = next((_UNITS[f] for m in info.metadata if (f := getattr(m, "func", None)) in _UNITS), "")
    full: Any = Annotated[(kind, *info.metadata)] if info.metadata else kind
    return Scalar(full, kind, unit)


def _below(node: YamlNode | None, step: str) -> YamlNode | None:
    return lookup(node, step) if node is not None and node.value else None


def _member(members: list[type[BaseModel]], node: YamlNode | None) -> type[BaseModel] | None:
    """The model of a union that a written element has by its kind."""
    kind = node.value.get("kind") if node is not None and isinstance(node.value, dict) else None
    return next((m for m in members if kind is not None and str(kind.value) in messages.tags_of(m)), None)


def judged_with(path: str) -> str | None:
    """The group of keys that a swept key is judged together with; None for one that is judged alone."""
    section = split_path(path)[0]
    if section in FREE:
        return None
    return "boot" if section in TOGETHER else section
