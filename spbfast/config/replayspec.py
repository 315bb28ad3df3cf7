"""A job that repeats a recording instead of simulating demand: the section `replay`.

Owns its keys, the place of the recording (beside the file that names it; an override's beside the current
directory), its digest, and what such a job cannot have. What the file holds is read by observed/; it is
replayed by recordings/.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from spbfast.config.base import Model, key
from spbfast.config.tree import YamlNode
from spbfast.config.units import Size
from spbfast.errors import DumpError, Problem
from spbfast.observed.loading import read_events
from spbfast.observed.recognise import kind_of_file
from spbfast.places import open_to_read

_REFUSED = ("start", "boot", "reclaim", "workers", "slab", "pagecache", "swap", "khugepaged", "actors")
_ALLOWED_KEYS = {"machine": ("spb_size",), "pcp": ("enabled", "batch", "high_min", "high_max")}


class ReplaySpec(Model):
    """A recording that is repeated instead of actors' demand."""

    trace: str = key(
        ...,
        "the recording: a capture, a trace as text, or LLFree's; relative to this file. A sweep's values "
        "replace it",
        "ours",
    )
    level: Literal["request", "zone"] = key(
        "request", "request: what callers asked; zone: what the buddy lists did", "ours"
    )
    zone: str = key("Normal", "zone of a capture", "ours")
    size: Size | None = key(None, "memory of the machine; without it what the recording spans", "ours")
    folder: str | None = Field(None, description="where `trace` is looked for; filled in")
    digest: str | None = Field(None, description="digest of the recording's content; filled in")

    @property
    def path(self) -> Path:
        """The recording."""
        return Path(self.folder or ".") / Path(self.trace).expanduser()

    def canonical(self) -> dict[str, Any]:
        """Plain values; of the recording the content, wherever it lies, and no size where none is given."""
        values = {"recording": self.digest, "level": self.level, "zone": self.zone}
        return values if self.size is None else {**values, "size": self.size}


def with_replay_folder(tree: YamlNode, folder: Path | None = None) -> YamlNode:
    """The tree with the folder of its recordings: that of the file that names one, or the one given."""
    section = tree.value.get("replay")
    if section is None or not isinstance(section.value, dict):
        return tree
    named = section.value.get("trace", section)
    if folder is None:
        folder = Path(named.source.name if named.source.lines else ".").parent.absolute()
    return _with_keys(tree, section, named, {"folder": str(folder)})


def with_recording_found(tree: YamlNode, problems: list[Problem]) -> YamlNode:
    """The tree with the digest of its recording; what is wrong is appended to `problems`."""
    section = tree.value.get("replay")
    if section is None or not isinstance(section.value, dict):
        return tree
    _refuse_others(tree, problems)
    named = section.value.get("trace")
    if named is None or not isinstance(named.value, str):
        return tree
    folder = section.value.get("folder")
    try:
        path = Path(folder.value if folder is not None else ".") / Path(named.value).expanduser()
        digest = digest_of_recording(path)
    except (DumpError, OSError, RuntimeError) as error:  # RuntimeError: ~name of nobody
        said = f"{error.path}: {error.message}" if isinstance(error, DumpError) else str(error)
        problems.append(named.problem("replay.trace", said))
        return tree
    return _with_keys(tree, section, named, {"digest": digest})


def digest_of_recording(path: Path) -> str:
    """32 hex digits over a recording's content.

    Raises
    ------
    DumpError
        When it cannot be read, or is none.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise DumpError(path, 0, f"cannot be opened ({error.strerror}); give a capture or a trace") from None
    return _digest(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    kind, _ = kind_of_file(path)
    if kind not in ("capture", "text", "llfree"):
        raise DumpError(path, 0, f"is no recording with page events but {kind}")
    if kind == "text" and not any(e.name.startswith("mm_page_") for e in read_events(path)):
        raise DumpError(path, 0, "holds no page events; expected mm_page_alloc and mm_page_free")
    with open_to_read(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _refuse_others(tree: YamlNode, problems: list[Problem]) -> None:
    """A recording says what is asked for, and of which memory: sections about either have no effect."""
    for name, node in tree.value.items():
        allowed = _ALLOWED_KEYS.get(name)
        if name in _REFUSED:
            text = "has no effect on a replay; leave it out, or replay"
            problems.append(node.problem(name, text, at_key=True))
        elif allowed is not None and isinstance(node.value, dict):
            for key_, leaf in node.value.items():
                if key_ not in allowed:
                    text = f"has no effect on a replay, which knows of {name} only {', '.join(allowed)}"
                    problems.append(leaf.problem(f"{name}.{key_}", text, at_key=True))


def _with_keys(tree: YamlNode, section: YamlNode, at: YamlNode, values: dict[str, str]) -> YamlNode:
    new = {name: replace(at, value=value) for name, value in values.items()}
    whole = replace(section, value={**section.value, **new})
    return replace(tree, value={**tree.value, "replay": whole})
