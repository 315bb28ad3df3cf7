"""What a word of this program means: a key, a metric, a counter, a rung, an error, an exit code.

Owns the look-up behind `spbfast explain`. Meanings stand where the things are: keys in the models, metrics
and counters in outputs, errors in errors.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from spbfast import errors
from spbfast.config.schema import explain_key, key_docs, keys_ending_in
from spbfast.constants import Err
from spbfast.errors import EXIT_CODES, ConfigError, SimulationError, SpbfastError, strerror
from spbfast.outputs.counters import counter_docs, rung_docs
from spbfast.outputs.variables import COORDS, VARIABLES
from spbfast.text import quote_value, suggest

Row = tuple[str, str]


def explain(word: str) -> str:
    """What a word means, with unit, direction, source and certainty as far as they apply.

    Parameters
    ----------
    word : str
        A configuration key, a metric, a counter, a rung of the ladder, an error or an exit code. What is
        several of these is explained as each.

    Raises
    ------
    ConfigError
        For an unknown word; the message suggests the nearest one.
    """
    if not isinstance(word, str):
        raise ConfigError(f"a word to explain is text such as 'policy.slab_shrink', got {quote_value(word)}")
    known = {doc.path for doc in key_docs()}
    found = [text for look in (_metric, _counter, _rung, _error) if (text := look(word))]
    if word in known or (not found and len(keys_ending_in(word)) == 1):
        found.insert(0, explain_key(word))
    if found:
        return "\n\n".join(found)
    if ends := keys_ending_in(word):
        raise ConfigError(f"{quote_value(word)} may be {', '.join(ends)}")
    words = [*known, *VARIABLES, *COORDS, *counter_docs(), *rung_docs(), *_errors()]
    hint = suggest(word, words, 0.5) or f"; `spbfast explain KIND` lists {', '.join(LISTS)}"
    raise ConfigError(f"nothing is called {quote_value(word)}{hint}")


def listing(kind: str) -> list[Row] | None:
    """All words of a kind with a line each; None if the word is no kind."""
    return LISTS[kind]() if kind in LISTS else None


def _metric(name: str) -> str:
    var = VARIABLES.get(name) or COORDS.get(name)
    if var is None:
        return ""
    what = "metric" if name in VARIABLES else "dimension"
    labels = [d for d in var.dims if d != name]
    by = f", by {', '.join(labels)}" if labels else ""
    return _page(
        name,
        f"{var.long_name}: {var.meaning}",
        kind=f"{what}{by}",
        unit="a count" if var.units == "1" and not var.dtype.startswith("f") else _unit(var.units),
        better=var.direction if name in VARIABLES else "",
        source="sampled from the simulated machine (spbfast/outputs/variables.py)",
    )


def _unit(units: str) -> str:
    return "a number without a unit" if units == "1" else units


def _counter(name: str) -> str:
    doc = counter_docs().get(name)
    if doc is None:
        return ""
    return _page(
        name,
        doc.meaning,
        kind="counter, since the end of boot, over time in ds.vmstat",
        unit=doc.units,
        better=doc.direction,
        name_is=doc.whose,
    )


def _rung(name: str) -> str:
    doc = rung_docs().get(name)
    if doc is None:
        return ""
    counters = [f"{what}_{name}" for what in ("spb_alloc", "taints", "spb_searched", "spb_visited")]
    return _page(
        name,
        doc.meaning,
        kind="rung of the ladder, or another outcome of a request",
        kernel=doc.symbol,
        counters=", ".join(counters),
        source="docs/spec/exact.md, B.5 and B.6",
        certainty="equal to traces of a written reading of the series; spbfast verify replays them",
    )


def _error(word: str) -> str:
    text = _errors().get(word)
    if text is None:
        return ""
    if word.isdigit():
        raised = [n for n, c in _classes().items() if c.exit_code == int(word)]
        return _page(word, text, kind="exit code", errors=", ".join(raised))
    if word in _classes():
        return _page(word, text, kind="error of the Python interface", exit=str(_classes()[word].exit_code))
    code = Err[word]
    return _page(
        word, text, kind=f"code {int(code)} of a simulation that gave up", exit=str(SimulationError.exit_code)
    )


def _page(word: str, meaning: str, **facts: str) -> str:
    width = max(map(len, facts)) + 1
    lines = [f"  {name.replace('_', ' ') + ':':<{width}} {text}" for name, text in facts.items() if text]
    return "\n".join([word, f"  {meaning}", *lines])


def _classes() -> dict[str, type[SpbfastError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: c for name, c in found if issubclass(c, SpbfastError) and c is not SpbfastError}


def _errors() -> dict[str, str]:
    """Errors, codes of simulations and exit codes with a line each."""
    classes = {name: (c.__doc__ or "").strip().splitlines()[0] for name, c in _classes().items()}
    codes = {code.name: strerror(code) for code in Err if code}
    return {**{str(code): text for code, text in EXIT_CODES.items()}, **classes, **codes}


def _metrics() -> list[Row]:
    return [(name, f"{var.long_name}: {var.meaning}") for name, var in VARIABLES.items()]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "keys": lambda: [(doc.path, doc.text) for doc in key_docs()],
    "metrics": _metrics,
    "counters": lambda: [(doc.name, doc.meaning) for doc in counter_docs().values()],
    "rungs": lambda: [(doc.name, doc.meaning) for doc in rung_docs().values()],
    "errors": lambda: list(_errors().items()),
}
