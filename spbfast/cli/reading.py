"""Verbs that read results: the report, plots and comparisons.

Owns `report`, `plot`, `compare` and `knee`. Never changes results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.options import JsonOpt, app, build_report_page, check_place
from spbfast.text import format_change, format_number, quote_value, text_table

ResultsArg = Annotated[
    list[Path],
    typer.Argument(metavar="DIR|FILE...", help="results directories, or files of run -o", show_default=False),
]


@app.command("report")
def report_command(
    paths: ResultsArg,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="judge by this variable or counter; may be repeated"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="where to  [default: DIR/report.html, of several ./report.html]",
        ),
    ] = None,
) -> None:
    """Build report.html, one self-contained page, from results; of several, the first has the baseline."""
    check_place(output, "--output")
    build_report_page(*paths, target=output, metrics=metric or ())


@app.command("plot")
def plot_command(
    paths: ResultsArg,
    metric: Annotated[str, typer.Option("--metric", help="a variable or counter")] = "spb_tainted",
    kind: Annotated[
        str, typer.Option("--kind", help="time, points, differences or response  [default: time if recorded]")
    ] = "",
    over: Annotated[
        str, typer.Option("--over", metavar="KEY", help="of a response: the swept key on the axis")
    ] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="a .png, .svg or .pdf")
    ] = Path("plot.png"),
) -> None:
    """Draw one metric as a figure in a file: over time, every run, differences, or against a swept number."""
    from spbfast.results.report.drawing import check_figure_name, draw_figure, save_figure
    from spbfast.results.together import open_together

    check_figure_name(output)
    check_place(output, "--output")
    typer.echo(str(save_figure(draw_figure(open_together(paths), metric, kind, over), output)))


@app.command("compare")
def compare_command(
    paths: ResultsArg,
    by: Annotated[
        str | None, typer.Option("--by", metavar="KEY", help="the swept key, e.g. policy.slab_shrink")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="each point's control: baseline, or previous (the one before it)"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="a variable or counter; may be repeated  [default: spb_tainted]"),
    ] = None,
    at: Annotated[str, typer.Option("--at", help="end, peak, mean, or a time in seconds")] = "end",
    as_json: JsonOpt = False,
) -> None:
    """Paired differences with confidence intervals, and what each point costs.

    With --by, points that differ in that swept key alone are compared. Otherwise every point is compared with
    the baseline, or with the point before it, and the table also shows its page migrations and reclaim. Of
    several files that `spbfast run -o` wrote, the first is the baseline; of several sweeps, each is compared
    with the first, setting by setting.
    """
    from spbfast.results.together import FILE, open_together

    when = moment(at)
    if by is not None and against is not None:
        raise typer.BadParameter("give --by or --against, not both", param_hint="--against")
    _check_no_presets(paths)
    results = open_together(paths)
    if by is None and against is None and 1 < len(paths) < results.sizes["point"]:
        by = FILE
    if by is not None:
        typer.echo(_by_key(results, by, metric or ["spb_tainted"], when, as_json))
        return
    from spbfast.results import effects
    from spbfast.results.analysis import when_text

    control = against or effects.BASELINE
    metrics = list(dict.fromkeys([*(metric or effects.METRICS), *effects.costs(results)]))
    table = effects.steps(results, metrics, control, when)
    if as_json:
        data = {"at": at, "against": control, "steps": [step.data() for step in table]}
        typer.echo(json.dumps(data, indent=1))
        return
    shown = "the one before it" if control == effects.PREVIOUS else repr(table[0].name)
    head = f"{metrics[0]} {when_text(results, metrics[0], when)}, each point against {shown}"
    typer.echo(f"{head}\n{effects.steps_text(table)}")
    for name in filter(effects.NO_RESULTS.__contains__, metrics):
        typer.echo(f"{name}: how long the simulator took, not a property of the machine", err=True)


def _check_no_presets(paths: Sequence[Path]) -> None:
    """Presets are no results: say how to get some."""
    from spbfast.config.presets import preset_names

    named = [str(path) for path in paths if str(path) in preset_names() and not path.exists()]
    if named:
        raise typer.BadParameter(
            f"{named[0]} is a preset, not results; sweep presets first, such as: spbfast sweep quickstart "
            f"--grid policy.preset={','.join(map(str, paths))} -o results/presets, then: "
            "spbfast compare results/presets --by policy.preset",
            param_hint="DIR|FILE...",
        )


def _by_key(ds: Any, by: str, metrics: list[str], at: str | float, as_json: bool) -> str:
    """Points that differ in one swept key, a table for each metric."""
    from spbfast.results.analysis import when_text
    from spbfast.results.effects import FEW_PAIRS, compare, verdict
    from spbfast.results.together import FILE

    parts: dict[str, Any] = {}
    for metric in metrics:
        table = compare(ds, by=by.replace(".", "_"), metric=metric, at=at).to_dataframe()
        hidden = [name for name in ("point_id", "is_baseline", "in_grid", "control_id") if name in table]
        parts[metric] = table.drop(columns=hidden)
    if as_json:
        data = {name: json.loads(table.to_json(orient="records")) for name, table in parts.items()}
        return json.dumps({"at": str(at), "by": by, "metrics": data}, indent=1)
    lines: list[str] = []
    for name, table in parts.items():
        same = [column for column in ("control_name",) if by == FILE]  # said once, above the table
        shown = table.drop(columns=["few_pairs", *same]).to_string(float_format="{:.6g}".format)
        control = f"the same one of {ds[FILE].values[0]}" if by == FILE else "its control"
        lines += [f"{name} {when_text(ds, name, at)}, each point against {control}", shown]
        lines.append(verdict(name, table["difference"], table["ci_low"], table["ci_high"]))
        if table["few_pairs"].any():
            lines.append(f"fewer than {FEW_PAIRS} pairs: such an interval is too narrow; raise replicates")
    return "\n".join(lines)


@app.command("knee")
def knee_command(
    paths: ResultsArg,
    over: Annotated[
        str, typer.Option("--over", metavar="KEY", help="the swept number  [default: the only one]")
    ] = "",
    metric: Annotated[str, typer.Option("--metric", help="a variable or counter")] = "spb_tainted",
    at: Annotated[str, typer.Option("--at", help="end, peak, mean, or a time in seconds")] = "end",
    within: Annotated[
        float, typer.Option("--within", metavar="PERCENT", help="of the range of means, from the best")
    ] = 10.0,
    better: Annotated[
        str, typer.Option("--better", help="lower or higher  [default: that of the variable]")
    ] = "",
    as_json: JsonOpt = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="a row per value, as CSV")] = False,
) -> None:
    """Say which values of a swept number are good enough, with an interval, or that none matters.

    Good enough is a mean within 10 % of the whole curve's range from its best point.
    """
    from spbfast.results.analysis import when_text
    from spbfast.results.goodenough import knees
    from spbfast.results.response import find_swept_number
    from spbfast.results.together import open_together

    when = moment(at)
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both", param_hint="--csv")
    if not 0 < within < 100:
        raise typer.BadParameter(f"must be between 0 and 100, got {within:g}", param_hint="--within")
    results = open_together(paths)
    found = knees(results, over, metric, when, within=within / 100, better=better)
    name = find_swept_number(results, over)
    key = str(results[name].attrs.get("config_path", name))
    if as_json:
        facts = {"metric": metric, "at": at, "over": key, "within": within / 100}
        typer.echo(json.dumps({**facts, "knees": [knee.data() for knee in found]}, indent=1))
    elif as_csv:
        typer.echo(_csv_of(found), nl=False)
    else:
        typer.echo(f"{metric} {when_text(results, metric, when)} over {key}\n{_knees_text(found)}")


def _csv_of(found: Any) -> str:
    import csv
    import io

    from spbfast.results.goodenough import table_of

    rows, text = table_of(found), io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _knees_text(found: Any) -> str:
    header = ("", "mean", "from the best", "95 % interval", "good enough")
    parts = []
    for knee in found:
        rows = [
            (
                *(level.shown, format_number(level.mean), format_change(level.from_best)),
                *(_interval_text(level), "yes" if level.is_good else "no"),
            )
            for level in knee.levels
        ]
        kept = 4 if knee.lower is None and knee.upper is None else 5  # without a knee none is good or bad
        head = [f"{knee.setting}, {knee.pairs} pairs".removeprefix(", ")]
        parts += [*head, text_table(header[:kept], [row[:kept] for row in rows]), knee.words, ""]
    return "\n".join(parts[:-1])


def _interval_text(level: Any) -> str:
    known = level.low == level.low
    return f"[{format_change(level.low)}, {format_change(level.high)}]" if known else "-"


def moment(text: str) -> str | float:
    """What `--at` means: end, peak, mean, or a time in seconds or with its unit."""
    from spbfast.config.units import parse_duration

    if text in ("end", "peak", "mean"):
        return text
    for read in (float, lambda given: parse_duration(given) / 1e9):
        try:
            seconds = read(text)
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    message = f"must be end, peak, mean, or a time in seconds such as 60; got {quote_value(text)}"
    raise typer.BadParameter(message, param_hint="--at")
