"""pydantic's errors in our own words: what is wrong, the value given, and what would be right.

Owns the wording, the suggestions for misspelt keys and the walk from an error's location through the
models. Reads no files and knows no lines; validate.py adds the places.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from spbfast.config.units import formatter_of
from spbfast.text import quote_value, suggest

SHOWN_KEYS = 12
Write = Callable[[int], str]


def strip(annotation: Any) -> Any:
    """An annotation without Annotated and without `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [a for a in get_args(annotation) if a is not type(None)]
        if len(members) == 1:
            return strip(members[0])
    return annotation


def union_models(annotation: Any) -> list[type[BaseModel]]:
    """The models of a union, in order; empty if it is none."""
    annotation = strip(annotation)
    if get_origin(annotation) not in (Union, types.UnionType):
        return []
    members = [strip(a) for a in get_args(annotation)]
    return [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every model that an annotation names: itself, elements of lists and mappings, members of unions."""
    here = strip(annotation)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [here]
    return [model for inner in get_args(here) for model in models_in(inner)]


def tags_of(model: type[BaseModel]) -> list[str]:
    """The values of a model's `kind`, by which a union tells its members apart."""
    kind = model.model_fields.get("kind")
    return (
        [str(v) for v in get_args(kind.annotation)] if kind and get_origin(kind.annotation) is Literal else []
    )


def annotation_at(root: type[BaseModel], loc: Sequence[int | str]) -> Any:
    """The annotation that an error location leads to, None where the models end."""
    here: Any = root
    for step in loc:
        here = strip(here)
        members = union_models(here)
        if members:
            here = next((m for m in members if str(step) in tags_of(m)), None)
        elif isinstance(here, type) and issubclass(here, BaseModel):
            info = here.model_fields.get(str(step))
            here = info.annotation if info else None
        elif get_origin(here) in (dict, Mapping):
            here = get_args(here)[1]
        elif get_origin(here) in (list, tuple, Sequence) and get_args(here):
            here = get_args(here)[0]
        else:
            return None
        if here is None:
            return None
    return here


def writer_at(root: type[BaseModel], loc: Sequence[int | str]) -> Write | None:
    """What writes the quantities of the key at `loc` as a file has them; None for plain numbers."""
    for end in range(len(loc), 0, -1):
        holder = strip(annotation_at(root, loc[: end - 1]))
        members = union_models(holder)
        if members or not (isinstance(holder, type) and issubclass(holder, BaseModel)):
            continue
        info = holder.model_fields.get(str(loc[end - 1]))
        return formatter_of(info.metadata, info.annotation) if info is not None else None
    return None


def fields_at(root: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys that the section at `loc` may hold; empty if it is not a section."""
    here = strip(annotation_at(root, loc))
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def all_paths(root: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted path of the sections below `root`, unions and lists left out."""
    for name, info in root.model_fields.items():
        path = f"{prefix}{name}"
        yield path
        below = strip(info.annotation)
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from all_paths(below, f"{path}.")


def unknown_key(root: type[BaseModel], loc: Sequence[int | str]) -> str:
    """The message for a key that its section does not know."""
    key, known = str(loc[-1]), fields_at(root, loc[:-1])
    hint = suggest(key, known)
    if not hint:
        elsewhere = [p for p in all_paths(root) if p.rsplit(".", 1)[-1] == key and "." in p]
        hint = f"; did you mean {elsewhere[0]!r}?" if elsewhere else ""
    if not hint:
        hint = f"; known keys here: {_list(known)}"
    return f"unknown key {quote_value(key)}{hint}"


# What a value must be, by pydantic's name of the error; placeholders are filled from the error's context.
_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_pattern_mismatch": "must match {pattern}",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list, e.g. [a, b]"),
}
_BOUNDS = ("greater_than_equal", "greater_than", "less_than_equal", "less_than")
_MAPPINGS = ("model_type", "model_attributes_type", "dict_type", "dataclass_type")


def reword(error: Mapping[str, Any], root: type[BaseModel], write: Write | None = None) -> str:
    """The message for one of pydantic's errors (not for unknown keys: see unknown_key).

    `write` writes the key's quantities as a file has them; it is looked up if it is not given.
    """
    kind, value, ctx = error["type"], error.get("input"), error.get("ctx", {})
    loc = tuple(error["loc"])
    if kind in _BOUNDS and (write := write or writer_at(root, loc)) is not None:
        shown = write(value) if isinstance(value, int) else str(value)
        return f"{_RULES[kind].format(**{k: write(v) for k, v in ctx.items()})}, got {shown}"
    if kind in ("list_type", "tuple_type") and isinstance(value, Mapping):
        names = ", ".join(map(repr, value))
        return (
            f"must be a list; a mapping can only change elements of a list in the extended file; got {names}"
        )
    if kind == "missing":
        return f"the required key {loc[-1]!r} is missing{_example(root, loc)}"
    if kind in ("literal_error", "enum"):
        choices = _choices(root, loc)
        hint = suggest(value, choices) if isinstance(value, str) else ""
        return f"must be one of {', '.join(choices) or ctx['expected']}; got {quote_value(value)}{hint}"
    if kind == "value_error":
        return str(ctx.get("error", error["msg"]))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_tag(kind, value, root, loc)
    advice = ""
    if kind in _MAPPINGS:
        keys = fields_at(root, loc)
        rule = f"must be a mapping{f' of the keys {_list(keys)}' if keys else ''}"
        advice = "; leave the key out to get the defaults" if value is None else ""
    else:
        rule = _RULES[kind].format(**ctx) if kind in _RULES else error["msg"]
    return f"{rule}, got {quote_value(value)}{advice}"


def _list(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")


def _choices(root: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    here = strip(annotation_at(root, loc))
    if get_origin(here) is not Literal:
        return []
    return [str(v).lower() if isinstance(v, bool) else str(v) for v in get_args(here)]


def _wrong_tag(kind: str, value: Any, root: type[BaseModel], loc: Sequence[int | str]) -> str:
    tags = [t for m in union_models(annotation_at(root, loc)) for t in tags_of(m)]
    given = value.get("kind") if isinstance(value, Mapping) else None
    if kind == "union_tag_not_found" or given is None:
        return f"the required key 'kind' is missing; kinds: {', '.join(tags)}"
    return f"unknown kind {quote_value(given)}{suggest(str(given), tags)} (kinds: {', '.join(tags)})"


def _example(root: type[BaseModel], loc: Sequence[int | str]) -> str:
    """What to add for a missing key, if its schema gives an example."""
    here = annotation_at(root, loc[:-1])
    here = strip(here) if here is not None else None
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return ""
    info = here.model_fields.get(str(loc[-1]))
    if info is None:
        return ""
    examples = list(info.examples or ())
    for meta in info.metadata:
        examples += getattr(meta, "json_schema", {}).get("examples", [])[-1:]
    text = f" ({info.description})" if info.description else ""
    return f"{text}; add e.g. '{loc[-1]}: {examples[0]}'" if examples else text
