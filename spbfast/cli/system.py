"""Verbs about this installation: compile the kernels, print versions.

Owns `warmup` and `version`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from spbfast import __version__
from spbfast.cli.options import JsonOpt, app


@app.command()
def warmup() -> None:
    """Compile all kernels into the cache, so that the next run starts at once."""
    from spbfast.engine import warmup as compile_all

    typer.echo("compiling kernels (once per version) ...", err=True)
    typer.echo(f"ready after {compile_all():.1f} s")


@app.command()
def version(as_json: JsonOpt = False) -> None:
    """Print the versions of spbfast and of what its results depend on."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    found: dict[str, Any] = {"spbfast": __version__, "python": sys.version.split()[0]}
    for package in ("numba", "numpy", "xarray", "distributed", "netcdf4"):
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            found[package] = None
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n".join(f"{k} {v or 'not installed'}" for k, v in found.items()))
