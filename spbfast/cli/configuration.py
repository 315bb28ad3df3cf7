"""Verbs about configurations: check them, explain their keys, print their schema.

Owns `validate`, `schema`, `presets` and `explain`. Nothing here imports the simulator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import SetOpt, app


@app.command()
def validate(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CFG...", help="configurations", show_default=False)
    ],
    set_: SetOpt = None,
) -> None:
    """Check configurations; print every error with file, line and column."""
    from spbfast.config import load_config
    from spbfast.errors import ConfigError

    failed = False
    for path in configs:
        try:
            job = load_config(path, set_ or ())
        except ConfigError as error:
            failed = True
            typer.echo(str(error), err=True)
        else:
            points = job.sweep.nr_points if job.sweep else 1
            memory = job.scenario.machine.memory
            shown = f"memory {memory} bytes = {memory / 2**30:.6g} GiB"
            typer.echo(f"{path}: ok ({points} points, {job.replicates} replicates, {shown})")
    raise typer.Exit(ConfigError.exit_code if failed else 0)


@app.command()
def schema() -> None:
    """Print the JSON schema of configurations, for editors."""
    from spbfast.config.schema import schema_text

    typer.echo(schema_text(), nl=False)


@app.command()
def presets() -> None:
    """List the policy presets and what each step of the series changes."""
    from spbfast.config.presets import preset_steps

    for name, changes in preset_steps():
        typer.echo(f"{name:<9} {changes}")


@app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="e.g. policy.slab_shrink_throttle", show_default=False)
    ] = None,
) -> None:
    """Explain a configuration key: meaning, unit, default per preset, source."""
    from spbfast.config import schema as schema_module

    if key is None:
        for doc in schema_module.key_docs():
            typer.echo(f"{doc.path:<48} {doc.text}")
        return
    typer.echo(schema_module.explain(key))
