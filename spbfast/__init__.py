"""spbfast: a fast simulator of the Linux page allocator with superpageblocks.

The public names live here and are imported on first use, so that `import spbfast` and the command line
start without Numba, xarray and Dask. Zone is the raw allocator for interactive work; load_config, simulate
and sweep run jobs; open_results, open_together, cube and
compare read what they wrote. Mt and AllocFlag name what Zone
takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "AllocFlag": "spbfast.constants",
    "Mt": "spbfast.constants",
    "Zone": "spbfast.zone",
    "load_config": "spbfast.config",
    "simulate": "spbfast.model.engine",
    "sweep": "spbfast.sweep",
    "open_results": "spbfast.results.open",
    "open_together": "spbfast.results.together",
    "cube": "spbfast.results.analysis",
    "compare": "spbfast.results.effects",
    "fragmentation_scores": "spbfast.results.scores",
    "read_dump": "spbfast.observed",
    "read_dumps": "spbfast.observed",
    "read_events": "spbfast.observed",
    "diagnose": "spbfast.observed",
    "presets": "spbfast.config",
    "explain": "spbfast.config.explained",
}

__all__ = [
    "AllocFlag",
    "Mt",
    "Zone",
    "__version__",
    "compare",
    "cube",
    "diagnose",
    "explain",
    "fragmentation_scores",
    "load_config",
    "open_results",
    "open_together",
    "presets",
    "read_dump",
    "read_dumps",
    "read_events",
    "simulate",
    "sweep",
]

if TYPE_CHECKING:
    from spbfast.config import load_config


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'spbfast' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
