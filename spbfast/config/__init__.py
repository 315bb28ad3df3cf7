"""Configuration: YAML text to a frozen, fully resolved Job, with every error located.

`load_config` is the one way in; `models` says what a job is, `units` how quantities are written, `presets`
what each allocator policy switches on. Nothing in this package imports numba, xarray or dask, so that
validation and `--help` stay quick.
"""

from __future__ import annotations

from spbfast.config.base import Model
from spbfast.config.job import Job
from spbfast.config.load import load_config
from spbfast.config.models import Scenario, SweepSpec
from spbfast.config.policy import Policy
from spbfast.config.units import ByteRate, Duration, Size

__all__ = ["ByteRate", "Duration", "Job", "Model", "Policy", "Scenario", "Size", "SweepSpec", "load_config"]
