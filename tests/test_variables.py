"""The registry of outputs: consistent in itself, and a judge of data."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from spbfast.errors import ResultsError
from spbfast.outputs import variables
from spbfast.outputs.counters import counter_docs, rung_docs
from spbfast.outputs.variable_rows import HIGHER, LOWER, NEITHER
from spbfast.outputs.variables import (
    COORDS,
    VARIABLES,
    Var,
    add_summaries,
    annotate,
    at_level,
    check_dataset,
    check_run,
)
from spbfast.tiles.pageblocks import KINDS

pytestmark = pytest.mark.shell


def test_every_row_is_complete() -> None:
    for name, var in VARIABLES.items():
        assert var.name == name
        assert var.long_name
        assert var.meaning
        assert var.direction in (LOWER, HIGHER, NEITHER)
        assert set(var.dims) <= set(COORDS)
        assert np.dtype(var.dtype).kind in "if"
        assert not var.dims or var.dims[-1] == "time" or name == "n_spb"


def test_no_text_knows_the_size_of_a_superpageblock() -> None:
    """machine.spb_size says it: a label with 1 GiB is wrong on every other machine."""
    texts = [text for var in VARIABLES.values() for text in (var.long_name, var.meaning)]
    texts += [doc.meaning for doc in (*counter_docs().values(), *rung_docs().values())]
    texts += [kind.meaning for kind in KINDS]
    assert [text for text in texts if re.search(r"\d ?[KMGT]iB", text)] == []


def test_headline_metrics_say_which_way_is_better() -> None:
    headline = [v for v in VARIABLES.values() if v.headline]
    assert {v.name for v in headline} >= {"spb_tainted", "spb_clean", "spb_empty", "tainted_end"}
    assert all(v.direction != NEITHER for v in headline)


def test_register_refuses_conflicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "VARIABLES", dict(VARIABLES))
    var = Var("kswapd_runs", ("time",), "i8", "1", "kswapd runs", "times kswapd woke")
    assert variables.add_variable(var) is variables.add_variable(var)
    with pytest.raises(ValueError, match="already registered"):
        variables.add_variable(Var("kswapd_runs", (), "i8", "1", "kswapd runs", "times kswapd woke"))
    with pytest.raises(ValueError, match="unknown dimensions"):
        variables.add_variable(Var("x", ("galaxy",), "i8", "1", "x", "x"))


def test_check_run_names_every_disagreement() -> None:
    time_s = np.arange(3.0)
    good = {"spb_tainted": np.arange(3), "tainted_end": np.int64(2)}
    assert check_run(good, {"time": time_s}) == []
    bad = {
        "spb_taintd": np.arange(3),
        "spb_clean": np.arange(4),
        "spb_empty": np.arange(3.0),
        "vmstat": np.zeros((2, 3), int),
        "slab_pages": np.int64(1),
    }
    problems = "\n".join(check_run(bad, {"time": time_s}))
    assert "spb_taintd: no such output variable" in problems
    assert "spb_clean: 4 values along time, but 3 labels" in problems
    assert "spb_empty: values of type float64, expected i4" in problems
    assert "vmstat: there are no labels along counter" in problems
    assert "slab_pages: has 0 dimensions" in problems


def test_summaries_follow_from_series() -> None:
    full = add_summaries({"spb_tainted": np.array([8, 90, 85])})
    assert (int(full["tainted_end"]), int(full["tainted_peak"])) == (85, 90)
    assert add_summaries({"tainted_end": np.int64(1), "spb_tainted": np.array([5])})["tainted_end"] == 1
    assert at_level(full, "summary") == ["tainted_end", "tainted_peak"]
    assert at_level(full, "series") == list(full)


def test_annotate_and_validate() -> None:
    ds = xr.Dataset({"spb_tainted": ("time", [1, 2])}, coords={"time": [0.0, 1.0]})
    out = annotate(ds)
    assert out.spb_tainted.attrs["direction"] == "lower is better"
    assert out.time.attrs["units"] == "s"
    assert ds.spb_tainted.attrs == {}
    check_dataset(out)
    with pytest.raises(ResultsError, match="nonsense: no such output variable"):
        check_dataset(out.assign(nonsense=("time", [1, 2])))
    with pytest.raises(ResultsError, match=r"spb_tainted: dimensions \('order',\)"):
        check_dataset(out.rename(time="order"))
