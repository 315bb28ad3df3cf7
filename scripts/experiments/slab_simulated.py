"""The tree of scripts/slab_measured simulated: what reclaim frees of it, and which slab pages come back.

Owns the machine: two caches as the running kernel has them, one superblock, page cache that fills memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config import load_config
from spbfast.model.engine import run_replicate

CORRELATIONS = (1.0, 0.98, 0.95, 0.9, 0.5)  # slab.age_correlation
REPLICATES = 3
INODE, DENTRY = 16384 / 14, 4096 / 21  # bytes of an object, its share of a slab's waste included
JOB = """\
duration: 20s
policy: mainline
machine: {{memory: 4GiB, cpus: 2}}
reclaim: {{shrink_slab: classic, kswapd_wake: high}} # as a kernel without CONFIG_LRU_GEN_ENABLED
slab:
  caches:
    - {{name: ext4_inode_cache, role: inode, object_size: 1128B, order: 2}}
    - {{name: dentry, role: dentry, object_size: 192B, order: 0}}
  superblocks: 1
  memcgs: 1
  dentries_per_inode: 1.0
  inodes_held_by_page_cache: 0.0 # the files are empty
  age_correlation: {correlation}
  objects_max: 4000000
output: {{level: series, every: 100ms}}
actors:
  - {{kind: reclaimable_statics, total: {total}B}}
  - {{kind: page_cache, rate: 500MB/s, read_once: 1.0, dropped: 0.0, folio_weights: [1]}}
"""


def simulated(files: int) -> dict[str, list[list[float]]]:
    """By `slab.age_correlation`: shares of objects freed and of pages that came back, of all replicates."""
    out: dict[str, list[list[float]]] = {}
    for correlation in CORRELATIONS:
        rows: list[list[float]] = []
        for replicate in range(REPLICATES):
            rows += _shares(files, correlation, replicate)
        out[str(correlation)] = sorted(rows)
    return out


def _shares(files: int, correlation: float, replicate: int) -> list[list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(JOB.format(correlation=correlation, total=round(files * (INODE + DENTRY))))
        data: Any = run_replicate(load_config(path).scenario, 1, replicate).data
    objects, pages = data["slab_objects"], data["slab_pages"]
    shares = np.stack([1 - objects / objects[0], 1 - pages / pages[0]], axis=1)
    return [[round(float(x), 5) for x in row] for row in np.unique(shares, axis=0)]
