"""The experiments of the validation page: short programs over the public interface, each with what it found.

Owns which published figures this model is held against and how. `scripts/validate` runs them, keeps their raw
numbers and writes docs/validation.md from those. Nothing here tunes anything.
"""

from __future__ import annotations

from experiments.finding import COMES_OUT, DIFFERS, OBSERVED, UNCHECKED, Experiment, Finding

__all__ = ["COMES_OUT", "DIFFERS", "OBSERVED", "UNCHECKED", "Experiment", "Finding"]
