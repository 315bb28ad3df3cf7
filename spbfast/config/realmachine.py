"""A machine that begins as a real one: `machine.from` and the keys that its files decide.

Owns the place of the files (beside the file that names them; an override's beside the current directory),
their digest, and which keys they fill in. What they hold is read by observed/; where it goes is drawn when a
run begins.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spbfast.config.tree import YamlNode, from_plain
from spbfast.constants import MAX_ORDER, PAGE_SIZE, PB_PAGES
from spbfast.errors import DumpError, Problem
from spbfast.observed.loading import read_dumps
from spbfast.observed.real_zone import RealZone, real_zones
from spbfast.observed.receipt import Receipt
from spbfast.observed.recognise import kind_of_file
from spbfast.observed.values import Snapshot
from spbfast.places import open_to_read
from spbfast.text import quote_value

_ZONE = re.compile(r"(?:node(\d{1,3})\.)?([A-Za-z]\w{0,20})")
_BLOCK = 1 << MAX_ORDER
_DECIDED = ("memory", "start_pfn", "nodes", "dma32", "memmap_bytes_per_page", "kernel_image", "digest")


def with_machine_found(
    tree: YamlNode, problems: list[Problem], instead: Sequence[Path] | None = None
) -> YamlNode:
    """The tree with what the files of `machine.from` say; what is wrong is appended to `problems`.

    `instead` are read in place of the files named.
    """
    machine = tree.value.get("machine")
    node = machine.value.get("from") if machine is not None and isinstance(machine.value, dict) else None
    if machine is None or node is None:
        if machine is not None and isinstance(machine.value, dict) and "zone" in machine.value:
            text = "names a zone of the files of machine.from, and there are none; leave it out, or give from"
            problems.append(machine.value["zone"].problem("machine.zone", text, at_key=True))
        return tree
    names = [n.value for n in node.value] if isinstance(node.value, list) else [node.value]
    if not names or not all(isinstance(name, str) and name for name in names):
        problems.append(node.problem("machine.from", "must be a file, or a list of files of one machine"))
        return tree
    folder = Path(node.source.name if node.source.lines else ".").parent
    try:
        paths = instead or [folder.joinpath(Path(name).expanduser()).absolute() for name in names]
        snapshots = read_dumps(list(paths)).snapshots
        wanted = job_zone(snapshots, _named_zone(machine, problems))
        zone = real_zones(snapshots, str(paths[0]), Receipt(), wanted)[0]
        digest = digest_of_files(paths)
    except (DumpError, OSError, RuntimeError) as error:  # RuntimeError: ~name of nobody
        problems.append(node.problem("machine.from", str(error)))
        return tree
    for name in _DECIDED:
        if name in machine.value:
            text = f"is what the files of machine.from say; leave out {name}, or from"
            problems.append(machine.value[name].problem(f"machine.{name}", text, at_key=True))
    # Page flags tell what lies where memory is missing; without them it lies at the start.
    is_flagged = any(kind_of_file(Path(path))[0] == "capture" for path in paths)
    found = {
        "from": [str(path) for path in paths],
        "digest": digest,
        **_machine_keys(zone, 0 if is_flagged else span_of(zone)[2]),
    }
    return _filled(tree, node, found, _list_keys(zone))


def _named_zone(machine: YamlNode, problems: list[Problem]) -> str | None:
    node = machine.value.get("zone")
    if node is None or node.value is None:
        return None
    if not isinstance(node.value, str) or not _ZONE.fullmatch(node.value):
        text = f"must be a zone's name, such as DMA32 or node1.Normal; got {quote_value(node.plain())}"
        problems.append(node.problem("machine.zone", text))
        return None
    return node.value


def job_zone(snapshots: Sequence[Snapshot], named: str | None = None) -> tuple[int, str]:
    """Node and name of the zone that a job begins with.

    `named` is `machine.zone`; without it Normal of node 0, or DMA32 where that is all.
    """
    if named is not None and (match := _ZONE.fullmatch(named)):
        return int(match[1] or 0), match[2]
    names = {z.key for s in snapshots for z in s.zones if any(z.blocks())}
    return (0, "Normal" if (0, "Normal") in names or (0, "DMA32") not in names else "DMA32")


def digest_of_files(paths: Sequence[Path]) -> str:
    """32 hex digits over the content of files, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open_to_read(path) as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def span_of(zone: RealZone) -> tuple[int, int, int]:
    """First page frame, pages in whole blocks of 4 MiB, and pages without memory of the simulated zone."""
    lo = zone.start_pfn & -_BLOCK
    end = max(zone.start_pfn + zone.pages, lo + zone.nr_pageblocks * PB_PAGES)
    pages = -(-(end - lo) // _BLOCK) * _BLOCK
    return lo, pages, pages - zone.nr_pageblocks * PB_PAGES


def _machine_keys(zone: RealZone, absent: int) -> dict[str, Any]:
    """Keys of `machine`, as a file would have them."""
    lo, pages, _ = span_of(zone)
    keys: dict[str, Any] = {
        "memory": f"{pages * PAGE_SIZE}B",
        "start_pfn": lo,
        "memmap_bytes_per_page": 0,
        "kernel_image": f"{absent * PAGE_SIZE}B",
    }
    if zone.watermarks is not None:
        least, low, _ = zone.watermarks
        keys["min_free"] = f"{least * PAGE_SIZE}B"
        keys["watermark_distance"] = f"{max(low - least, 0) * PAGE_SIZE}B"
    if zone.cpus:
        keys["cpus"] = zone.cpus
    return keys


def _list_keys(zone: RealZone) -> dict[str, Any]:
    if zone.lists is None:
        return {}
    return {
        name: value
        for name, value in zip(("batch", "high_min", "high_max"), zone.lists, strict=True)
        if value > 0
    }


def _filled(tree: YamlNode, at: YamlNode, machine: dict[str, Any], lists: dict[str, Any]) -> YamlNode:
    """The tree with the keys that were found, at the place of `from`; written ones that may differ stay."""
    sections = {}
    for name, found in (("machine", machine), ("pcp", lists)):
        section = tree.value.get(name)
        written = section.value if section is not None and isinstance(section.value, dict) else {}
        new = {key: replace(at, value=from_plain(v, at.source).value) for key, v in found.items()}
        kept = {key: node for key, node in written.items() if key not in ("from", "digest")}
        sections[name] = replace(section or at, value={**new, **kept})
    return replace(tree, value={**tree.value, **sections})
