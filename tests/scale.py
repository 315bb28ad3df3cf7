"""What the engine itself costs: `python -m tests.scale [POINTS] [KIND]` runs that many trivial points.

Prints seconds and memory of each step; the fake runs take next to nothing, so all of it is overhead. A third
argument is the seconds of CPU that each run burns without the interpreter's lock; then the share of the time
that workers spent in runs is printed.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from spbfast.config import load_config
from spbfast.results.open import open_results
from spbfast.sweep import make_plan, run_sweep
from spbfast.sweep.pools.limits import usable_cpus
from tests.sweep_tools import write_job


def peak_mb() -> float:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def job_of(directory: Path, points: int, kind: str, level: str) -> object:
    """A job of about that many points."""
    # Two lists, because one of a hundred thousand values takes the YAML parser longer than the sweep.
    side = max(1, int(points**0.5))
    targets = ", ".join(str(100_000 + i) for i in range(side))
    throttles = ", ".join(f"{1 + i}ms" for i in range(-(-points // side)))
    sweep = f"sweep: {{grid: {{policy.slab_shrink_target_objs: [{targets}], "
    sweep += f"policy.slab_shrink_throttle: [{throttles}]}}}}\n"
    config = write_job(directory, sweep=sweep, replicates=1)
    return load_config(config, [f"executor.kind={kind}", f"output.level={level}"])


def main(points: int = 10_000, kind: str = "threads", burn_s: float = 0.0) -> dict[str, float]:
    """Run and print."""
    found: dict[str, float] = {"points": points}
    with tempfile.TemporaryDirectory() as root:
        os.environ["SPBFAST_FAKE_BURN"] = str(burn_s)
        directory = Path(root)
        mark = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal mark
            now = time.perf_counter()
            found[name] = now - mark
            print(f"{name:<28} {now - mark:10.2f} s   peak {peak_mb():6.0f} MB", flush=True)
            mark = time.perf_counter()

        job = job_of(directory, points, kind, "summary")
        lap("load")
        make_plan(job, 1)
        lap("plan")
        cpu = time.process_time()
        outcome = run_sweep(job, directory / "out", engine="tests.trivial_engine", quiet=True)
        found["cpu_s"] = time.process_time() - cpu
        lap("sweep")
        assert (outcome.n_failed, outcome.n_missing) == (0, 0)
        found["peak_mb"] = peak_mb()
        shards = sum(1 for _ in (directory / "out" / "shards").glob("??/*.nc"))
        run_sweep(job, directory / "out", engine="tests.trivial_engine", quiet=True)
        lap("resume, nothing to do")
        with open_results(directory / "out") as ds:
            found["in_runs"] = float(ds.wall_time.sum())
        lap("open_results, imports")
        with open_results(directory / "out"):
            pass
        lap("open_results")
    points = outcome.n_runs
    found["ms_per_point"] = 1000 * found["sweep"] / points
    print(f"{found['ms_per_point']:.3f} ms per point, {shards} shards, {found['cpu_s']:.1f} s of CPU")
    if burn_s:
        slots = found["in_runs"] / usable_cpus() / found["sweep"]
        share = points * burn_s / found["cpu_s"]
        print(f"workers were in a run {100 * slots:.1f} % of the time,")
        print(f"with {100 * share:.1f} % of the process's CPU time")
    return found


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 10_000,
        sys.argv[2] if len(sys.argv) > 2 else "threads",
        float(sys.argv[3]) if len(sys.argv) > 3 else 0.0,
    )
