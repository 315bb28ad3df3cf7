"""Whether worker processes may import the user's script again, as Python's own spawning makes them do.

A script without a main guard starts its sweep anew in each worker. Python's own words for that name no file.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

from spbfast.errors import ConfigError

GUARD = 'if __name__ == "__main__":'


def check_main_guard(main: ModuleType | None = None) -> None:
    """Refuse a script that worker processes would run from its first line to the same sweep.

    Raises
    ------
    ConfigError
        Naming the script and the guard.
    """
    path = _imported_again(main or sys.modules["__main__"])
    if path is None or _has_guard(path):
        return
    raise ConfigError(
        f"{path}: executor.kind: processes starts this script again in each worker, and it has no main "
        f"guard; put the call of sweep() under  {GUARD}  or use executor.kind: threads"
    )


def _imported_again(main: ModuleType) -> Path | None:
    """The file that a spawned process imports as its main module, if there is one."""
    name = getattr(main.__spec__, "name", "") if getattr(main, "__spec__", None) else ""
    file = getattr(main, "__file__", None)
    if file is None or name == "__main__" or name.endswith(".__main__"):
        return None
    return Path(file)


def _has_guard(path: Path) -> bool:
    """Whether a script asks for its name, or cannot be read, which is for others to say."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.If)]
    return any(isinstance(n, ast.Name) and n.id == "__name__" for test in tests for n in ast.walk(test))
