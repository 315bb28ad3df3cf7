"""Verbs for results directories: status, continuing a sweep, running a point again.

Owns `status`, `ls`, `resume`, `rerun`, `consolidate` and `sensitivity`. Only `resume` and `consolidate`
write.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from spbfast.cli.options import ChangedSourcesOpt, DirArg, JsonOpt, NoReportOpt, QuietOpt, RetryFailedOpt, app
from spbfast.cli.sweeping import run_and_tell
from spbfast.text import format_bytes, format_seconds, format_share, printable, text_table

WATCH_S = 2.0
EXIT_DIFFERS = 1
HALFWAY_SHOWN = 5


@app.command("status")
def status_command(
    directory: DirArg,
    watch: Annotated[
        bool, typer.Option("--watch", help="look again every two seconds until it ends")
    ] = False,
    as_json: JsonOpt = False,
) -> None:
    """Show a sweep's progress: runs done, failed and missing, and when it will end."""
    from spbfast.sweep.store.view import look

    while True:
        found = look(directory)
        if as_json:
            typer.echo(json.dumps(asdict(found)))
        else:
            if watch and sys.stdout.isatty():
                click.clear()
            typer.echo("\n".join(_status_lines(found)))
        if not watch or found.state != "running":
            return
        time.sleep(WATCH_S)


def _status_lines(found: Any) -> list[str]:
    share = format_share(found.ok + found.failed, found.runs)
    head = f"{found.name}: {found.state}, {found.ok} of {found.runs} runs ok ({share})"
    lines = [f"{head}, {found.failed} failed, {found.missing} missing"]
    if found.driver:
        lines.append(f"  driver   {found.driver}")
    if found.eta_s is not None:
        lines.append(f"  left     about {format_seconds(found.eta_s)}")
    lines.append(f"  points   {found.points} x {found.replicates} replicates, {format_bytes(found.nbytes)}")
    lines.append(f"  created  {found.created}, model version {found.model_version}")
    if found.halfway:
        lines.append(f"  halfway  {_halfway_words(found.halfway)}")
    return lines + failure_lines(found)


def failure_lines(found: Any) -> list[str]:
    """The first failures of a sweep, and the commands that go on from where it stands."""
    lines = []
    for failure in found.failures:
        message = (str(failure.get("message")).splitlines() or [""])[0][:160]
        run = f"{failure.get('point_id')}:{failure.get('replicate')}"
        lines.append(f"  failed   {run} {failure.get('error')}: {printable(message)}")
    if found.failures:
        first = found.failures[0]
        again = f"{first.get('point_id')}:{first.get('replicate')}"
        lines.append(f"  rerun    spbfast rerun {found.directory} {again}")
    if found.state == "stopped":
        lines.append(f"  resume   spbfast resume {found.directory}")
    return lines


def _halfway_words(runs: list[dict[str, Any]]) -> str:
    """Runs that were stopped, and how far they have come."""
    times = [format_seconds(run["at_s"]) for run in runs]
    more = f" and {len(times) - HALFWAY_SHOWN} more" if len(times) > HALFWAY_SHOWN else ""
    first = ", ".join(times[:HALFWAY_SHOWN])
    return f"{len(times)} runs were stopped and go on from {first}{more} of simulated time"


def _tell_refused(path: Path) -> None:
    typer.echo(f"spbfast: warning: {path}: may not be read, so it is left out", err=True)


@app.command("ls")
def ls_command(
    root: Annotated[Path, typer.Argument(metavar="[DIR]", help="where to look")] = Path("results"),
    as_json: JsonOpt = False,
) -> None:
    """List the results directories below a directory."""
    from spbfast.errors import ResultsError
    from spbfast.sweep.store.view import find_directories, look

    if not root.is_dir():
        raise ResultsError("no such directory", root)
    rows = []
    for path in find_directories(root, refused=_tell_refused):
        try:
            rows.append(look(path))
        except ResultsError as error:
            typer.echo(f"spbfast: warning: {error}", err=True)
    if as_json:
        typer.echo(json.dumps([asdict(r) for r in rows]))
        return
    if not rows:
        typer.echo(f"no results below {root}")
        return
    header = ("directory", "state", "points", "runs", "ok", "failed", "created")
    typer.echo(text_table(header, [[getattr(r, name) for name in header] for r in rows], left=(0, 1, 6)))


@app.command("resume")
def resume_command(
    directory: DirArg,
    retry_failed: RetryFailedOpt = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="change how it runs, e.g. executor.workers=4"),
    ] = None,
    allow_changed_sources: ChangedSourcesOpt = False,
    no_report: NoReportOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Continue a sweep from its results directory alone."""
    from spbfast.sweep.run.sweepoptions import SweepOptions
    from spbfast.sweep.store.inputs import load_stored

    job = load_stored(directory, extra=set_ or ())
    options = SweepOptions(
        retry_failed=retry_failed, quiet=quiet, allow_changed_sources=allow_changed_sources
    )
    raise typer.Exit(run_and_tell(job, directory, options, report=not no_report))


@app.command("rerun")
def rerun_command(
    directory: DirArg,
    point: Annotated[
        str, typer.Argument(metavar="POINT_ID", help="hex digits as in ds.point_id; ID:REPLICATE works too")
    ],
    replicate: Annotated[int, typer.Option("--replicate", help="which replicate")] = 0,
    interpreted: Annotated[
        bool, typer.Option("--interpreted", help="run the kernels as plain Python, for a debugger (slow)")
    ] = False,
) -> None:
    """Run one point of a sweep again and check that it gives the same bits; exit 1 if not."""
    if interpreted:
        os.environ["NUMBA_DISABLE_JIT"] = "1"
    from spbfast.sweep.run.rerun import DIFFERENCES_SHOWN, rerun

    found = rerun(directory, point, replicate, say=lambda text: typer.echo(text, err=True))
    if found.account:
        typer.echo(str(found.account.get("traceback", "")).rstrip(), err=True)
        typer.echo(f"{found.cell} {found.now}: {found.account.get('error')}: {found.account.get('message')}")
    else:
        typer.echo(f"{found.cell} {found.now} in {found.wall_s:.1f} s, digest {found.digest}")
    for line in found.differences[:DIFFERENCES_SHOWN]:
        typer.echo(f"  {line}")
    if len(found.differences) > DIFFERENCES_SHOWN:
        typer.echo(f"  and {len(found.differences) - DIFFERENCES_SHOWN} more")
    verdict = {
        True: "the same as stored",
        False: "NOT the same as stored",
        None: "nothing is stored to compare",
    }
    typer.echo(verdict[found.same])
    raise typer.Exit(EXIT_DIFFERS if found.same is False else 0)


@app.command("consolidate")
def consolidate_command(directory: DirArg) -> None:
    """Write results.nc from whatever is done so far."""
    from spbfast.sweep.run.growth import decide_again
    from spbfast.sweep.store.consolidate import consolidate
    from spbfast.sweep.store.states import remove_states_of_complete

    decide_again(directory)
    typer.echo(str(consolidate(directory)))
    remove_states_of_complete(directory)


@app.command("sensitivity")
def sensitivity_command(
    directory: DirArg,
    metric: Annotated[str, typer.Option("--metric", help="the variable to analyse")] = "spb_tainted",
    at: Annotated[str, typer.Option("--at", help="end, peak, mean, or a time in seconds")] = "end",
    as_json: JsonOpt = False,
) -> None:
    """Say which inputs decide a result, from a Saltelli or Morris design."""
    from spbfast.cli.reading import moment
    from spbfast.results.sensitivity import sensitivity

    found = sensitivity(directory, metric, moment(at))
    frame = (
        found.drop_vars([n for n in found if found[n].ndim > 1])
        .drop_dims("other", errors="ignore")
        .to_dataframe()
    )
    if as_json:
        typer.echo(json.dumps({**found.attrs, "parameters": frame.to_dict("index")}))
        return
    facts = found.attrs
    typer.echo(f"{metric} {facts['when']}, {facts['design']} design of {facts['points']} points")
    typer.echo(frame.to_string(float_format="{:.3f}".format))
