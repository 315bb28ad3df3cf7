"""What numba works out again and again while kernels compile, worked out once.

Typing asks for each operator of each expression, in each round of inference, which template takes these
types: 23,000 times for a run's kernels, of which 1,600 differ. Where a compilation stands within others,
each of these also has a timer that hears of every lock taken below it. With both out of the way kernels
compile in about three quarters of the CPU time (quiet pairs: 0.71, 0.85); what is compiled is the same.
Uses numba's internals; nothing but `linking.py` may import this module.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event
from numba.core.types.functions import BaseFunction


def _remembering(work_out: Any) -> Any:
    """A `get_call_type` that works out each answer once; failures are worked out each time."""
    answers: dict[tuple[int, Any], tuple[Any, Any]] = {}

    def get_call_type(self: Any, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            return work_out(self, context, args, kws)
        key = id(self), args
        if key not in answers:
            # With the function itself, so that its id stays taken.
            answers[key] = work_out(self, context, args, kws), self
        return answers[key][0]

    return get_call_type


@contextmanager
def answers_kept() -> Iterator[None]:
    """Keep the types of calls of numba's own functions while one entry and all that it calls compile.

    Kernels differ in no flag that these functions are compiled by; numba's global lock keeps other
    compilations out meanwhile.
    """
    usual = BaseFunction.get_call_type
    is_outermost = usual.__module__ != __name__
    if is_outermost:
        BaseFunction.get_call_type = _remembering(usual)  # type: ignore[method-assign]
    try:
        yield
    finally:
        BaseFunction.get_call_type = usual  # type: ignore[method-assign]


@contextmanager
def unheard() -> Iterator[None]:
    """Tell nobody outside of what happens inside: listeners registered meanwhile are heard alone."""
    listeners = event._registered
    event._registered = defaultdict(list)
    try:
        yield
    finally:
        event._registered = listeners
