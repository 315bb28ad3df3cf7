"""Verbs that simulate: one point, or a sweep.

Owns `run` and `sweep`. Prints; computes nothing.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.events import wanted_records
from spbfast.cli.options import EXIT_SOME_FAILED, ConfigArg, QuietOpt, SetOpt, app, build_report_page


@app.command()
def run(
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
    _tell_caveats(dataset)
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


@app.command()
def sweep(
    config: ConfigArg,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="results directory  [default: results/NAME]"),
    ] = None,
    set_: SetOpt = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", metavar="KEY=A,B", help="sweep a key, e.g. policy.slab_shrink_throttle=10ms,50ms"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="what it would cost; runs nothing, touches no file")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="with --dry-run: make short runs to learn their cost"),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="with --dry-run: machine-readable")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="run failed points again")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="stop at the first failed point")] = False,
    max_failures: Annotated[
        str | None,
        typer.Option("--max-failures", metavar="N|P%", help="stop when more runs than this have failed"),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", metavar="TIME", help="stop after e.g. 2h, with exit code 75"),
    ] = None,
    shard_of: Annotated[
        str | None,
        typer.Option("--shard-of", metavar="I/N", help="do one of N parts (from 0), as a job array's task"),
    ] = None,
    steal_lock: Annotated[
        bool, typer.Option("--steal-lock", help="take the directory from a driver that is surely gone")
    ] = False,
    force_new: Annotated[
        bool, typer.Option("--force-new", help="move results in the directory aside and begin anew")
    ] = False,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="serve Dask's dashboard on this machine's loopback address")
    ] = False,
    print_job_script: Annotated[
        bool, typer.Option("--print-job-script", help="print the script of a batch job; run nothing")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="do not build report.html")] = False,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="progress as JSON, one per line")] = False,
    quiet: QuietOpt = False,
) -> None:
    """Run every point of a sweep; the same command continues what was interrupted."""
    from spbfast.config import load_config

    job = load_config(config, set_ or (), grid=grid or ())
    outdir = output if output is not None else Path("results") / job.name
    if dry_run:
        from spbfast.cli.planning import dry_run as print_dry_run

        print_dry_run(job, outdir, as_json=as_json, measure=measure)
        return
    if print_job_script:
        from spbfast.sweep.pools.jobs import print_script

        print_script(job, outdir, typer.echo)
        return
    from spbfast.sweep.run import driver

    code = run_and_tell(
        job,
        outdir,
        no_report=no_report,
        quiet=quiet,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        max_failures=driver.parse_failures(max_failures),
        time_limit_s=driver.parse_limit(time_limit),
        shard_of=driver.parse_share(shard_of),
        steal_lock=steal_lock,
        force_new=force_new,
        dashboard=dashboard,
        json_lines=json_lines,
    )
    raise typer.Exit(code)


def run_and_tell(job: Any, outdir: Path, *, no_report: bool, quiet: bool, **options: Any) -> int:
    """Run a sweep, build its report, print how to open the results; returns the exit code."""
    from spbfast.sweep.run.driver import run_sweep

    if job.output.records:
        typer.echo("output.records: a sweep keeps no records; see spbfast run -o FILE", err=True)
    outcome = run_sweep(job, outdir, quiet=quiet, **options)
    if outcome.exit_code in (0, EXIT_SOME_FAILED) and options.get("shard_of") is None:
        _tell_caveats_of(outdir)
        if not no_report:
            build_report_page(outdir, prefix="report: ")
        if not quiet:
            typer.echo(_snippet(outdir))
    return outcome.exit_code


def _tell_caveats(dataset: Any) -> None:
    from spbfast.results.caveats import caveats

    for text in caveats(dataset):
        typer.echo(f"warning: {text}", err=True)


def _tell_caveats_of(outdir: Path) -> None:
    """Say what a sweep's runs left out."""
    from spbfast.results.open import open_results

    with warnings.catch_warnings():
        # Failed runs have been told of.
        warnings.filterwarnings("ignore", message=".*runs failed and", category=UserWarning)
        _tell_caveats(open_results(outdir))


def _snippet(outdir: Path) -> str:
    """Three lines that open the results in Python."""
    return (
        "In Python:\n"
        "  import spbfast as sf\n"
        f"  ds = sf.open_results({str(outdir)!r})\n"
        '  print(sf.cube(ds).spb_tainted.mean("replicate").isel(time=-1))'
    )
