"""Ready-made jobs and machines: the files of configs/, found wherever spbfast is installed.

A wheel carries them inside the package; in a source tree they lie beside it. A job is named by its file's
stem (`spbfast run quickstart`), a file to extend by its path below configs/ (`extends: base/devvm.yaml`). A
file of the user's always comes first.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def ready_made_dir() -> Path | None:
    """The folder of ready-made files, or None where neither wheel nor source tree brought it."""
    beside = PACKAGE.parent / "configs"
    for folder in (PACKAGE / "configs", beside if (PACKAGE.parent / "pyproject.toml").is_file() else None):
        if folder is not None and (folder / "base").is_dir():
            return folder
    return None


def ready_made_jobs() -> dict[str, Path]:
    """Ready-made jobs by name, in alphabetical order."""
    folder = ready_made_dir()
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def job_file(given: Path) -> Path:
    """The file that a user means: one that exists, else the ready-made job of that bare name."""
    if given.exists() or len(given.parts) != 1 or given.suffix:
        return given
    return ready_made_jobs().get(given.name, given)


def file_to_extend(beside: Path, given: str) -> Path:
    """The file that `extends` names: beside the configuration, else the ready-made one of that path."""
    folder = ready_made_dir()
    if beside.exists() or folder is None:
        return beside
    shipped = (folder / given).resolve()
    return shipped if shipped.is_relative_to(folder.resolve()) and shipped.is_file() else beside
