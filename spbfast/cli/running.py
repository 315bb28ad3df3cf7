"""The verb that simulates one point.

Owns `run`. Prints; computes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.events import wanted_records
from spbfast.cli.options import ConfigArg, QuietOpt, SetOpt, app


@app.command("run")
def run_command(
    config: ConfigArg,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="write the dataset (netCDF) here")
    ] = None,
    set_: SetOpt = None,
    records: Annotated[
        str | None,
        typer.Option("--records", metavar="KIND,..", help="record these kinds of events, or all, in FILE"),
    ] = None,
    quiet: QuietOpt = False,
) -> None:
    """Run the configuration's own point, all replicates, and print a summary."""
    from spbfast.config import load_config

    job = load_config(config, set_ or (), one_point=True)
    if output is not None and not output.parent.is_dir():
        raise typer.BadParameter(f"the directory {output.parent} does not exist", param_hint="--output")
    kinds = wanted_records(job, records, output)
    from spbfast.model.engine import MODEL_VERSION, run_replicate
    from spbfast.outputs.rundata import dataset_of

    runs = [
        run_replicate(
            job.scenario,
            job.seed,
            replicate,
            snapshots=job.output.level == "spb",
            records=kinds,
            records_max=job.output.records_max,
        )
        for replicate in range(job.replicates)
    ]
    dataset = dataset_of(runs, job.seed, MODEL_VERSION)
    if not quiet:
        typer.echo(_summary(dataset))
    tell_caveats(dataset)
    if output is not None:
        from spbfast.results.records import write_run

        write_run(output, dataset, [run.records for run in runs])
        _report_dropped(runs)
        typer.echo(str(output))


def _report_dropped(runs: Any) -> None:
    """Say which records found no room."""
    for name in runs[0].records:
        dropped = sum(run.records[name].dropped for run in runs)
        if dropped:
            typer.echo(f"{name}: {dropped} records dropped; raise output.records_max", err=True)


def _summary(dataset: Any) -> str:
    """Each quantity at the end of the run: least, median and greatest of the replicates."""
    lines = [f"{'at the end of the run':<44} {'min':>14} {'median':>14} {'max':>14}"]
    silent = 0
    for name, var in dataset.data_vars.items():
        last = var.isel(time=-1) if "time" in var.dims else var
        extra = [d for d in last.dims if d not in ("replicate", "counter")]
        if extra or last.dtype.kind not in "iuf":
            continue
        rows = last.stack(row=[d for d in last.dims if d != "replicate"]) if last.ndim > 1 else last
        cells = rows.transpose("row", ...) if "row" in rows.dims else [rows]
        for cell in cells:
            label = cell.coords["row"].item() if "row" in cell.coords else ()
            shown = ".".join([str(name), *(str(part) for part in label)])
            if not cell.notnull().any():
                continue
            low, mid, high = (float(cell.quantile(q)) for q in (0.0, 0.5, 1.0))
            if label and low == high == 0:
                silent += 1
                continue
            lines.append(f"{shown:<44} {low:>14.10g} {mid:>14.10g} {high:>14.10g}")
    if silent:
        lines.append(f"({silent} counters stayed at 0)")
    return "\n".join(lines)


def tell_caveats(dataset: Any) -> None:
    """Say what the runs of a dataset left out."""
    from spbfast.results.caveats import caveats

    for text in caveats(dataset):
        typer.echo(f"warning: {text}", err=True)
