"""Which keys of a scenario can be judged alone, and the checks of single values.

Owns the answer to "does the validity of this key depend on another one?", which is what lets a sweep of a
million points be checked by its few thousand values. A key is free when no model on its way has a check
across keys; everything else is judged together with its section, and the sections that the check of the
whole scenario reads are judged together. Never reads files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from spbfast.config import messages
from spbfast.config.models import ScenarioFields
from spbfast.config.tree import YamlNode, lookup, split_path
from spbfast.config.units import parse_duration, parse_rate, parse_size

# What ScenarioFields' own check reads: does boot fit above the high watermark?
TOGETHER = frozenset({"machine", "reclaim", "actors"})
_UNITS = {parse_duration: "ns", parse_size: "B", parse_rate: "B/s"}


@dataclass(frozen=True)
class Scalar:
    """The type of a key that holds one number, switch or word.

    Attributes
    ----------
    unit : str
        What turns an integer of the canonical form back into text: "ns", "B", "B/s", or "".
    """

    adapter: TypeAdapter[Any]
    kind: type
    unit: str

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
            return messages.reword({**first, "loc": ()}, ScenarioFields)
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
    return Scalar(TypeAdapter(full), kind, unit)


def _below(node: YamlNode | None, step: str) -> YamlNode | None:
    return lookup(node, step) if node is not None and node.value else None


def _member(members: list[type[BaseModel]], node: YamlNode | None) -> type[BaseModel] | None:
    """The model of a union that a written element has by its kind."""
    kind = node.value.get("kind") if node is not None and isinstance(node.value, dict) else None
    return next((m for m in members if kind is not None and str(kind.value) in messages.tags_of(m)), None)


@cache
def is_free(section: str) -> bool:
    """Whether each key of a section may be judged without looking at any other key."""
    info = ScenarioFields.model_fields.get(section)
    if info is None or section in TOGETHER:
        return False
    return not any(_has_checks(model) for model in _models(info.annotation))


def _has_checks(model: type[BaseModel]) -> bool:
    found = model.__pydantic_decorators__
    return bool(found.model_validators or found.field_validators or found.root_validators)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    annotation = messages.strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for info in annotation.model_fields.values():
            yield from _models(info.annotation)
        return
    for inner in get_args(annotation):
        yield from _models(inner)


def groups(paths: Iterable[str]) -> list[tuple[str, ...]]:
    """Swept paths in groups that have to be judged together, in the order given.

    Paths of a free section are on their own unless they write a common key; a preset writes all keys of
    the policy.
    """
    ordered = list(dict.fromkeys(paths))
    whole = any(p in ("policy", "policy.preset") for p in ordered)
    found: dict[Any, list[str]] = {}
    for path in ordered:
        top = split_path(path)[0]
        if top in TOGETHER:
            key: Any = "together"
        elif not is_free(top) or (top == "policy" and whole):
            key = top
        else:
            key = _overlap(path, found)
        found.setdefault(key, []).append(path)
    return [tuple(g) for g in found.values()]


def _overlap(path: str, found: dict[Any, list[str]]) -> Any:
    """The key of the group that writes something `path` writes too, or a key of its own."""
    for key, members in found.items():
        if any(_prefix(path, other) or _prefix(other, path) for other in members):
            return key
    return (path,)


def _prefix(short: str, long: str) -> bool:
    return long == short or long.startswith(f"{short}.")
