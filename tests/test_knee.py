"""`spbfast knee`: good values where there are some, and honest words where there are none."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spbfast.errors import QuestionError, ResultsError
from spbfast.results.goodenough import Knee, good_range, knees
from spbfast.sweep import run_sweep
from tests.page_tools import spbfast
from tests.sweep_tools import ENGINE, make_job
from tests.test_report_metrics import CURVE

pytestmark = pytest.mark.shell

X = (0.01, 0.05, 0.1, 0.5, 1.0)
NOISE = np.random.default_rng(3).normal(0, 0.3, (len(X), 12))
DEMAND = np.random.default_rng(4).normal(0, 5, 12)  # what replicates have in common at all values


def results(y: np.ndarray, policies: tuple[str, ...] = ("v1@30",)) -> xr.Dataset:
    """A sweep of a throttle, for each policy, with these values of `tainted_end` [x, replicate]."""
    nr = len(X) * len(policies)
    rows = np.concatenate([y] * len(policies))
    coords = {
        "policy_slab_shrink_throttle": (
            "point",
            list(X) * len(policies),
            {"config_path": "policy.slab_shrink_throttle", "units": "s"},
        ),
        "policy": ("point", np.repeat(policies, len(X)), {"config_path": "policy"}),
        "in_grid": ("point", np.ones(nr, bool)),
        "is_baseline": ("point", np.zeros(nr, bool)),
    }
    data = {
        "tainted_end": (("point", "replicate"), rows),
        "slab_pages": (("point", "replicate"), rows),
        "status": (("point", "replicate"), np.zeros(rows.shape, "i1")),
    }
    return xr.Dataset(data, coords, {"sweep_params": "policy_slab_shrink_throttle policy"})


def knee_of(means: list[float], nr: int = 12, **options: object) -> Knee:
    y = np.array(means)[:, None] + DEMAND[:nr] + NOISE[:, :nr]
    (found,) = knees(results(y), metric="tainted_end", **options)  # type: ignore[arg-type]
    return found


def test_a_rising_curve_is_good_up_to_its_knee() -> None:
    found = knee_of([10, 10.2, 10.4, 20, 30])
    assert (found.kind, found.lower, found.is_monotone, found.pairs) == ("up to", None, True, 12)
    assert found.upper is not None
    assert (found.upper.value, found.upper.low, found.upper.high) == (0.1, 0.1, 0.1)
    assert [level.is_good for level in found.levels] == [True] * 3 + [False] * 2
    assert found.words.startswith("Good enough up to 100 ms (95 % interval 100 ms): within 10 % of")
    assert found.p < 0.001
    assert (
        found.levels[-1].low < 20 < found.levels[-1].high < found.levels[-1].low + 1
    )  # paired: without DEMAND


def test_a_falling_curve_is_good_from_its_knee_and_an_uncertain_one_has_an_interval() -> None:
    found = knee_of([30, 20, 11.8, 10, 10])
    assert found.kind == "from"
    assert found.lower is not None
    assert found.lower.low == 0.1 == found.lower.value < found.lower.high == 0.5


def test_the_best_may_lie_inside_and_more_may_be_better() -> None:
    found = knee_of([30, 20, 10, 20, 30])
    assert (found.kind, found.is_monotone) == ("between", False)
    assert "not monotone" in found.words
    assert "only at 100 ms" in found.words
    assert "between 50 ms" in knee_of([30, 10, 10, 10, 30]).words
    assert knee_of([30, 20, 10, 10, 10], better="higher").kind == "up to"
    assert knee_of([10, 20, 28, 30, 30], within=0.3).kind == "up to"


def test_a_flat_curve_says_that_no_value_matters() -> None:
    found = knee_of([10, 10, 10, 10, 10])
    assert (found.kind, found.lower, found.upper) == ("unclear", None, None)
    assert found.words.startswith("No value matters as far as 12 replicates can tell")
    (same,) = knees(results(np.tile(DEMAND, (len(X), 1))), metric="tainted_end")
    assert same.words == "No value matters: every replicate is the same at all 5 values."


def test_flat_curves_are_seldom_taken_for_knees() -> None:
    """The test keeps its level: of 20 curves of noise about one is called clear."""
    rng = np.random.default_rng(5)
    kinds = [knees(results(rng.normal(0, 1, (5, 6))), metric="tainted_end")[0].kind for _ in range(20)]
    assert kinds.count("unclear") >= 17


@pytest.mark.parametrize(("nr", "kind"), [(0, None), (1, "few"), (2, "few"), (3, "up to")])
def test_few_replicates(nr: int, kind: str | None) -> None:
    if kind is None:
        with pytest.raises(ResultsError):
            knee_of([10, 11, 12, 20, 30], nr)
        return
    found = knee_of([10, 10.1, 10.2, 20, 30], nr)
    assert found.kind == kind
    assert "raise replicates" in found.words.lower()


def test_replicates_that_a_value_lacks_are_no_pairs() -> None:
    y = np.array([10, 10, 10, 20, 30.0])[:, None] + DEMAND + NOISE
    ds = results(y)
    ds["status"][2, 4:6] = 1
    (found,) = knees(ds, metric="tainted_end")
    assert found.pairs == 10
    assert found.levels[0].mean == pytest.approx(np.delete(y[0], [4, 5]).mean())


def test_many_settings_are_averaged_and_few_are_not() -> None:
    y = np.array([10, 10, 10, 20, 30.0])[:, None] + DEMAND + NOISE
    two = knees(results(y, ("a", "b")), metric="tainted_end")
    assert [knee.setting for knee in two] == ["policy a", "policy b"]
    (one,) = knees(results(y, tuple("abcdefg")), metric="tainted_end")
    assert one.setting == "mean of 7 settings of the other keys"
    assert [x.mean for x in one.levels] == pytest.approx([x.mean for x in two[0].levels])


def test_the_range_of_good_values_holds_its_best() -> None:
    first, last = good_range(np.array([[5, 0], [1, 9], [0, 1], [9, 0.5]], float), 0.2)
    assert (first.tolist(), last.tolist()) == ([1, 0], [2, 0])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("knee")
    return Path(run_sweep(make_job(folder, sweep=CURVE), folder / "out", engine=ENGINE, quiet=True).directory)


def test_the_command_prints_text_json_and_csv(directory: Path) -> None:
    words = ["knee", str(directory), "--over", "policy.slab_shrink_throttle"]
    code, text = spbfast(words)
    assert code == 0, text
    assert text.startswith("spb_tainted at end over policy.slab_shrink_throttle\ntarget objs 512, 3 pairs\n")
    assert text.count("Good enough up to") == 2
    code, text = spbfast([*words, "--json"])
    found = json.loads(text)
    assert (code, found["over"], len(found["knees"])) == (0, "policy.slab_shrink_throttle", 2)
    assert found["knees"][0]["levels"][0]["value"] == 0.01
    code, text = spbfast([*words, "--csv", "--at", "peak"])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (code, len(rows), rows[0]["shown"]) == (0, 6, "10 ms")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--over", "policy.slab_shrink_throtle"], "did you mean 'policy.slab_shrink_throttle'"),
        (["--over", "policy.slab_shrink_target_objs"], "there is no swept number"),
        (["--metric", "spb_taintd"], "did you mean 'spb_tainted'"),
        (["--metric", "slab_pages"], "say --better lower or --better higher"),
        (["--better", "smaller"], "better must be 'lower' or 'higher'"),
        (["--within", "0"], "must be between 0 and 100"),
        (["--json", "--csv"], "not both"),
        (["--at", "noon"], "must be end, peak, mean"),
    ],
)
def test_questions_without_an_answer(directory: Path, given: list[str], said: str) -> None:
    code, output = spbfast(["knee", str(directory), *given])
    assert code == QuestionError.exit_code, output
    assert said in output


@pytest.mark.parametrize("within", [0, 1, -0.5, True, "x", float("nan")])
def test_shares_outside_their_bounds(within: object) -> None:
    with pytest.raises(QuestionError, match="within must be a share"):
        knees(results(NOISE), metric="tainted_end", within=within)  # type: ignore[arg-type]
