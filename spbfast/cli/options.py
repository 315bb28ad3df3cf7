"""What all verbs share: the application object, common arguments and options, exit codes.

Owns no verb. Every other module of the package takes `app` from here and registers its verbs with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

EXIT_BUG, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 1, 3, 130

app = typer.Typer(
    name="spbfast",
    help="Simulate the Linux page allocator with superpageblocks and slab shrink, and sweep its tunables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigArg = Annotated[
    Path,
    typer.Argument(
        metavar="CFG",
        help="a configuration (YAML), or the name of a ready-made job such as quickstart",
        show_default=False,
    ),
]
DirArg = Annotated[Path, typer.Argument(metavar="DIR", help="a results directory", show_default=False)]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override one key, e.g. policy.slab_shrink=false"),
]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="print only the result's path")]
RetryFailedOpt = Annotated[bool, typer.Option("--retry-failed", help="run failed points again")]
ChangedSourcesOpt = Annotated[
    bool,
    typer.Option("--allow-changed-sources", help="go on with runs that other sources of the kernels made"),
]
NoReportOpt = Annotated[bool, typer.Option("--no-report", help="do not build report.html")]
JsonOpt = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def tell_remarks(job: Any) -> None:
    """Say what a job allows and hardly means."""
    for text in job.remarks:
        typer.echo(f"warning: {text}", err=True)


def check_place(path: Path | None, option: str) -> None:
    """Find out, before what takes long, whether the file of an option can be written.

    Raises
    ------
    typer.BadParameter
        When the name is wrong.
    StorageError
        When the disk is full or read-only.
    """
    if path is None:
        return
    from spbfast.sweep.store.rescue import try_place

    try:
        try_place(path)
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint=option) from None


def build_report_page(
    *results: Path, prefix: str = "", target: Path | None = None, metrics: Sequence[str] = ()
) -> None:
    """Build the report and print its path, or how to get what it needs."""
    try:
        from spbfast.results.report import build_report
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        typer.echo("no report without matplotlib; install it with: pip install 'spbfast[plot]'", err=True)
        return
    typer.echo(f"{prefix}{build_report(results, target, metrics)}")
