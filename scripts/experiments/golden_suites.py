"""The golden suites: every recorded trace replayed, counted by kind and by step of the series.

Owns the finding of the files (tests/golden and $SPBFAST_GOLDEN_DIR) and the counts; replaying is verify.py's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.finding import Experiment, Finding, verdict
from experiments.machines import configs
from spbfast.config import presets
from spbfast.verify.golden import load_golden
from spbfast.verify.verdicts import EXIT_OK, verify_file


def files() -> list[Path]:
    """All traces there are, each name once."""
    folders = [configs().parent / "tests" / "golden"]
    if more := os.environ.get("SPBFAST_GOLDEN_DIR"):
        folders.append(Path(more))
    found = {path.name: path for folder in folders for path in sorted(folder.glob("*.npz"))}
    return [found[name] for name in sorted(found)]


def run(quick: bool) -> dict[str, Any]:
    """Replay them; `quick` takes every tenth."""
    chosen = files()[::10] if quick else files()
    kinds: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    same: Counter[str] = Counter()
    events = 0
    different = []
    for path in chosen:
        golden = load_golden(path)
        kinds[golden.kind] += 1
        events += golden.nr_events
        if golden.kind == "spb":
            stages[str(golden.meta["stage"])] += 1
        done = verify_file(path)
        if done.code == EXIT_OK:
            same[golden.kind] += 1
        else:
            different.append(done.text)
    return {
        "files": len(chosen),
        "events": events,
        "kinds": dict(kinds),
        "identical": dict(same),
        "stages": dict(stages),
        "different": different,
    }


def _stages() -> list[str]:
    """The presets that have superpageblocks: mainline's own traces cover the others."""
    return [name for name in presets.ladder() if presets.preset_values(name)["superpageblocks"]]


def judge(numbers: Mapping[str, Any]) -> list[Finding]:
    """All identical, and all steps of the series among them."""
    out = []
    names = {"mainline": "Linux 6.19 allocator", "spb": "superpageblock semantics", "shrink": "slab shrink"}
    for kind, nr in sorted(numbers["kinds"].items()):
        same = numbers["identical"].get(kind, 0)
        out.append(
            Finding(
                f"traces of the {names.get(kind, kind)}",
                "identical, event by event",
                f"{same} of {nr}",
                verdict(same == nr),
                "; ".join(text.split("\n")[0] for text in numbers["different"]) if same < nr else "exact",
            )
        )
    steps = _stages()
    covered = {stage.replace("_", "@") for stage in numbers["stages"]}
    missing = [name for name in steps if name not in covered]
    out.append(
        Finding(
            "steps of the series among them",
            ", ".join(steps),
            f"{len(steps) - len(missing)} of {len(steps)}",
            verdict(not missing),
            f"without a trace: {', '.join(missing)}" if missing else "every preset's step has traces",
        )
    )
    return out


def tables(numbers: Mapping[str, Any]) -> list[str]:
    """Files by step of the series."""
    stages = {name: numbers["stages"].get(name.replace("@", "_"), 0) for name in _stages()}
    shown = ", ".join(f"{name} {nr}" for name, nr in stages.items())
    return [
        "",
        f"{numbers['files']} files, {numbers['events']:,} events. Traces by step of the series: {shown}.",
    ]


EXPERIMENT = Experiment(
    "golden",
    "Golden suites",
    "Every trace in `tests/golden`, and in `$SPBFAST_GOLDEN_DIR` where that is set, is replayed and "
    "compared event by event, checkpoint by checkpoint. Mainline and shrink traces were recorded from the "
    "kernel's own code; superpageblock traces pin a written reading of the series, so an identical one "
    "means the same rules.",
    run,
    judge,
    tables,
)
