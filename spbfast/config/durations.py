"""Do the points of a sweep last long enough to be recorded?

Owns that one check, which needs the swept values as they are written and the interval between samples.
"""

from __future__ import annotations

from collections.abc import Iterator

from spbfast.config.checksweep import SweepParts
from spbfast.config.models import JobFile
from spbfast.config.tree import YamlNode
from spbfast.config.units import format_duration, parse_duration
from spbfast.errors import Problem


def check_durations(tree: YamlNode, file: JobFile, parts: SweepParts, problems: list[Problem]) -> None:
    """A point that ends before its second sample shows nothing; an `output.every` that is given is meant."""
    if "every" not in file.output.model_fields_set:
        return
    for shown, node in _swept(tree, parts, "duration"):
        try:
            duration = parse_duration(node.plain())
        except ValueError:
            continue  # it is reported where values are checked
        if duration < file.output.every:
            every, end = format_duration(file.output.every), format_duration(duration)
            message = f"{end} is shorter than output.every, {every}: nothing between the start and the end "
            message += f"of such a run is recorded; give output.every, at most {end}, or longer durations"
            problems.append(node.problem(shown, message))


def _swept(tree: YamlNode, parts: SweepParts, key: str) -> Iterator[tuple[str, YamlNode]]:
    """Every value that a sweep gives a key, as written, with the path to show for it."""
    section = tree.value["sweep"]
    baseline = section.value.get("baseline") if isinstance(section.value, dict) else None
    if baseline is not None and isinstance(baseline.value, dict) and key in baseline.value:
        yield f"sweep.baseline.{key}", baseline.value[key]
    if parts.rows is not None:
        for node in parts.rows.columns.get(key, ()):
            yield f"{parts.rows.shown}.{key}", node
    if (swept := parts.swept.get(key)) is None:
        return
    if isinstance(swept.value, list):
        name = "design.ranges" if key in parts.ranges else "grid"
        for node in swept.value:
            yield f"sweep.{name}.{key}", node
    elif key in parts.ranges:
        yield f"sweep.design.ranges.{key}.min", swept.value["min"]
