"""The verb that runs a sweep.

Owns `sweep`, and what is said after one. Prints; computes nothing.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.options import (
    EXIT_SOME_FAILED,
    ChangedSourcesOpt,
    ConfigArg,
    NoReportOpt,
    QuietOpt,
    RetryFailedOpt,
    SetOpt,
    app,
    build_report_page,
    tell_remarks,
)
from spbfast.cli.running import tell_caveats
from spbfast.cli.streams import results_elsewhere

OutputOpt = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="results directory  [default: results/NAME]"),
]
GridOpt = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="KEY=A,B", help="sweep a key, e.g. policy.slab_shrink_throttle=10ms,50ms"),
]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="what it would cost; runs nothing, touches no file")
]
MeasureOpt = Annotated[
    bool, typer.Option("--measure/--no-measure", help="with --dry-run: make short runs to learn their cost")
]
DryJsonOpt = Annotated[bool, typer.Option("--json", help="with --dry-run: machine-readable")]
FailFastOpt = Annotated[bool, typer.Option("--fail-fast", help="stop at the first failed point")]
MaxFailuresOpt = Annotated[
    str | None,
    typer.Option("--max-failures", metavar="N|P%", help="stop when more runs than this have failed"),
]
TimeLimitOpt = Annotated[
    str | None,
    typer.Option("--time-limit", metavar="TIME", help="stop after e.g. 2h, with exit code 75"),
]
ShardOfOpt = Annotated[
    str | None,
    typer.Option("--shard-of", metavar="I/N", help="do one of N parts (from 0), as a job array's task"),
]
StealLockOpt = Annotated[
    bool, typer.Option("--steal-lock", help="take the directory from a driver that is surely gone")
]
ForceNewOpt = Annotated[
    bool, typer.Option("--force-new", help="move results in the directory aside and begin anew")
]
DashboardOpt = Annotated[
    bool, typer.Option("--dashboard", help="serve Dask's dashboard on this machine's loopback address")
]
PrintJobScriptOpt = Annotated[
    bool, typer.Option("--print-job-script", help="print the script of a batch job; run nothing")
]
JsonLinesOpt = Annotated[bool, typer.Option("--json-lines", help="progress as JSON, one per line")]


@app.command("sweep")
def sweep_command(
    config: ConfigArg,
    output: OutputOpt = None,
    set_: SetOpt = None,
    grid: GridOpt = None,
    dry_run: DryRunOpt = False,
    measure: MeasureOpt = True,
    as_json: DryJsonOpt = False,
    retry_failed: RetryFailedOpt = False,
    fail_fast: FailFastOpt = False,
    max_failures: MaxFailuresOpt = None,
    time_limit: TimeLimitOpt = None,
    shard_of: ShardOfOpt = None,
    steal_lock: StealLockOpt = False,
    force_new: ForceNewOpt = False,
    allow_changed_sources: ChangedSourcesOpt = False,
    dashboard: DashboardOpt = False,
    print_job_script: PrintJobScriptOpt = False,
    no_report: NoReportOpt = False,
    json_lines: JsonLinesOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Run every point of a sweep; the same command continues what was interrupted."""
    from spbfast.config import load_config
    from spbfast.sweep.run.driver import place_of

    job = load_config(config, set_ or (), grid=grid or ())
    tell_remarks(job)
    outdir = place_of(output if output is not None else Path("results") / job.name)
    if dry_run:
        _print_dry_run(job, outdir, as_json=as_json, measure=measure)
        return
    if print_job_script:
        from spbfast.sweep.pools.jobs import job_script

        typer.echo(job_script(job.executor, outdir))
        return
    from spbfast.sweep.run import sweepoptions as texts

    options = texts.SweepOptions(
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        max_failures=texts.parse_max_failures(max_failures),
        time_limit_s=texts.parse_time_limit(time_limit),
        shard_of=texts.parse_shard_of(shard_of),
        steal_lock=steal_lock,
        force_new=force_new,
        allow_changed_sources=allow_changed_sources,
        dashboard=dashboard,
        json_lines=json_lines,
        quiet=quiet,
    )
    raise typer.Exit(run_and_tell(job, outdir, options, report=not no_report))


def _print_dry_run(job: Any, outdir: Path, *, as_json: bool, measure: bool) -> None:
    """Print what a sweep would run and what that would cost."""
    from spbfast.sweep.run.estimate import estimate, estimate_lines

    found = estimate(job, outdir, measure=measure, say=lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo("\n".join(estimate_lines(found)))


def run_and_tell(job: Any, outdir: Path, options: Any, *, report: bool) -> int:
    """Run a sweep, build its report, print how to open the results; returns the exit code."""
    from spbfast.results.sentences import finding
    from spbfast.results.snippet import snippet
    from spbfast.sweep.run.driver import run_sweep

    if job.output.records:
        typer.echo("output.records: a sweep keeps no records; see spbfast run -o FILE", err=True)
    outcome = run_sweep(job, outdir, options)
    if outcome.exit_code in (0, EXIT_SOME_FAILED) and options.shard_of is None:
        results = _opened(outdir)
        tell_caveats(results)
        with results_elsewhere():
            if report:
                _tell_report(outdir)
            if not options.quiet:
                typer.echo("\n  ".join(["In Python:", *snippet(results, outdir)]))
        if not options.quiet:
            typer.echo(finding(results), err=True)
    return outcome.exit_code


def _tell_report(outdir: Path) -> None:
    """Print the report's path; it is built anew only if something has changed since."""
    from spbfast.sweep.store.directory import Store

    store = Store(outdir)
    if store.is_current(store.report_path):
        typer.echo(f"report: {store.report_path}")
        return
    build_report_page(outdir, prefix="report: ")


def _opened(outdir: Path) -> Any:
    """The results of a sweep that has ended; failed runs have been told of."""
    from spbfast.results.open import open_results

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*runs failed and", category=UserWarning)
        return open_results(outdir)
