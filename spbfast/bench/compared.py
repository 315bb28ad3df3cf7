"""Figures of a benchmark kept in a file, and today's beside them.

Owns the file, what makes two machines the same for this purpose, and the ratios. Measures nothing.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError
from spbfast.places import read_json_file

FORMAT = 1
# Figures that say how the machine did or how long a run was, not how fast the code is.
NO_FIGURES = (
    "load",
    "flagship.simulated_s",
    "flagship.page_events",
    "flagship.state_bytes",
    "threads.yardstick",
)
MORE_IS_BETTER = ("_per_s", "threads.runs")

_RIGHT = "`spbfast bench --save FILE` makes such files"


@dataclass(frozen=True)
class Machine:
    """What figures depend on beside the code."""

    cpu: str
    cpus: int
    memory_gib: int
    python: str


def this_machine() -> Machine:
    """The machine that this process runs on."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), cpu)
    except OSError:
        pass
    memory = 0
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(cpu, os.cpu_count() or 1, round(memory / 2**30), platform.python_version())


def stored_text(figures: Mapping[str, Any], version: str) -> str:
    """What is kept of a benchmark."""
    kept = {"format": FORMAT, "spbfast": version, "machine": asdict(this_machine()), "figures": figures}
    return json.dumps(kept, indent=1) + "\n"


def read_stored(path: Path) -> dict[str, Any]:
    """Figures that `bench --save` wrote on this machine.

    Raises
    ------
    ResultsError
        When the file is something else, or of another machine.
    """
    try:
        kept = read_json_file(path)
        version, machine, figures = kept["format"], kept["machine"], dict(kept["figures"])
    except OSError as error:
        raise ResultsError(
            f"cannot be read: {error.strerror}; `spbfast bench --save FILE` makes it", path
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ResultsError(f"holds no figures; {_RIGHT}", path) from None
    if version != FORMAT:
        raise ResultsError(f"is of format {version}, this version reads {FORMAT}; save it again", path)
    own = asdict(this_machine())
    differ = [
        f"{key} {machine.get(key)} there, {own[key]} here" for key in own if machine.get(key) != own[key]
    ]
    if differ:
        raise ResultsError(
            f"has figures of another machine ({'; '.join(differ)}); compare with figures saved here", path
        )
    return figures


def flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every number with its dotted name."""
    for key, value in figures.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def ratios_to(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Figures that both have: then, now, and their ratio, below 1 where today is better.

    Seconds of whole runs are left out where the runs were not equally long.
    """
    old, new = dict(flat(then)), dict(flat(now))
    left_out = set(NO_FIGURES)
    if old.get("flagship.simulated_s") != new.get("flagship.simulated_s"):
        left_out |= {"flagship.wall_s"}
    found = {}
    for name in old:
        if name in new and name not in left_out and old[name] > 0 and new[name] > 0:
            ratio = new[name] / old[name]
            found[name] = (old[name], new[name], 1 / ratio if name.endswith(MORE_IS_BETTER) else ratio)
    return found
