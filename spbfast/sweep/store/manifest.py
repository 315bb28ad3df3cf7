"""The manifest of a results directory: who made it, from what and with what.

Owns the manifest, the identity that all results of one directory share, and the differences that are shown
when two jobs do not fit together. Writes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from spbfast.config import presets
from spbfast.config.messages import writer_at
from spbfast.config.models import ScenarioFields
from spbfast.sweep.points.plan import Plan, PlannedPoint
from spbfast.sweep.store.atomic import hostname
from spbfast.text import format_value, valid_text

FORMAT = 2
# A difference in one of these makes results incomparable.
IDENTITY = ("format", "model_version", "root_seed", "output_level")
POINTS_READ = 256
# What a manifest says of the start that its plan comes from, and its history of every start.
ORIGIN = (
    *("config_path", "overrides", "grid", "command", "host", "cpu", "python", "versions", "git_sha"),
    "git_dirty",
)
PACKAGES = ("spbfast", "numba", "numpy", "xarray", "netCDF4", "distributed")


def resolved_point(point: PlannedPoint) -> dict[str, Any]:
    """What a point sets, as plain values."""
    return {
        "point_id": f"{point.point_id:016x}",
        "baseline": point.baseline,
        "values": point.values,
    }


def diff_trees(old: Any, new: Any, path: str = "") -> list[str]:
    """Leaves that differ between two trees, one line each."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [
            line
            for k in keys
            for line in diff_trees(old.get(k), new.get(k), f"{path}.{k}" if path else str(k))
        ]
    return [] if old == new else [f"{path}: {_written(path, old)} there, {_written(path, new)} now"]


def _written(path: str, value: Any) -> str:
    """A value of the resolved scenario as a file would write it."""
    write = writer_at(ScenarioFields, path.split(".")) if path else None
    return write(value) if write is not None and isinstance(value, int) else json.dumps(value)


def identity(plan: Plan) -> dict[str, Any]:
    """The settings that all results of one directory share."""
    return {
        "format": FORMAT,
        "model_version": plan.model_version,
        "root_seed": plan.seed,
        "output_level": plan.level,
    }


def plan_digest(plan: Plan) -> str:
    """16 hex digits over the points in their order and the replicates."""
    digest = hashlib.blake2b(str(plan.replicates).encode(), digest_size=8)
    digest.update(plan.ids.tobytes())
    return digest.hexdigest()


def make_manifest(plan: Plan, job: Any, command: str, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Who made these results, from what and with what.

    Parameters
    ----------
    old : mapping, optional
        The manifest of a directory that is continued. What it says of its plan stays; only another plan has
        another command and origin. The history gets one more entry either way.
    """
    made = {
        **identity(plan),
        "name": plan.name,
        "n_points": len(plan.points),
        "replicates": plan.replicates,
        "plan": plan_digest(plan),
        "patches_off": patches_left_off(plan),
        "spb_sizes": superpageblock_sizes(plan),
        **_branch(plan),
        **({} if plan.stop_rule is None else {"replicates_min": plan.stop_rule.spec.min}),
        **_origin(job, command),
    }
    text = str(job.source_text or "")
    entry = {"at": made["created"], **{k: made[k] for k in ORIGIN}, "config_sha": _sha(text)}
    past = list((old or {}).get("history") or ([_first_entry(old)] if old else []))
    if not past or past[-1].get("config_sha") != entry["config_sha"]:
        entry["config"] = text
    if old is not None:
        kept = ("created", *ORIGIN) if old.get("plan") == made["plan"] else ("created",)
        made |= {k: old[k] for k in kept if k in old}
        if _is_stored(job) and "config_path" in old:
            made["config_path"] = old["config_path"]
    return made | {"history": [*past, entry]}


def patches_left_off(plan: Plan) -> list[int]:
    """Modelled patches up to its step that the policy of any point leaves off; of many points the first."""
    found: set[int] = set()
    for index in range(min(len(plan.points), POINTS_READ)):
        policy = plan.scenario(index).policy
        found.update(presets.patches_off(vars(policy), policy.preset))
    return sorted(found)


def superpageblock_sizes(plan: Plan) -> list[int]:
    """Bytes of a superpageblock, and so of a gigantic page, in any point; of many points the first."""
    sizes = {plan.scenario(i).machine.spb_size for i in range(min(len(plan.points), POINTS_READ))}
    return sorted(sizes)


def _origin(job: Any, command: str) -> dict[str, Any]:
    return {
        "config_path": str(job.path or ""),
        "overrides": list(job.overrides),
        "grid": list(job.grid_overrides),
        "command": command,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": hostname(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        **_git(),
    }


def _first_entry(old: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of a directory whose manifest has no history yet."""
    return {"at": old.get("created", ""), **{k: old[k] for k in ORIGIN if k in old}}


def _is_stored(job: Any) -> bool:
    """Whether the job was read from a results directory, where its file is a copy that extends nothing."""
    return bool(job.path) and (Path(job.path).parent / "manifest.json").is_file()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def history_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Every start that did something, the first first: when and with which command."""
    past = manifest.get("history") or [_first_entry(manifest)]
    return [f"{entry.get('at', '')} {entry.get('command', '')}".strip() for entry in past]


def origin_attrs(manifest: Mapping[str, Any], config_yaml: str) -> dict[str, Any]:
    """Who made a file from what and with what, as attributes of a netCDF file."""
    versions = manifest["versions"]
    attrs = {
        "Conventions": "CF-1.11",
        "title": f"spbfast sweep {manifest['name']}",
        "source": f"spbfast {versions['spbfast']}, model version {manifest['model_version']}",
        "history": "\n".join(history_lines(manifest)),
        "name": manifest["name"],
        "spbfast_version": versions["spbfast"],
        "model_version": manifest["model_version"],
        "root_seed": str(manifest["root_seed"]),
        "config_yaml": config_yaml,
        "config_sha": _sha(config_yaml) if config_yaml else "",
        "overrides": " ".join(manifest.get("overrides", ())),
        "git_sha": manifest["git_sha"],
        "git_dirty": str(manifest["git_dirty"]).lower(),
        "python_version": manifest["python"],
        "numba_version": versions["numba"],
        "numpy_version": versions["numpy"],
        "hostname": manifest["host"],
        "cpu": manifest["cpu"],
        "created": manifest["created"],
        "command": manifest["command"],
        "patches_left_off": " ".join(f"{patch:02}" for patch in manifest.get("patches_off", ())),
        "superpageblock_size": ", ".join(format_value(n, "byte") for n in manifest.get("spb_sizes", ())),
        "output_level": manifest["output_level"],
        "page_size": 4096,
    }
    return {k: valid_text(v) if isinstance(v, str) else v for k, v in attrs.items()}


def kept_replicates(manifest: Mapping[str, Any]) -> int:
    """Replicates that results.nc has: those of the job, or more where more were finished before."""
    return max(int(manifest["replicates"]), int(manifest.get("replicates_kept", 0)))


def _branch(plan: Plan) -> dict[str, Any]:
    """Where the points leave the run that they share; nothing if they share none."""
    if plan.branch is None:
        return {}
    return {"branch_at_s": plan.branch.at / 1e9, "keep_states": plan.keeps_states}


def _version(name: str) -> str:
    if name == "spbfast":
        import spbfast

        return spbfast.__version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git() -> dict[str, Any]:
    """Commit of the source tree this package runs from, if it is one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return {"git_sha": "", "git_dirty": False}

    def ask(*args: str) -> str:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10)
            return done.stdout.strip() if done.returncode == 0 else ""
        return ""

    sha = ask("rev-parse", "HEAD")
    return {"git_sha": sha, "git_dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def default_command() -> str:
    """This process's command line, for provenance and the resume hint."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv and sys.argv[0] else "python"
