"""The oldest versions that pyproject.toml declares, as constraints for pip: `python -m tests.floors`.

`scripts/test --oldest` installs them beside the newest ones and runs the quick tests with them.
"""

from __future__ import annotations

import re
import tomllib

from tests.imports import ROOT

# Their versions follow from those of the packages that come with them.
FOLLOWERS = frozenset({"llvmlite", "pydantic-core"})
_FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?>=([0-9.]+)")


def floors(section: str = "dependencies") -> dict[str, str]:
    """By package, the oldest version that is declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (_FLOOR.match(line) for line in project[section])
    return {match[1].lower(): match[2] for match in found if match}


def constraints() -> list[str]:
    """Lines of a constraints file: the newest patch of the oldest release, `1.15` as `1.15.*`."""
    return [f"{name}=={version}.*" for name, version in floors().items() if name not in FOLLOWERS]


if __name__ == "__main__":
    print("\n".join(constraints()))
