"""How fragmented free memory is: four scores in use in different communities, from free blocks by order.

Owns the formulas, as plain functions of an array whose last axis is the order, and one that applies all four
to a dataset. Needs neither a machine nor a run: counts can come from a Zone, a dataset or /proc/buddyinfo.
The first two are ratios of counts; the third and fourth use the kernel's whole-number arithmetic, so that
they equal what a kernel prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spbfast.constants import NR_ORDERS, PB_ORDER, PB_PAGES
from spbfast.errors import QuestionError
from spbfast.freeindex import fragmentation_thousandths
from spbfast.text import quote_value

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike

EXTFRAG_THRESHOLD = 0.5  # vm.extfrag_threshold 500: at or below, lack of memory; above, fragmentation
SUITABLE = -1.0
PROACTIVENESS = 20  # vm.compaction_proactiveness
LEAST_LOW_MARK = 5


def free_huge_share(free_blocks: ArrayLike) -> np.ndarray:
    """Free 2 MiB frames as a share of those that the free memory could make: free_huge / (free >> 9).

    Parameters
    ----------
    free_blocks : array_like
        Free blocks, shape [..., order], orders 0..10.

    Returns
    -------
    ndarray
        Shape [...], 0..1; NaN where less than one frame is free.

    Notes
    -----
    The score of LLFree's fragmentation benchmark.
    """
    blocks = _blocks(free_blocks)
    frames = _free_pages(blocks) // PB_PAGES
    return _ratio(_usable_pages(blocks, PB_ORDER) // PB_PAGES, frames)


def unusable_free_index(free_blocks: ArrayLike, order: int = PB_ORDER) -> np.ndarray:
    """Share of the free memory that a request of an order cannot use: (free - usable) / free.

    Parameters
    ----------
    free_blocks : array_like
        Free blocks, shape [..., order], orders 0..10.
    order : int
        Order of the request.

    Returns
    -------
    ndarray
        Shape [...], 0 (all usable) to 1; NaN where nothing is free.

    Notes
    -----
    /sys/kernel/debug/extfrag/unusable_index, which prints 1 where nothing is free.
    """
    blocks = _blocks(free_blocks)
    free = _free_pages(blocks)
    return _ratio(free - _usable_pages(blocks, _order(order)), free)


def extfrag_index(free_blocks: ArrayLike, order: int = PB_ORDER) -> np.ndarray:
    """Why a request of an order would fail: towards 0 for lack of memory, towards 1 for fragmentation.

    Parameters
    ----------
    free_blocks : array_like
        Free blocks, shape [..., order], orders 0..10.
    order : int
        Order of the request.

    Returns
    -------
    ndarray
        Shape [...]; -1 where the request would succeed, 0 where nothing is free. Compaction is tried
        above `EXTFRAG_THRESHOLD`.

    Notes
    -----
    /sys/kernel/debug/extfrag/extfrag_index (fragmentation_index of mm/vmstat.c), in thousandths there.
    """
    blocks = _blocks(free_blocks)
    nr = blocks.sum(axis=-1)
    thousandths = fragmentation_thousandths(_free_pages(blocks), np.maximum(nr, 1), _order(order))
    index = np.where(_usable_pages(blocks, order) > 0, SUITABLE, thousandths / 1000)
    return np.where(nr == 0, 0.0, index)


def proactive_score(free_blocks: ArrayLike) -> np.ndarray:
    """What proactive compaction looks at: percent of the free memory that is no whole 2 MiB frame.

    Parameters
    ----------
    free_blocks : array_like
        Free blocks of one zone, shape [..., order], orders 0..10. A node's score is the mean of those of its
        zones, weighted by their present pages.

    Returns
    -------
    ndarray
        Shape [...], whole numbers 0..100; 0 where nothing is free. See `proactive_marks`.

    Notes
    -----
    fragmentation_score_zone of mm/compaction.c, asked every 500 ms.
    """
    blocks = _blocks(free_blocks)
    free = _free_pages(blocks)
    loose = free - _usable_pages(blocks, PB_ORDER)
    return np.where(free == 0, 0, loose * 100 // np.maximum(free, 1))


def proactive_marks(proactiveness: int = PROACTIVENESS) -> tuple[int, int]:
    """Scores at which proactive compaction stops and starts.

    Parameters
    ----------
    proactiveness : int
        vm.compaction_proactiveness, 0..100.

    Raises
    ------
    QuestionError
        When it is outside 0..100.
    """
    if not 0 <= proactiveness <= 100:
        raise QuestionError(f"proactiveness must be 0..100, got {proactiveness}")
    low = max(100 - proactiveness, LEAST_LOW_MARK)
    return low, min(low + 10, 100)


def fragmentation_scores(ds: xr.Dataset, order: int = PB_ORDER) -> xr.Dataset:
    """All four scores of a run's free blocks.

    Parameters
    ----------
    ds : Dataset
        With the variable `free_blocks` along the dimension order, as `simulate` and `open_results` give it.
    order : int
        Order of the request that the unusable-free and extfrag indices speak of.

    Returns
    -------
    Dataset
        free_huge_share, unusable_free_index, extfrag_index, proactive_score along the other dimensions.

    Raises
    ------
    QuestionError
        When there are no free blocks by order in the dataset.
    """
    import xarray as xr

    if not isinstance(ds, xr.Dataset):
        raise QuestionError(f"needs a dataset, as simulate and open_results give it; got {quote_value(ds)}")
    if "free_blocks" not in ds or "order" not in ds["free_blocks"].dims:
        raise QuestionError("the dataset has no variable free_blocks along the dimension order")
    blocks = ds["free_blocks"]
    known = {
        "free_huge_share": (free_huge_share, {}, "free 2 MiB frames / frames that free memory could make"),
        "unusable_free_index": (unusable_free_index, {"order": order}, "share of free memory unusable"),
        "extfrag_index": (extfrag_index, {"order": order}, "0 lack of memory, 1 fragmentation, -1 suitable"),
        "proactive_score": (proactive_score, {}, "percent of free memory in no whole 2 MiB frame"),
    }
    out = xr.Dataset()
    for name, (function, options, text) in known.items():
        score = xr.apply_ufunc(function, blocks.fillna(0), input_core_dims=[["order"]], kwargs=options)
        out[name] = score.where(blocks.notnull().all("order"))
        out[name].attrs = {"long_name": text, "units": "%" if name == "proactive_score" else "1"}
        if options:
            out[name].attrs["request_order"] = order
    return out


def _blocks(free_blocks: ArrayLike) -> np.ndarray:
    """Free blocks as int64 [..., order].

    Raises
    ------
    QuestionError
        When the last axis is not the orders 0..10, or a count is negative.
    """
    blocks = np.asarray(free_blocks)
    if blocks.ndim == 0 or blocks.shape[-1] != NR_ORDERS:
        raise QuestionError(f"free_blocks needs {NR_ORDERS} orders along its last axis, got {blocks.shape}")
    blocks = blocks.astype(np.int64)
    if (blocks < 0).any():
        raise QuestionError("free_blocks has negative counts")
    return blocks


def _order(order: int) -> int:
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or not 0 <= order < NR_ORDERS:
        raise QuestionError(f"order must be 0..{NR_ORDERS - 1}, got {quote_value(order)}")
    return order


def _free_pages(blocks: np.ndarray) -> np.ndarray:
    return (blocks << np.arange(NR_ORDERS)).sum(axis=-1)


def _usable_pages(blocks: np.ndarray, order: int) -> np.ndarray:
    return _free_pages(np.where(np.arange(NR_ORDERS) >= order, blocks, 0))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    missing: Any = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=missing, where=whole > 0)
