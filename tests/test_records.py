"""Event records: what the slow twin says happened, in the same order; bounded; and no part of a result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from spbfast.cli import app
from spbfast.config import load_config
from spbfast.constants import Tp
from spbfast.errors import ConfigError, ResultsError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import run_replicate
from spbfast.model.loop.replay import run_events
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.trace import ALL_TP, NR_TRACE_FIELDS, start_records
from spbfast.outputs.tracepoints import KINDS, NAMES, OUTCOMES, check_names, columns_of, record_mask
from spbfast.results.records import line_of, lines_of, read_records
from tests.demand_tools import CONFIGS, scenario
from tests.passes import cases
from tests.reference import replay as twin
from tests.zone_tools import TINY, replay_of

SPAN = "150ms" if INTERPRETED else "2s"
LARGER = ("spb_p_v1_31_borrow", "spb_p_v1_21_mixed", "spb_p_v2_gates_separate_by_content")
MORE = () if INTERPRETED else LARGER


CALLERS = {"mm_page_alloc", "mm_page_free"}  # what callers did, of which the twin says nothing
OF_LISTS = record_mask(tuple(name for name in NAMES if name not in CALLERS))


def traced(z: ZoneState, mask: int = OF_LISTS, most: int = 100_000) -> ZoneState:
    """The zone with buffers for records of some kinds, which begin now."""
    rows = np.zeros((mask.bit_count(), most, NR_TRACE_FIELDS), np.int64)
    z = z._replace(trace=z.trace._replace(rows=rows))
    start_records(z.trace, mask)
    return z


def in_order(z: ZoneState) -> list[tuple]:
    """All records as the twin writes them: kind, then fields, pages relative to the zone."""
    found = []
    for name, kind in KINDS.items():
        tp = Tp[name.upper()]
        for row in z.trace.rows[z.trace.where[tp], : z.trace.nr[tp]].tolist():
            fields = row[3 : 3 + len(kind.fields)]
            pages = [v - z.geo.lo * f.is_page for v, f in zip(fields, kind.fields, strict=True)]
            found.append((row[1], (name, *pages)))
    found.sort()
    assert [seq for seq, _ in found] == list(range(len(found)))
    return [record for _, record in found]


def replayed(name: str, **how: int) -> ZoneState:
    """A golden file's zone after all its events, with records."""
    run = replay_of(name)
    run.z = traced(run.z, **how)
    run_events(run.z, run.policy, run.events, 0, len(run.events), run.pins, run.out)
    return run.z


def first_difference(found: list, expected: list) -> str:
    for i, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            return f"record {i}: {one}, the twin has {other}"
    return f"{len(found)} records, the twin has {len(expected)}"


@pytest.mark.parametrize("name", [*TINY, *MORE])
def test_records_are_those_of_the_twin(name: str) -> None:
    expected = twin.replay(replay_of(name).golden).records
    found = in_order(replayed(name))
    assert found == expected, first_difference(found, expected)
    assert {"spb_pb_taint", "spb_alloc_walk"} <= {record[0] for record in found}


def test_the_files_above_have_every_kind_of_the_exact_layer() -> None:
    kinds = {record[0] for name in (*TINY, *MORE) for record in in_order(replayed(name))}
    missing = {"spb_alloc_atomic_relax", "mm_page_pcpu_drain", "spb_slab_shrink_run"}
    assert INTERPRETED or kinds == set(NAMES) - missing - CALLERS


@pytest.mark.skipif(INTERPRETED, reason="takes minutes")
def test_drains_and_fallbacks_of_mainline_are_those_of_the_twin() -> None:
    pcp = twin.replay(replay_of("p12_64m_pcp").golden)
    records = in_order(replayed("p12_64m_pcp"))
    drained = [record[1:3] for record in records if record[0] == "mm_page_pcpu_drain"]
    assert drained == pcp.drained
    buddy = twin.replay(replay_of("p20_64m_fallback").golden)
    found = [r[1:] for r in in_order(replayed("p20_64m_fallback")) if r[0] == "mm_page_alloc_extfrag"]
    assert [r[:5] for r in found] == [
        (x.pfn, x.alloc_order, x.fallback_order, x.alloc_mt, x.fallback_mt) for x in buddy.log
    ]


def test_a_full_buffer_drops_and_counts() -> None:
    whole, few = replayed(TINY[0], mask=ALL_TP), replayed(TINY[0], mask=ALL_TP, most=7)
    walk = Tp.SPB_ALLOC_WALK
    assert few.trace.nr.tolist() == whole.trace.nr.tolist()
    assert whole.trace.nr[walk] > 7
    for kind in Tp:
        nr = min(int(whole.trace.nr[kind]), 7)
        assert np.array_equal(few.trace.rows[kind, :nr], whole.trace.rows[kind, :nr])


def test_kinds_that_are_off_leave_nothing() -> None:
    z = replayed(TINY[0], mask=record_mask(("spb_pb_taint",)))
    assert z.trace.nr[Tp.SPB_PB_TAINT] > 0
    assert z.trace.nr.sum() == z.trace.nr[Tp.SPB_PB_TAINT]
    with pytest.raises(ValueError, match="2 kinds of records need as many buffers, there are 1"):
        start_records(z.trace, 3)


@pytest.mark.skipif(INTERPRETED, reason="no evacuation in so short a time")
def test_an_evacuation_keeps_the_order_that_it_was_asked_for() -> None:
    """A queued request's order waits with it; orders 2 and 3 are the network's."""
    given = scenario(policy="v1@45", duration=SPAN)
    run = run_replicate(given, 1, 0, records=("spb_evacuate_for_order_done",))
    columns = run.records["spb_evacuate_for_order_done"].columns
    assert len(columns["order"]) > 0
    assert set(columns["order"].tolist()) <= {0, 1, 2, 3}


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@30", "v2"))
def test_recording_changes_no_result(policy: str) -> None:
    given = scenario(policy=policy, duration=SPAN)
    plain = run_replicate(given, 1, 0)
    full = run_replicate(given, 1, 0, check=True, snapshots=True, records=NAMES, records_max=5000)
    assert full.digest == plain.digest
    assert full.events == plain.events
    assert not plain.records
    locked = full.records["mm_page_alloc_zone_locked"].columns
    assert len(locked["time"]) > 0
    assert (np.diff(locked["time"]) >= 0).all()
    assert (np.diff(locked["seq"]) > 0).all()
    machine = given.machine
    assert locked["pfn"].min() >= machine.start_pfn
    assert locked["pfn"].max() < machine.start_pfn + machine.nr_pages


@pytest.mark.skipif(INTERPRETED, reason="compares with itself")
def test_interpreted_records_are_the_compiled_ones() -> None:
    code = (
        "import hashlib\n"
        "from spbfast.model.engine import run_replicate\n"
        "from spbfast.outputs.tracepoints import NAMES\n"
        "from tests.demand_tools import scenario\n"
        "run = run_replicate(scenario(policy='v1@45', duration='80ms'), 1, 0, records=NAMES)\n"
        "h = hashlib.blake2b(digest_size=8)\n"
        "for name, kept in run.records.items():\n"
        "    for column, values in kept.columns.items():\n"
        "        h.update(f'{name}{column}{len(values)}'.encode() + values.tobytes())\n"
        "print(run.digest, h.hexdigest())\n"
    )
    shown = []
    for off in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_DISABLE_JIT": off},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        shown.append(done.stdout)
    assert shown[0] == shown[1]


@pytest.mark.compiled
def test_counters_say_what_records_say() -> None:
    run = run_replicate(scenario(policy="v1@45", duration=SPAN), 1, 0, records=NAMES)
    vm = dict(zip(run.coords["counter"].tolist(), run.data["vmstat"][:, -1].tolist(), strict=True))
    kept = {name: records.columns for name, records in run.records.items()}
    assert all(records.dropped == 0 for records in run.records.values())
    refused = np.bincount(kept["spb_claim_block_refused"]["reason"], minlength=5)
    names = [name for name in vm if name.startswith("spb_claim_refused_")]
    assert refused.tolist() == [vm[name] for name in names]
    assert len(kept["spb_alloc_fall_through"]["time"]) == vm["spb_alloc_fell_through"]
    runs = kept["spb_slab_shrink_run"]
    assert len(runs["time"]) == vm["spb_slab_shrink_ran"]
    assert runs["freed"].sum() == vm["spb_slab_shrink_freed"]
    assert runs["slab_pages"].sum() == vm["spb_slab_shrink_pages"]
    assert runs["pageblocks"].sum() == vm["spb_slab_shrink_pageblocks"]
    assert runs["scanned"].sum() == vm["slabs_scanned"] == vm["spb_slab_shrink_scanned"]
    taint = kept["spb_pb_taint"]
    for mt in range(3):
        change = np.where(taint["action"] == 1, 1, -1)[taint["mt"] == mt].sum()
        series = run.data["pageblocks_with_content_bit"][mt]
        assert change == series[-1] - series[0]


# -- files, text, command line ------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "run.nc"
    spans = ["--set", f"duration={SPAN}", "--set", "output.records_max=300"]
    args = ["run", str(CONFIGS / "tiny.yaml"), "-o", str(path), "--records", "all", *spans]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    return path


@pytest.mark.compiled
def test_two_lines_of_xarray_read_a_kind(file: Path) -> None:
    ds = xr.open_dataset(file, group="records/spb_alloc_walk")
    assert ds.sizes["record"] == ds.time.size > 0
    assert ds.outcome.attrs["flag_meanings"].split() == list(OUTCOMES)
    assert set(np.unique(ds.replicate)) == {0, 1}
    assert ds.time.attrs["units"] == "s"
    ds.close()
    tree = xr.open_datatree(file)
    assert "spb_tainted" in tree.dataset
    assert set(tree["records"].children) == set(NAMES)
    assert tree["records/spb_pb_taint"].dataset.pfn.attrs["long_name"] == "page frame number"
    tree.close()


def test_printing_is_the_kernel_s_format(file: Path) -> None:
    done = CliRunner().invoke(app, ["records", str(file), "--kind", "spb_alloc_walk", "--head", "3"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "# replicate 0"
    assert len(lines) == 4
    head, text = lines[1].split(": spb_alloc_walk: ")
    assert head.split()[:3] == ["spbfast-0", "[000]", "....."]
    assert [part.split("=")[0] for part in text.split()] == [
        *("zone", "order", "mt", "alloc_flags", "outcome", "n_spbs_visited"),
    ]
    assert text.startswith("zone=Normal order=")


def test_lines_of_each_kind() -> None:
    rows = np.array([[1_500_000, 0, 0, 5, 1, 2, 3, 4, 0, 1, 0]], np.int64)
    record = {k: v[0] for k, v in columns_of("mm_page_alloc_extfrag", rows, [0x100000]).items()}
    assert line_of("mm_page_alloc_extfrag", record) == (
        "       spbfast-0     [000] .....     0.001500: mm_page_alloc_extfrag: "
        "page=0xffffea0004000140 pfn=0x100005 alloc_order=1 fallback_order=2 alloc_migratetype=3 "
        "fallback_migratetype=4 fragmenting=0 change_ownership=1"
    )
    rows = np.array([[1_500_000, 0, 0, 0, 2, 129, 1, 0, 0, 0, 0]], np.int64)
    record = {k: v[0] for k, v in columns_of("spb_alloc_atomic_relax", rows).items()}
    assert line_of("spb_alloc_atomic_relax", record) == (
        "       spbfast-0     [000] .....     0.001500: spb_alloc_atomic_relax: zone=Normal order=0 mt=2 "
        "gfp=__GFP_DIRECT_RECLAIM|__GFP_KSWAPD_RECLAIM step=ADD_TAINTED_OK"
    )


def test_lines_come_in_order_of_their_numbers(file: Path) -> None:
    found = read_records(file)
    lines = [line for line in lines_of(found) if not line.startswith("#")]
    assert len(lines) == sum(len(columns["seq"]) for columns in found.values())
    assert [*lines_of(found, 0)] == []
    first = [line for line in lines_of({"spb_pb_taint": found["spb_pb_taint"]})]
    assert all("action=SET" in line or "action=CLEAR" in line or line[0] == "#" for line in first)


def test_dropped_records_are_named(file: Path) -> None:
    done = CliRunner().invoke(app, ["records", str(file), "--kind", "mm_page_alloc_zone_locked"])
    assert "mm_page_alloc_zone_locked: 600 records kept, " in done.output
    assert "later ones dropped; raise output.records_max" in done.output


def config(folder: Path, records: str) -> Path:
    """The tiny configuration with these records."""
    text = (CONFIGS / "tiny.yaml").read_text()
    assert "output: {" in text
    path = folder / "c.yaml"
    path.write_text(text.replace("output: {", f"output: {{records: {records}, "))
    return path


def test_wrong_names_are_corrected(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'spb_pb_taint'"):
        check_names(("spb_pb_tain",))
    wrong = r"c\.yaml:\d+:\d+: error: output.records.*did you mean 'spb_alloc_walk'"
    with pytest.raises(ConfigError, match=wrong):
        load_config(config(tmp_path, "[spb_aloc_walk]"))
    done = CliRunner().invoke(app, ["run", str(CONFIGS / "tiny.yaml"), "--records", "all"])
    assert done.exit_code == 2
    assert "records go to the file of -o FILE" in done.output
    with pytest.raises(ResultsError, match="did you mean 'mm_page_pcpu_drain'"):
        read_records(file, ["mm_page_pcp_drain"])


def test_a_file_without_records_says_how_to_get_them(tmp_path: Path) -> None:
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "plain.nc")
    with pytest.raises(ResultsError, match="spbfast run CFG -o FILE --records all"):
        read_records(tmp_path / "plain.nc")
    with pytest.raises(ResultsError, match="cannot read"):
        read_records(tmp_path / "none.nc")


def test_configuration_may_name_kinds(tmp_path: Path) -> None:
    assert check_names("all") == NAMES
    assert load_config(config(tmp_path, "all")).output.records == NAMES
    kinds = load_config(config(tmp_path, "[spb_alloc_walk, spb_pb_taint]")).output.records
    assert kinds == ("spb_pb_taint", "spb_alloc_walk")
