"""Golden traces: npz files that fix, event by event, what the allocator must do.

Owns the reading and checking of these files. There are three kinds, told apart by the content of their `meta`
and never by the file name: `mainline` (the page allocator of Linux, with or without per-CPU lists), `spb`
(superpageblock policies) and `shrink` (the slab-shrink worker). Replaying is in replay_zone.py and
replay_shrink.py; the slow twin is in tests/reference.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import TraceError
from spbfast.places import as_path, open_to_read, parsed_json

KIND_MARKERS = {"policy": "spb", "throttle_ms": "shrink", "level": "mainline"}

_EVENTS = {
    "mainline": ("op", "handle", "order", "mt", "flags", "pfn"),
    "spb": (
        *("op", "handle", "order", "mt", "flags", "arg", "pfn", "outcome", "visited", "visited_fallback"),
        *("tainted", "requests", "n_defrag", "moved", "n_same_type", "n_pageblocks"),
    ),
    "shrink": ("op", "time", "node", "shr", "memcg", "count", "ref_num", "ref_den", "result"),
}
_CHECKPOINTS = {
    "mainline": ("ck_at", "ck_nr_free", "ck_list_hash", "ck_pb", "ck_stat"),
    "spb": (
        *("ck_at", "ck_category", "ck_bucket", "ck_pos", "ck_free_pageblocks", "ck_free_pages"),
        *("ck_content_pageblocks", "ck_exact_pageblocks", "ck_used_pages", "ck_pb_label", "ck_pb_bits"),
        *("ck_nr_free", "ck_list_hash", "ck_hint"),
    ),
    "shrink": (),
}
_PCP_CHECKPOINTS = ("ck_pcp_len", "ck_pcp_hash", "ck_pcp_stat")
_EXTFRAG = (
    *("xf_event", "xf_pfn", "xf_alloc_order", "xf_fallback_order", "xf_alloc_mt", "xf_fallback_mt"),
    *("xf_change_ownership", "xf_fragmenting"),
)
_OTHERS = {
    "mainline": ("lst_ck", "lst_off", "lst_pfn"),
    "spb": ("mv_event", "mv_handle", "mv_pfn"),
    "shrink": (
        *("memcg_online", "has_wq", "s_aware", "s_numa", "s_batch", "s_seeks", "s_crule", "s_srule"),
        *("s_num", "s_den", "s_pct"),
        *("run_event", "run_node", "run_passes", "run_last_prio", "run_freed", "run_scanned"),
        *("run_counts", "run_calls"),
        *("call_run", "call_prio", "call_memcg", "call_shr", "call_freeable", "call_backlog", "call_delta"),
        *("call_target", "call_scanned", "call_freed", "call_backlog_after", "call_left"),
        *("end_objects", "end_backlog", "end_bit"),
    ),
}
_META_KEYS = {
    "mainline": ("zone_pages", "zone_start_pfn", "n_migratetypes", "pcp", "cma"),
    "spb": ("n_pageblocks", "pageblocks_per_superpageblock", "pin_modulus", "pin_remainder"),
    "shrink": ("n_memcgs", "n_nodes", "n_shrinkers"),
}


@dataclass(frozen=True)
class Golden:
    """One golden file.

    Attributes
    ----------
    path : Path
    kind : str
        'mainline', 'spb' or 'shrink'.
    meta : dict
        The file's JSON description: name, geometry, policy, counts.
    arrays : dict of str to ndarray
        Events, checkpoints and logs; integers widened to int64, list hashes left as uint64.  Pfns are
        relative to the zone start, in pages of 4 KiB; times are in ms.
    """

    path: Path
    kind: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """The trace's own name, or the file's if it has none."""
        return str(self.meta.get("name", self.path.stem))

    @property
    def nr_events(self) -> int:
        return len(self.arrays["op"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]


def load_golden(path: str | os.PathLike[str]) -> Golden:
    """Read and check one golden file.

    Parameters
    ----------
    path : str or path-like
        An npz file with a `meta` entry that holds JSON.

    Returns
    -------
    Golden

    Raises
    ------
    TraceError
        The file is absent, no npz, of no known kind, or lacks something its kind must have.
    """
    file = Path(path)
    arrays = _read_npz(file)
    meta = _parse_meta(file, arrays.pop("meta", None))
    kind = _kind_of(file, meta)
    _require(file, kind, "key in meta", _META_KEYS[kind], meta)
    _require(file, kind, "array", _required_arrays(kind, meta, arrays), arrays)
    _check_lengths(file, kind, arrays)
    return Golden(file, kind, meta, {name: _widen(file, name, array) for name, array in arrays.items()})


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    try:
        as_path(file)
    except OSError as error:
        raise TraceError(str(error.strerror), file) from None
    if not file.exists():
        raise TraceError("no such file; a golden trace is an .npz file", file)
    if not file.is_file():
        raise TraceError("not a file; name one .npz file, not a directory", file)
    try:
        # Opened here: numpy leaves a file open that begins like an archive and turns out to be none.
        with open_to_read(file) as stream:
            if not stream.peek(2).startswith((b"PK", b"\x93N")):
                raise TraceError("not an npz archive, as golden traces are; numpy.savez writes them", file)
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                with loaded as npz:
                    return {name: npz[name] for name in npz.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise TraceError(
            f"not a readable npz archive ({err}); write it with numpy.savez, without object arrays", file
        ) from err
    raise TraceError("a single .npy array; a golden trace is an .npz archive of named arrays", file)


def _parse_meta(file: Path, raw: np.ndarray | None) -> dict[str, Any]:
    if raw is None:
        raise TraceError("no array 'meta'; it must be a single string that holds a JSON object", file)
    if raw.ndim or raw.dtype.kind != "U":
        raise TraceError(
            f"'meta' is {raw.dtype} of shape {raw.shape}; "
            "it must be a single string that holds a JSON object",
            file,
        )
    try:
        meta = parsed_json(str(raw))
    except ValueError as err:
        raise TraceError(f"'meta' is not JSON ({err}); it must hold a JSON object", file) from err
    if not isinstance(meta, dict):
        raise TraceError(f"'meta' holds a JSON {type(meta).__name__}; it must hold a JSON object", file)
    return meta


def _kind_of(file: Path, meta: Mapping[str, Any]) -> str:
    for marker, kind in KIND_MARKERS.items():
        if marker in meta:
            return kind
    keys = ", ".join(sorted(meta)) or "no keys"
    raise TraceError(
        f"unknown kind of trace: 'meta' has {keys}; expected 'policy' (superpageblock trace), "
        "'throttle_ms' (shrink trace) or 'level' (mainline trace)",
        file,
    )


def _required_arrays(kind: str, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[str]:
    """Arrays the file must have; the fallback log is all there or, in throughput traces, all absent."""
    required = [*_EVENTS[kind], *_CHECKPOINTS[kind], *_OTHERS[kind]]
    if kind == "mainline":
        if meta["level"] == "pcp":
            required += [*_PCP_CHECKPOINTS, "lst_pcp_pfn"]
        if any(name in arrays for name in _EXTFRAG):
            required += _EXTFRAG
    return required


def _require(file: Path, kind: str, what: str, names: Iterable[str], there: Mapping[str, Any]) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        raise TraceError(
            f"a {kind} trace without {what} {', '.join(map(repr, missing))}; every {kind} trace must have it",
            file,
        )


def _check_lengths(file: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Event columns are as long as `op`, checkpoint columns as long as `ck_at`."""
    groups = [("op", _EVENTS[kind])]
    if _CHECKPOINTS[kind]:
        pcp = [name for name in _PCP_CHECKPOINTS if name in arrays]
        groups.append(("ck_at", (*_CHECKPOINTS[kind], *pcp)))
    for first, names in groups:
        rows = arrays[first].shape[:1]
        for name in names:
            if not rows or arrays[name].shape[:1] != rows:
                raise TraceError(
                    f"array {name!r} has shape {arrays[name].shape} and {first!r} {arrays[first].shape}; "
                    "both must have the same number of rows",
                    file,
                )


def _widen(file: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint64:
        return array
    if array.dtype.kind not in "iub":
        raise TraceError(f"array {name!r} is {array.dtype}; golden traces hold integers only", file)
    return array.astype(np.int64)
