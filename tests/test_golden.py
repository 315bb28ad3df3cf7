"""Reading golden files: what comes out, and what each kind of damage is called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spbfast.errors import TraceError
from spbfast.verify.golden import load_golden

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "spb_p_v2_gates_tiny.npz"


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as npz:
        return {name: npz[name] for name in npz.files}


def saved(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "trace.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


def with_meta(tmp_path: Path, **change: object) -> Path:
    """The tiny trace with keys of its meta changed, or taken away where the value is None."""
    arrays = arrays_of(TINY)
    meta = {**json.loads(str(arrays["meta"])), **change}
    arrays["meta"] = np.array(json.dumps({key: value for key, value in meta.items() if value is not None}))
    return saved(tmp_path, arrays)


@pytest.mark.parametrize(
    ("name", "kind", "events"),
    [
        ("p20_64m_fallback", "mainline", 3000),
        ("p12_64m_pcp", "mainline", 5000),
        ("spb_p_v2_gates_tiny", "spb", 400),
        ("shrink_p17_throttle_timing", "shrink", 68),
    ],
)
def test_kind_and_content(name: str, kind: str, events: int) -> None:
    golden = load_golden(GOLDEN / f"{name}.npz")
    assert golden.kind == kind
    assert golden.name == name
    assert golden.nr_events == events == golden.meta["n_events"]
    assert "meta" not in golden.arrays
    for column, array in golden.arrays.items():
        assert array.dtype == (np.uint64 if column.endswith("hash") else np.int64)


def test_kind_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "shrink_p99.npz"
    path.write_bytes(TINY.read_bytes())
    assert load_golden(path).kind == "spb"


def test_widening_keeps_values() -> None:
    raw = arrays_of(TINY)
    golden = load_golden(str(TINY))
    assert raw["requests"].dtype == np.int16
    assert np.array_equal(golden["requests"], raw["requests"])


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nothing\.npz: no such file; a golden trace is an \.npz file"):
        load_golden(tmp_path / "nothing.npz")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="not a file; name one .npz file"):
        load_golden(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an npz archive, as golden traces are"),
        (b"op,handle\n0,1\n", "not an npz archive, as golden traces are"),
        (b"PK\x03\x04 broken", "not a readable npz archive"),
    ],
    ids=["empty", "text", "zip"],
)
def test_not_an_npz(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "trace.npz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=rf"trace\.npz: {words}.*numpy\.savez"):
        load_golden(path)


def test_single_array(tmp_path: Path) -> None:
    path = tmp_path / "trace.npy"
    np.save(path, np.arange(3))
    with pytest.raises(TraceError, match="a single .npy array; a golden trace is an .npz archive"):
        load_golden(path)


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    np.savez(path, meta=np.array([{}], dtype=object))
    with pytest.raises(TraceError, match="without object arrays"):
        load_golden(path)


def test_no_meta(tmp_path: Path) -> None:
    arrays = arrays_of(TINY)
    del arrays["meta"]
    with pytest.raises(TraceError, match="no array 'meta'; it must be a single string"):
        load_golden(saved(tmp_path, arrays))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (np.array("policy: v2"), "'meta' is not JSON .*; it must hold a JSON object"),
        (np.array("[1, 2]"), "'meta' holds a JSON list; it must hold a JSON object"),
        (np.arange(2), r"'meta' is int64 of shape \(2,\); it must be a single string"),
        (np.array('{"name": "x"}'), "unknown kind of trace: 'meta' has name; expected 'policy'"),
        (np.array("{}"), "unknown kind of trace: 'meta' has no keys; expected 'policy'"),
    ],
)
def test_bad_meta(tmp_path: Path, meta: np.ndarray, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        load_golden(saved(tmp_path, {**arrays_of(TINY), "meta": meta}))


def test_missing_meta_key(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="a spb trace without key in meta 'pin_modulus'"):
        load_golden(with_meta(tmp_path, pin_modulus=None))


@pytest.mark.parametrize(
    ("file", "column", "kind"),
    [
        ("spb_p_v2_gates_tiny", "visited", "spb"),
        ("p20_64m_fallback", "lst_off", "mainline"),
        ("p20_64m_fallback", "xf_pfn", "mainline"),
        ("p12_64m_pcp", "ck_pcp_stat", "mainline"),
        ("shrink_p17_throttle_timing", "call_left", "shrink"),
    ],
)
def test_missing_array(tmp_path: Path, file: str, column: str, kind: str) -> None:
    arrays = arrays_of(GOLDEN / f"{file}.npz")
    del arrays[column]
    with pytest.raises(TraceError, match=f"a {kind} trace without array '{column}'") as caught:
        load_golden(saved(tmp_path, arrays))
    assert caught.value.path == tmp_path / "trace.npz"


def test_columns_of_different_length(tmp_path: Path) -> None:
    arrays = arrays_of(TINY)
    arrays["visited"] = arrays["visited"][:-1]
    with pytest.raises(TraceError, match="'visited' has shape .* same number of rows"):
        load_golden(saved(tmp_path, arrays))


def test_floats_are_refused(tmp_path: Path) -> None:
    arrays = arrays_of(TINY)
    arrays["visited"] = arrays["visited"].astype(float)
    with pytest.raises(TraceError, match="'visited' is float64; golden traces hold integers only"):
        load_golden(saved(tmp_path, arrays))
