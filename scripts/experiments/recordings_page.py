"""results/studies/recordings/README.md: what the open recordings hold, and how long pages live in them.

Owns the page's words and its tables: lifetimes by migratetype and order, with what is still held at the end
counted as right-censored (Kaplan and Meier 1958).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.live_loads import LOADS
from spbfast.fitting import memory_of
from spbfast.fitting.exponential_mixture import bin_edges, grouped_lives, kaplan_meier
from spbfast.fitting.page_lives import PageLives, lives_of
from spbfast.fitting.page_requests import PageRequests, read_page_events
from spbfast.observed import read_dump

FOLDER = Path(__file__).resolve().parents[2] / "results" / "studies" / "recordings"
AT_S = (0.0001, 0.001, 0.01, 0.1, 1.0, 5.0)
SHOWN_AS = ("0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "5 s")
TYPES = ("unmovable", "movable", "reclaimable")
LEAST_BLOCKS = 100  # of a row
LEAST_AT_RISK = 20  # of a cell
WORDS = {
    "tree": "a tree of small files that is written, compiled to bytecode, packed, read and removed",
    "huge": "anonymous memory, small and huge pages, freed in part and in whole; 2 s between rounds",
    "fork": "24 processes at a time, writing to memory, and TCP over the loopback; 2.5 s between rounds",
}
HEAD = """\
# Recordings of page allocations

Written by `scripts/recordings` from the captures beside this page; not edited by hand. Each holds every
`kmem:mm_page_alloc` and `kmem:mm_page_free` of {seconds} seconds on a virtual machine of {cpus} CPUs and
{memory} (Linux {kernel}, x86-64) under one load, and the tables of /proc before and after. Beside the load
ran the system itself and the recorder, whose own pages are among the events. Anyone may use them, under
this repository's licence (MIT).

```console
$ spbfast read results/studies/recordings/tree.spbcap
$ spbfast replay results/studies/recordings/tree.spbcap --policy v2
$ spbfast fit results/studies/recordings/tree.spbcap -o actors.yaml
```

[The page on formats](../../../docs/formats.md) says what is in a capture. These hold no names of tasks and
no command lines. `scripts/recordings run --to DIR` records the same loads on another machine.
"""
NOTE = """\
## How long blocks live

Share of blocks that are still held so long after they were handed out, by Kaplan and Meier's estimate:
blocks that were still held when the recording ended count as long as they were seen. A dash: fewer than
{least} blocks were seen for so long.
"""


def files() -> list[Path]:
    """The recordings, in the order of the loads."""
    return [FOLDER / f"{load}.spbcap" for load in LOADS]


def page(paths: Sequence[Path]) -> str:
    """The whole page."""
    recorded = [(path, events, lives_of(events)) for path in paths for events in [read_page_events(path)]]
    facts = read_dump(paths[0]).receipt.facts
    shortest = min(events.seconds for _, events, _ in recorded)
    lines = [
        HEAD.format(
            seconds=f"{shortest:.0f}",
            cpus=max(events.cpus for _, events, _ in recorded),
            memory=_memory(paths[0]),
            kernel=facts["capture: kernel"].partition("-")[0],
        ),
        "| recording | load | size | seconds | allocations | frees | lost | held at the end | of before |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(*each) for each in recorded),
        "",
        NOTE.format(least=LEAST_AT_RISK),
    ]
    for path, _, lives in recorded:
        lines += _lifetimes(path.stem, lives)
    return "\n".join(lines).rstrip("\n") + "\n"


def _memory(path: Path) -> str:
    """Memory of the machine, in whole GiB."""
    return f"{round(memory_of(path) / (1 << 30))} GiB"


def _row(path: Path, events: PageRequests, lives: PageLives) -> str:
    is_alloc = events.mt >= 0
    counts = (int(is_alloc.sum()), int((~is_alloc).sum()), events.lost, lives.nr_alive, lives.unknown_frees)
    size = f"{path.stat().st_size / 1e6:.2f} MB"
    cells = [f"[{path.name}]({path.name})", WORDS[path.stem], size, f"{events.seconds:.1f}"]
    return "| " + " | ".join([*cells, *(f"{n:,}" for n in counts)]) + " |"


def _lifetimes(name: str, lives: PageLives) -> list[str]:
    rows = []
    known = np.isfinite(lives.seconds)
    for mt, title in enumerate(TYPES):
        for order in range(int(lives.order.max(initial=0)) + 1):
            chosen = (lives.mt == mt) & (lives.order == order)
            if chosen.sum() >= LEAST_BLOCKS:
                told = chosen & known
                cells = _survival(lives.seconds[told], lives.ended[told])
                ended = f"{lives.ended[told].mean():.1%}"
                rows.append(f"| {title} | {order} | {int(chosen.sum()):,} | {ended} | {' | '.join(cells)} |")
    return [
        f"### {name}",
        "",
        f"| type | order | blocks | freed | {' | '.join(SHOWN_AS)} |",
        "|---|---|---|---|" + "---|" * len(AT_S),
        *rows,
        "",
    ]


def _survival(seconds: np.ndarray, ended: np.ndarray) -> list[str]:
    """Shares still held after `AT_S`, as text."""
    survival, at_risk = kaplan_meier(grouped_lives(seconds, ended, np.zeros(len(seconds), np.int64)))
    upper = bin_edges()
    out = []
    for at in AT_S:
        i = int(np.searchsorted(upper, at * 0.999))
        out.append(f"{survival[i]:.3f}" if at_risk[i] >= LEAST_AT_RISK else "-")
    return out
