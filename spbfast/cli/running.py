"""The verb that simulates one point.

Owns `run` and its summary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.events import wanted_records
from spbfast.cli.options import ConfigArg, QuietOpt, SetOpt, app, check_place, tell_remarks
from spbfast.cli.patience import explained_wait
from spbfast.errors import SpbfastError
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
    save_state: Annotated[
        Path | None,
        typer.Option("--save-state", metavar="FILE", help="write the machine's state here, for start.state"),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="when the state is saved, such as 300s; default: the end"),
    ] = None,
    quiet: QuietOpt = False,
) -> None:
    """Run the configuration's own point, all replicates, and print a summary."""
    from spbfast.config import load_config

    job = load_config(config, set_ or (), one_point=True)
    tell_remarks(job)
    for place, option in ((output, "--output"), (save_state, "--save-state")):
        check_place(place, option)
        _refuse_overwriting(place, option, config)
    if output is not None and output == save_state:
        raise typer.BadParameter("is the file of --output, too", param_hint="--save-state")
    kinds = wanted_records(job, records, output)
    save = _state_to_save(job, save_state, at)
    from spbfast.model.engine import MODEL_VERSION, check_memory, run_replicate
    from spbfast.results.runfile import run_dataset

    check_memory(job.scenario)
    with explained_wait() as no_longer:

        def never() -> bool:
            no_longer()
            return False

        runs = [
            run_replicate(
                job.scenario,
                job.seed,
                replicate,
                snapshots=job.output.level == "spb",
                records=kinds,
                records_max=job.output.records_max,
                records_boot=job.output.records_boot,
                save=save,
                stop=never,
            )
            for replicate in range(job.replicates)
        ]
    dataset = run_dataset(job, runs, MODEL_VERSION)
    # What took hours is safe before anything is printed, which may fail.
    if output is not None:
        _keep(output, dataset, runs)
    if not quiet:
        typer.echo(_summary(dataset))
    tell_caveats(dataset)
    if output is not None:
        _report_dropped(runs)
        typer.echo(str(output))
    if save is not None and save[1].error is not None:
        raise save[1].error


def _refuse_overwriting(path: Path | None, option: str, config: Path) -> None:
    """Refuse a file that is the configuration itself."""
    if path is not None and path.is_file() and config.is_file() and path.samefile(config):
        raise typer.BadParameter("is the configuration; name another file", param_hint=option)


def _keep(path: Path, dataset: Any, runs: Any) -> None:
    from spbfast.results.records import write_run
    from spbfast.sweep.store.rescue import write_or_rescue

    records = [run.records for run in runs]
    shapes = runs[0].shapes if any(records) else ()
    write_or_rescue(path, lambda place: write_run(place, dataset, records, shapes), "the results are")


def _state_to_save(job: Any, path: Path | None, at: str | None) -> tuple[int, StateSaver] | None:
    """The tick at which a state is saved, and what writes it; mistakes are found before the run."""
    if path is None:
        if at is not None:
            raise typer.BadParameter("needs --save-state FILE", param_hint="--at")
        return None
    if job.replicates != 1:
        raise typer.BadParameter(
            f"a state file holds one replicate and the job has {job.replicates}; add --set replicates=1",
            param_hint="--save-state",
        )
    return _tick_of(job, at), StateSaver(path)


def _tick_of(job: Any, at: str | None) -> int:
    from spbfast.config.start import start_time
    from spbfast.config.units import format_duration, parse_duration
    from spbfast.constants import NS_PER_TICK

    try:
        time = job.scenario.duration if at is None else parse_duration(at)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None
    if time < 0 or time % NS_PER_TICK:
        raise typer.BadParameter("must be a whole number of milliseconds", param_hint="--at")
    if time > job.scenario.duration:
        end = format_duration(job.scenario.duration)
        raise typer.BadParameter(f"{at} is after the end of the run, duration {end}", param_hint="--at")
    first = start_time(job.scenario.start)
    if time < first:
        begin = format_duration(first)
        raise typer.BadParameter(f"{at} is before start.state, which is at {begin}", param_hint="--at")
    return int(time // NS_PER_TICK)


class StateSaver:
    """Writes the state of a run; what goes wrong is kept until the run has ended, which is worth as much."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: SpbfastError | None = None

    def __call__(self, state: Any) -> None:
        from spbfast.errors import StorageError
        from spbfast.sweep.store.rescue import write_or_rescue

        try:
            write_or_rescue(self.path, lambda place: _write_state(state, place), "the state is")
        except StorageError as error:
            self.error = error


def _write_state(state: Any, path: Path) -> None:
    from spbfast.sweep.store.atomic import atomic_file

    with atomic_file(path) as tmp:
        digest = state.write(tmp)
    typer.echo(f"{path}: state saved, {path.stat().st_size / 1e6:.1f} MB, digest {digest}", err=True)


def _report_dropped(runs: Any) -> None:
    """Say which records found no room."""
    for name in runs[0].records:
        dropped = sum(run.records[name].dropped for run in runs)
        if dropped:
            typer.echo(f"{name}: {dropped} records dropped; raise output.records_max", err=True)


def _summary(dataset: Any) -> str:
    """Each quantity at the end of the run with its unit: one number, or least, median and greatest."""
    rows, silent = [], 0
    for name, cell in _last_values(dataset):
        if not cell.notnull().any():
            continue
        low, mid, high = (float(cell.quantile(q)) for q in (0.0, 0.5, 1.0))
        if "." in name and low == high == 0:
            silent += 1
            continue
        numbers = [f"{value:.10g}" for value in (low, mid, high)]
        rows.append([name, *(numbers if low != high else ["", numbers[1], ""]), _unit(name)])
    notes = ["what has no unit is a count of what its name says"]
    notes += [f"{silent} counters stayed at 0"] if silent else []
    return f"{_summary_table(rows)}\n({'; '.join(notes)})"


def _summary_table(rows: list[list[str]]) -> str:
    """Least and greatest have columns only if they differ anywhere."""
    title = "at the end of the run"
    if any(low for _, low, *_ in rows):
        return text_table((title, "min", "median", "max", "unit"), rows, left=(0, 4))
    return text_table((title, "", "unit"), [[name, mid, unit] for name, _, mid, _, unit in rows], left=(0, 2))


def _unit(name: str) -> str:
    """The unit of a variable: that of the registry, or the things that its name counts."""
    from spbfast.outputs.variables import VARIABLES

    units = VARIABLES[name].units if name in VARIABLES else "1"
    if units != "1":
        return units
    things = ("pages", "objects", "pageblocks", "blocks")
    return next((thing for thing in things if thing in name.split("_")), "")


def _last_values(dataset: Any) -> Iterator[tuple[str, Any]]:
    """Scalars, last values of series, and counters one by one: name and values over replicates."""
    from spbfast.outputs.variables import VARIABLES

    for name, var in dataset.data_vars.items():
        if name not in VARIABLES:
            continue
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
