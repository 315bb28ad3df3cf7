"""The JSON schema of configuration files, for editors, and the texts that explain single keys.

Owns what is derived from the models: the schema (draft-07, so that yaml-language-server understands it),
the list of documented keys and what `spbfast explain` says of each. The models stay the only source.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from spbfast.config import keybounds, messages, presets, series
from spbfast.config.models import JobFile
from spbfast.config.replicates import MOST
from spbfast.config.units import format_duration, format_size, formatter_of
from spbfast.errors import ConfigError
from spbfast.text import quote_value, suggest, text_table


def job_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file.

    Keys that have a default, and keys that an extended file may supply, are not required.
    """
    schema = JobFile.model_json_schema(mode="validation")
    defs, keys = schema["$defs"], schema["properties"]
    for section in (schema, defs["Policy"], defs["ShrinkTriggers"]):
        section.pop("required", None)
    either = {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST}, {"$ref": "#/$defs/ReplicatesSpec"}]
    }
    keys["replicates"] = {**either, "default": 1, "description": keys["replicates"]["description"]}
    _allow_preset_names(keys, defs["Policy"]["properties"])
    about = keys["actors"].pop("description")
    changes = {"type": "object", "description": "changes to actors of the extended file, by their name"}
    keys["actors"] = {"anyOf": [keys["actors"], changes], "description": about}
    _write_defaults_as_text(schema)
    _tell_bounds(schema)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "title": "spbfast configuration"}


def _allow_preset_names(keys: dict[str, Any], policy: dict[str, Any]) -> None:
    """A policy may be a name: any text, since an editor cannot know the presets that a file defines."""
    names = [n for name in presets.preset_names() for n in dict.fromkeys((name, name.replace("@", "_")))]
    text = [{"enum": names}, {"type": "string"}]
    either = {"anyOf": [*text, {"$ref": "#/$defs/Policy"}]}
    keys["presets"]["additionalProperties"] = either
    keys["policy"] = {**either, "description": keys["policy"]["description"]}
    about = policy["preset"]["description"]
    policy["preset"] = {"description": about, "default": presets.DEFAULT, "anyOf": text}


def _write_defaults_as_text(node: Any) -> None:
    """Quantities are integers inside and texts in a file: show their defaults as a file has them."""
    if isinstance(node, list):
        for item in node:
            _write_defaults_as_text(item)
    if not isinstance(node, dict):
        return
    if node.get("type") == "string" and isinstance(node.get("default"), int):
        node["default"] = _quantity(node["default"], str(node.get("pattern", "")))
    for item in node.values():
        _write_defaults_as_text(item)


def _tell_bounds(schema: dict[str, Any]) -> None:
    """Say what texts with units may be at most: JSON schema knows bounds of numbers only."""
    models: list[type[BaseModel]] = [JobFile, *_models_below(JobFile)]
    for model in dict.fromkeys(models):
        shown = schema if model is JobFile else schema["$defs"].get(model.__name__, {})
        for name, info in model.model_fields.items():
            key, bounds = shown.get("properties", {}).get(name), keybounds.bounds_text(info)
            if key is not None and bounds and formatter_of(info.metadata, info.annotation) is not None:
                key["description"] = f"{key.get('description', '')}; {bounds}".lstrip("; ")


def _models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for info in model.model_fields.values():
        for below in messages.models_in(info.annotation):
            yield below
            yield from _models_below(below)


def _quantity(value: int, pattern: str) -> str:
    if "GiB" not in pattern:
        return format_duration(value)
    return format_size(value) + ("/s" if "/s" in pattern else "")


def schema_text() -> str:
    """The schema as the text that is committed beside the configurations."""
    return json.dumps(job_schema(), indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class KeyDoc:
    """The documentation of one key of the configuration."""

    path: str
    kind: str
    text: str
    default: str
    source: str


def key_docs() -> list[KeyDoc]:
    """Every key with its meaning, in the order of the models; members of unions under their kind.

    NAME in a path stands for an element of a list.
    """
    return list(_docs_below(JobFile, ""))


def _docs_below(model: type[BaseModel], prefix: str) -> Iterator[KeyDoc]:
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        text = str(info.description or ("which kind of element this is" if name == "kind" else ""))
        bounds = keybounds.bounds_text(info)
        kind = f"{_kind(info)}; {bounds}" if bounds else _kind(info)
        yield KeyDoc(path, kind, text, _default(info), str(extra.get("source", "")))
        below, inner = messages.strip(info.annotation), f"{path}."
        if get_origin(below) in (dict, list, tuple) and get_args(below):
            below = messages.strip(get_args(below)[1 if get_origin(below) is dict else 0])
            inner = f"{path}.NAME."
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from _docs_below(below, inner)
        for member in messages.union_models(below):
            tag = (messages.tags_of(member) or [member.__name__])[0]
            yield KeyDoc(f"{path}.{tag}", "section", (member.__doc__ or "").split("\n")[0], "", "")
            yield from _docs_below(member, f"{path}.{tag}.")


def _kind(info: Any) -> str:
    """What a value looks like: a unit, a choice or a plain type."""
    for meta in info.metadata:
        if examples := getattr(meta, "json_schema", {}).get("examples"):
            return f"{meta.json_schema.get('description', 'text')}, e.g. {examples[0]}"
    below = messages.strip(info.annotation)
    if get_origin(below) is Literal:
        return " | ".join(str(v) for v in get_args(below))
    names = {bool: "true | false", int: "whole number", float: "number", str: "text", dict: "mapping"}
    if below in names:
        return names[below]
    if isinstance(below, type) and issubclass(below, BaseModel):
        return "section"
    return {dict: "mapping", list: "list", tuple: "list"}.get(get_origin(below) or below, "value")


def _default(info: Any) -> str:
    if info.default_factory is not None:
        return ""
    if info.default is PydanticUndefined or info.default is None:
        return ""
    for meta in info.metadata:
        if isinstance(info.default, int) and (pattern := getattr(meta, "json_schema", {}).get("pattern")):
            return _quantity(info.default, pattern)
    return _yaml(info.default)


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def explain_key(path: str) -> str:
    """What a key means, what it may hold, its default (per preset for the policy) and its source.

    Raises
    ------
    ConfigError
        For an unknown key; the message suggests the nearest one.
    """
    if not isinstance(path, str):
        raise ConfigError(f"a key is text such as 'policy.slab_shrink', got {quote_value(path)}")
    docs = {d.path: d for d in key_docs()}
    if path not in docs:
        ends = keys_ending_in(path)
        if len(ends) != 1:
            hint = f"; did you mean {ends[0]!r}?" if ends else suggest(path, list(docs), 0.5)
            raise ConfigError(
                f"unknown key {quote_value(path)}{hint or '; `spbfast explain` lists all keys'}"
            )
        path = ends[0]
    doc = docs[path]
    lines = [path, f"  {doc.text}" if doc.text else "", f"  value:   {doc.kind}"]
    lines += [f"  default: {doc.default}"] if doc.default else []
    lines += [f"  source:  {doc.source}"] if doc.source else []
    lines += _from_the_series(path)
    lines += _left_off(path)
    lines += _per_preset(path)
    below = [(f"  {d.path}", d.text) for d in docs.values() if d.path.startswith(f"{path}.")]
    lines.append(text_table((), below, left=(0, 1)))
    return "\n".join(line for line in lines if line)


def keys_ending_in(path: str) -> list[str]:
    """Keys that a path without its beginning, or with a name of the user's in it, stands for."""
    known = [doc.path for doc in key_docs()]
    return [p for p in known if p.endswith(f".{path}") or re.fullmatch(p.replace("NAME", "[^.]+"), path)]


def _from_the_series(path: str) -> list[str]:
    """The patches that a key belongs to, and how sure its meaning is."""
    lines = []
    if patches := series.patches_of(path):
        lines.append(f"  patches: {', '.join(patches)}")
    elif reason := series.keys_of_no_patch().get(path):
        lines.append(f"  patches: none; {reason}")
    if known := series.certainty(path):
        lines.append(f"  certainty: {known[0]}: {known[1]}")
    lines += [f"  open:    {u.point}" for u in series.uncertain_points() if path in u.keys]
    return lines


def _left_off(path: str) -> list[str]:
    """For the switch of a patch that no step turns on: which presets do, and why the steps do not."""
    patches = {f"policy.{switch}": patch for patch, switch in presets.left_off().items()}
    if path not in patches:
        return []
    switch = path.removeprefix("policy.")
    first = next(name for name in presets.full_presets() if presets.flat_values(name)[switch])
    text = (
        f"left off: no step turns patch {patches[path]:02} on, but {first} and later full presets do; of "
        f"such patches, {presets.WHY_LEFT_OFF}"
    )
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="    ")


def _per_preset(path: str) -> list[str]:
    """A policy key's value along the ladder of presets, equal neighbours joined."""
    head, _, key = path.partition(".")
    if head != "policy" or key not in presets.flat_values(presets.DEFAULT):
        return []
    runs = itertools.groupby(presets.preset_names(), lambda name: _yaml(presets.flat_values(name)[key]))
    return ["  by preset:", *(f"    {value:<6} {', '.join(names)}" for value, names in runs)]
