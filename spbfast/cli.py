"""The command line: parse, call, print.

Every command imports what it needs when it runs, so that `--help`, `validate` and `explain` start at once.
Nothing is computed here. Errors meant for users are one line on stderr and an exit code; anything else is a
bug of ours and says so.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast import __version__
from spbfast.errors import SpbfastError

EXIT_BUG, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 1, 3, 130
DRY_RUN_SHOWN = 20

app = typer.Typer(
    name="spbfast",
    help="Simulate the Linux page allocator with superpageblocks and slab shrink, and sweep its tunables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigArg = Annotated[Path, typer.Argument(metavar="CFG", help="a configuration (YAML)", show_default=False)]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override one key, e.g. policy.slab_shrink=false"),
]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="print only the result's path")]
JsonOpt = Annotated[bool, typer.Option("--json", help="machine-readable output")]


@app.command()
def run(
    config: ConfigArg,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="write the dataset (netCDF) here")
    ] = None,
    set_: SetOpt = None,
    quiet: QuietOpt = False,
) -> None:
    """Run the configuration's own point, all replicates, and print a summary."""
    from spbfast.config import load_config

    job = load_config(config, set_ or (), one_point=True)
    if output is not None and not output.parent.is_dir():
        raise typer.BadParameter(f"the directory {output.parent} does not exist", param_hint="--output")
    from spbfast.engine import simulate

    dataset = simulate(job.scenario, replicates=job.replicates, seed=job.seed)
    if not quiet:
        typer.echo(_summary(dataset))
    if output is not None:
        dataset.to_netcdf(output, engine="netcdf4")
        typer.echo(str(output))


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the points; touch no file")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="run failed points again")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="stop at the first failed point")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="do not build report.html")] = False,
    quiet: QuietOpt = False,
) -> None:
    """Run every point of a sweep; the same command continues what was interrupted."""
    from spbfast.config import load_config

    job = load_config(config, set_ or (), grid=grid or ())
    outdir = output if output is not None else Path("results") / job.name
    if dry_run:
        _print_points(job, outdir)
        return
    from spbfast.sweep.driver import run_sweep

    outcome = run_sweep(job, outdir, retry_failed=retry_failed, fail_fast=fail_fast, quiet=quiet)
    if outcome.exit_code in (0, EXIT_SOME_FAILED):
        if not no_report:
            _report(outdir, prefix="report: ")
        if not quiet:
            typer.echo(_snippet(outdir))
    raise typer.Exit(outcome.exit_code)


def _print_points(job: Any, outdir: Path) -> None:
    """What a sweep would run, without running or writing anything."""
    from spbfast.sweep.design import build_design

    points = build_design(job.sweep)
    for point in points:
        job.with_values(point.values)
    typer.echo(f"{job.name}: {len(points)} points x {job.replicates} replicates, into {outdir}")
    for point in points[:DRY_RUN_SHOWN]:
        shown = ", ".join(f"{k}={v}" for k, v in point.values.items()) or "the file's own point"
        typer.echo(f"  {shown}{'  (baseline)' if point.baseline else ''}")
    if len(points) > DRY_RUN_SHOWN:
        typer.echo(f"  ... and {len(points) - DRY_RUN_SHOWN} more")


def _report(directory: Path, prefix: str = "") -> None:
    """Build the report and print its path, or how to get what it needs."""
    try:
        from spbfast.report import build_report
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        typer.echo("no report without matplotlib; install it with: pip install 'spbfast[plot]'", err=True)
        return
    typer.echo(f"{prefix}{build_report(directory)}")


def _snippet(outdir: Path) -> str:
    """Three lines that open the results in Python."""
    return (
        "In Python:\n"
        "  import spbfast as sf\n"
        f"  ds = sf.open_results({str(outdir)!r})\n"
        '  print(sf.cube(ds).spb_tainted.mean("replicate").isel(time=-1))'
    )


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a results directory", show_default=False)],
) -> None:
    """Build report.html, one self-contained page, from a results directory."""
    _report(directory)


@app.command()
def compare(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a results directory", show_default=False)],
    by: Annotated[
        str | None, typer.Option("--by", metavar="KEY", help="the swept key, e.g. policy.slab_shrink")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="the variable to compare")] = "spb_tainted",
    at: Annotated[str, typer.Option("--at", help="end, peak, mean, or a time in seconds")] = "end",
) -> None:
    """Paired differences against the baseline, with confidence intervals."""
    from spbfast.results import compare as compare_results
    from spbfast.results import open_results

    moment = at if at in ("end", "peak", "mean") else _seconds(at)
    coord = by.replace(".", "_") if by else None
    table = compare_results(open_results(directory), by=coord, metric=metric, at=moment).to_dataframe()
    hidden = [name for name in ("point_id", "is_baseline", "in_grid") if name in table]
    typer.echo(f"{metric} at {at}")
    typer.echo(table.drop(columns=hidden).to_string(float_format="{:.6g}".format))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = f"must be end, peak, mean, or a time in seconds such as 60; got {text!r}"
        raise typer.BadParameter(message, param_hint="--at") from None


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="golden traces", show_default=False)],
) -> None:
    """Replay golden traces and compare every event; exit 0 only if all agree."""
    from spbfast.verify import verify_files

    raise typer.Exit(verify_files(files, typer.echo))


@app.command()
def bench(as_json: JsonOpt = False) -> None:
    """Measure speed beside a yardstick of the same run."""
    from spbfast import bench as bench_module

    raise typer.Exit(bench_module.main(json=as_json) or 0)


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


def main(args: list[str] | None = None) -> None:
    """Entry point of the `spbfast` command; always ends in SystemExit."""
    try:
        app(args=args)
    except SpbfastError as error:
        text = str(error)
        print(text if ": error: " in text else f"spbfast: error: {text}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("spbfast: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:
        traceback.print_exc()
        print(f"spbfast {__version__}: internal error; please report it with the text above", file=sys.stderr)
        sys.exit(EXIT_BUG)


if __name__ == "__main__":
    main()
