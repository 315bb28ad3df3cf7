"""What an experiment found: a published figure, ours, and whether ours comes out.

Owns the record that experiments return and the page prints. Whether a figure comes out is computed from the
numbers by the experiment's own criterion; nobody writes it down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

COMES_OUT, DIFFERS, UNCHECKED = "comes out", "does not come out", "can't be checked"
OBSERVED = "no published figure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure.

    Attributes
    ----------
    what : str
        What was measured.
    published : str
        The published figure, or what the sources say must hold.
    ours : str
        The same from a run of ours, "-" if there is none.
    verdict : str
        COMES_OUT, DIFFERS, UNCHECKED, or OBSERVED for a figure that nobody has published.
    remark : str
        A sentence on the difference, or why the figure can't be checked.
    """

    what: str
    published: str
    ours: str
    verdict: str
    remark: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment of the validation page.

    Attributes
    ----------
    key : str
        Short name for `--only`.
    title : str
        Heading on the page.
    about : str
        A paragraph: what is done, with which sizes, seeds and orders, and whose the published figures are.
    run : callable
        ``run(quick) -> dict``, plain numbers that JSON can hold.
    judge : callable
        ``judge(numbers) -> list of Finding``.
    tables : callable
        ``tables(numbers) -> list of Markdown lines`` that follow the findings; none by default.
    """

    key: str
    title: str
    about: str
    run: Callable[[bool], dict[str, Any]]
    judge: Callable[[Mapping[str, Any]], list[Finding]]
    tables: Callable[[Mapping[str, Any]], list[str]] = lambda numbers: []


def verdict(holds: bool) -> str:
    """COMES_OUT or DIFFERS."""
    return COMES_OUT if holds else DIFFERS


def unchecked(what: str, published: str, why: str) -> Finding:
    """A published figure that this model cannot be held against, and why."""
    return Finding(what, published, "-", UNCHECKED, why)
