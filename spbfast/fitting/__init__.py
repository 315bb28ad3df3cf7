"""Actors from recordings: rates, lifetimes and bursts of the page allocations of a real machine.

`fit_recording` fits, `judge_halves` says what a fit is worth, `job_text` writes the job. See docs/fit.md.
"""

from __future__ import annotations

from spbfast.fitting.actors_yaml import job_text, memory_of
from spbfast.fitting.fit_judgement import judge_halves
from spbfast.fitting.fitted_actors import fit_recording

__all__ = ["fit_recording", "job_text", "judge_halves", "memory_of"]
