"""Verbs that read results: the report and comparisons.

Owns `report` and `compare`. Never changes results.
"""

from __future__ import annotations

from typing import Annotated

import typer

from spbfast.cli.options import DirArg, app, build_report_page


@app.command()
def report(directory: DirArg) -> None:
    """Build report.html, one self-contained page, from a results directory."""
    build_report_page(directory)


@app.command()
def compare(
    directory: DirArg,
    by: Annotated[
        str | None, typer.Option("--by", metavar="KEY", help="the swept key, e.g. policy.slab_shrink")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="the variable to compare")] = "spb_tainted",
    at: Annotated[str, typer.Option("--at", help="end, peak, mean, or a time in seconds")] = "end",
) -> None:
    """Paired differences against the baseline, with confidence intervals."""
    from spbfast.results import compare as compare_results
    from spbfast.results import open_results

    coord = by.replace(".", "_") if by else None
    table = compare_results(open_results(directory), by=coord, metric=metric, at=moment(at)).to_dataframe()
    hidden = [name for name in ("point_id", "is_baseline", "in_grid") if name in table]
    typer.echo(f"{metric} at {at}")
    typer.echo(table.drop(columns=hidden).to_string(float_format="{:.6g}".format))


def moment(text: str) -> str | float:
    """What `--at` means: end, peak, mean, or a time in seconds."""
    if text in ("end", "peak", "mean"):
        return text
    try:
        return float(text)
    except ValueError:
        message = f"must be end, peak, mean, or a time in seconds such as 60; got {text!r}"
        raise typer.BadParameter(message, param_hint="--at") from None
