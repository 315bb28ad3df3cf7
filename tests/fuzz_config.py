"""Arbitrary configurations and files of points: always a job or a ConfigError, soon, never anything else.

`python -m tests.fuzz_config --minutes 10` runs for that long with new seeds; test_fuzz_config.py runs a few
hundred. A failing example is printed as the file that provokes it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from spbfast.config import Job, load_config
from spbfast.config.messages import all_paths
from spbfast.config.models import JobFile, ScenarioFields
from spbfast.errors import ConfigError, Problem
from spbfast.model.lowering.lower_machine import state_nbytes
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.sweep.points.plan import make_plan

ROOT = Path(__file__).resolve().parents[1]
# Processor time, so that a busy machine is not taken for a slow loader.
SECONDS_MAX = 10.0
POINTS_PLANNED = 64

TEXTS = [p.read_text(encoding="utf-8") for p in sorted((ROOT / "tests" / "bad_yaml").glob("*.yaml"))]
TEXTS += [p.read_text(encoding="utf-8") for p in sorted((ROOT / "configs").rglob("*.yaml"))]
PATHS = sorted({*all_paths(JobFile), *all_paths(ScenarioFields), "actors.guests.memory", "actors.0.rate"})
WORDS = [
    *PATHS,
    *"kind name preset grid zip points points_file design ranges min max scale step samples lhs".split(),
    *"guests churn 10ms 100 1GiB 5s auto true false null v1@30 mainline nan .inf -0 1e400 0x10".split(),
    *f"{2**31} {2**63} {2**64} {2**63}ns {2**64}B 1000000h 100TiB 10\u03bcs {'9' * 300} !!bool".split(),
    *(
        "points.csv",
        "base.yaml",
        "../up.yaml",
        "/etc/passwd",
        "<<",
        "*a",
        "&a",
        "!!python/object:os.system",
        "~",
    ),
]
scalars = st.one_of(
    st.sampled_from(WORDS),
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-2, 300),
    st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -1, True]),
    st.floats(),
    st.text(max_size=12),
    st.from_regex(r"\A[0-9]{1,4}(\.[0-9]{1,3})?(ns|us|ms|s|min|h|B|kB|MiB|GiB|GB|MB/s|%)?\Z"),
)
keys = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)
sweeps = st.fixed_dictionaries(
    {},
    optional={
        "grid": st.dictionaries(st.sampled_from(PATHS), st.lists(scalars, max_size=3) | values, max_size=3),
        "zip": st.dictionaries(st.sampled_from(PATHS), st.lists(scalars, max_size=3), max_size=3),
        "points": st.lists(st.dictionaries(st.sampled_from(PATHS), scalars, max_size=3) | values, max_size=3),
        "points_file": st.just("points.csv") | scalars,
        "baseline": st.dictionaries(st.sampled_from(PATHS), values, max_size=2) | values,
        "design": values,
        "seeding": scalars,
    },
)
files = st.fixed_dictionaries(
    {"duration": st.sampled_from(["1s", "250ms"]) | scalars},
    optional={name: values for name in JobFile.model_fields if name not in ("duration", "sweep")}
    | {"sweep": sweeps | values},
)


@st.composite
def broken_texts(draw: Any) -> str:
    """The text of a file of ours with pieces cut, doubled, swapped or replaced."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 30)))
        new = draw(
            st.sampled_from(["", "\t", "\n", ": ", "- ", "{", "]", "'", "#", "\x00", "\ud800", *WORDS])
            | st.text(max_size=6)
        )
        text = text[:begin] + new + text[end:]
    return text


tables = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.lists(
            st.sampled_from([*PATHS, "10ms", "true", "1", "", '"', "x,y", "{a: 1}", "[1]"]), max_size=4
        ).map(",".join),
        max_size=6,
    ).map(lambda rows: "\n".join(rows).encode()),
)


def check_error(error: ConfigError) -> None:
    """Every problem says something, and all of it can be printed."""
    assert error.problems
    assert all(isinstance(p, Problem) and p.message for p in error.problems)
    str(error).encode("utf-8", "surrogatepass")


def check_lowers(job: Job) -> None:
    """What is valid can be simulated: its numbers fit where kernels keep them."""
    policy_array(job.scenario.policy)
    assert sum(state_nbytes(job.scenario).values()) > 0


def check(content: str, table: bytes, overrides: list[str]) -> None:
    """Load a configuration with a file of points beside it, and plan it if it is a small sweep."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "job.yaml").write_bytes(content.encode("utf-8", "surrogatepass"))
        (home / "points.csv").write_bytes(table)
        (home / "base.yaml").write_text("duration: 2s\npolicy: v1@30\n")
        begin = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                job = load_config(home / "job.yaml", overrides)
                check_lowers(job)
                if job.nr_points <= POINTS_PLANNED:
                    plan = make_plan(job, 1)
                    assert len(plan.points) + plan.merged == job.nr_points
            except ConfigError as error:
                check_error(error)
        assert time.process_time() - begin < SECONDS_MAX, "took too long"


def properties(examples: int) -> list[Callable[[], None]]:
    """The fuzz tests, each of so many examples."""
    common = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    lines = st.lists(st.tuples(st.sampled_from(PATHS), scalars).map(lambda p: f"{p[0]}={p[1]}"), max_size=2)

    @common
    @given(files, tables, lines)
    def structured(content: Any, table: bytes, overrides: list[str]) -> None:
        check(json.dumps(content), table, overrides)

    @common
    @given(broken_texts(), tables)
    def broken(content: str, table: bytes) -> None:
        check(content, table, [])

    @common
    @given(tables)
    def points(table: bytes) -> None:
        check("duration: 1s\nsweep: {points_file: points.csv}\n", table, [])

    return [structured, broken, points]


def main() -> int:
    """Fuzz for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    rounds, number = 0, options.seed
    while time.monotonic() < end:
        for test in properties(100):
            with contextlib.suppress(KeyboardInterrupt):
                seed(number)(test)()
            rounds += 1
            if time.monotonic() >= end:
                break
        number += 1
    print(f"{rounds * 100} examples, seeds {options.seed}..{number}, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
