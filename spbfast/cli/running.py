"""The verb that simulates one point.

Owns `run` and its summary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.events import wanted_records
from spbfast.cli.options import ConfigArg, QuietOpt, SetOpt, app
from spbfast.text import text_table


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
    rows, silent = [], 0
    for name, cell in _last_values(dataset):
        if not cell.notnull().any():
            continue
        low, mid, high = (float(cell.quantile(q)) for q in (0.0, 0.5, 1.0))
        if "." in name and low == high == 0:
            silent += 1
        else:
            rows.append([name, *(f"{value:.10g}" for value in (low, mid, high))])
    note = f"\n({silent} counters stayed at 0)" if silent else ""
    return text_table(("at the end of the run", "min", "median", "max"), rows) + note


def _last_values(dataset: Any) -> Iterator[tuple[str, Any]]:
    """Scalars, last values of series, and counters one by one: name and values over replicates."""
    for name, var in dataset.data_vars.items():
        last = var.isel(time=-1) if "time" in var.dims else var
        if not set(last.dims) <= {"replicate", "counter"} or last.dtype.kind not in "iuf":
            continue
        if "counter" not in last.dims:
            yield str(name), last
            continue
        for counter in last["counter"].values.tolist():
            yield f"{name}.{counter}", last.sel(counter=counter)


def tell_caveats(dataset: Any) -> None:
    """Say what the runs of a dataset left out."""
    from spbfast.results.caveats import caveats

    for text in caveats(dataset):
        typer.echo(f"warning: {text}", err=True)
