"""The page of the flagship study: tables of medians and ranges, made from the raw numbers alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.flagship import COUNTERS, GIGANTIC, POLICIES, TORNADO
from experiments.study_numbers import told
from spbfast.results.effects import Effect, effect_of, mean_interval

Raw = Mapping[str, dict[str, Any]]
PUBLISHED_BOOT, PUBLISHED_END = 8, 85  # tainted superpageblocks, shrink off: the patch's changelog
BEGIN, END = "<!-- finding: begin -->", "<!-- finding: end -->"
OFF, ON = "shrink off", "v1@30"
SAMPLES_OF_A_MINUTE = 6
JUMP = 20  # superpageblocks tainted within a minute; the steady climb is some 3 a minute
ASKED_FOR = 50
COUNTED = (
    OFF,
    ON,
    "barred pages subtracted, v1@30",
    "mainline",
    "v1",
    "v2",
)  # columns of the counters' table


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    if min(values) == max(values):
        return f"{values[0]:,g}"
    return f"{statistics.median(values):,g} ({min(values):,g}..{max(values):,g})"


def of(raw: Raw, name: str) -> list[dict[str, Any]]:
    """All replicates of a case, in order."""
    found = [
        (int(key.rsplit("|", 1)[1]), value) for key, value in raw.items() if key.rsplit("|", 1)[0] == name
    ]
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def ends(runs: Sequence[Mapping[str, Any]]) -> list[int]:
    """Tainted superpageblocks at the end, by replicate."""
    return [run["tainted"][-1] for run in runs]


def is_jump(run: Mapping[str, Any]) -> bool:
    """Whether the count rose by at least JUMP within some minute."""
    return worst_minute(run)[0] >= JUMP


def jumps(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many of a case's runs jump."""
    return f"{sum(map(is_jump, runs))} of {len(runs)}"


def change(raw: Raw, name: str, control: str) -> Effect:
    """Tainted at the end, minus the control's, replicate by replicate."""
    pairs = list(zip(ends(of(raw, name)), ends(of(raw, control)), strict=False))
    mine, theirs = (np.array([pair[i] for pair in pairs], float) for i in (0, 1))
    return effect_of("tainted_end", theirs, mine)


def policy_table(raw: Raw) -> list[str]:
    """One row a policy, and the count at the end of every run."""
    lines = [
        "| case | runs | after boot | at 240 s | at the end | jumps | slab, GB | stranded, GB | stalls |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in POLICIES:
        if runs := of(raw, name):
            cells = [
                str(len(runs)),
                spread([r["tainted"][0] for r in runs]),
                spread([r["tainted"][24] for r in runs]),
                ", ".join(map(str, ends(runs))),
                jumps(runs),
                *(spread([round(r[key] / 1e3, 1) for r in runs]) for key in ("slab_mb", "stranded_mb")),
                spread([r["vm"]["allocstall_normal"] for r in runs]),
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def jump_table(raw: Raw) -> list[str]:
    """Every run under a superpageblock policy that jumps, beside the one with barred pages subtracted."""
    lines = [
        "| case | replicate | at the end | worst minute | stranded, GB | stalls "
        "| the same, barred pages subtracted |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, run in raw.items():
        name, _, replicate = key.rpartition("|")
        if "mainline" in name or not is_jump(run):
            continue
        rise, begin = worst_minute(run)
        twin = raw.get(f"{barred_twin(name)}|{replicate}")
        cells = [
            str(run["tainted"][-1]),
            f"+{rise} from {begin} s on",
            f"{run['stranded_mb'] / 1e3:.1f}",
            f"{run['vm']['allocstall_normal']:,}",
            f"{twin['tainted'][-1]}, {twin['vm']['allocstall_normal']:,} stalls" if twin else "-",
        ]
        lines.append(f"| {name} | {replicate} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else ["No run does."]


def worst_minute(run: Mapping[str, Any]) -> tuple[int, int]:
    """The greatest rise of the count within a minute, and the second at which that minute begins."""
    curve = np.array(run["tainted"])
    rises = curve[SAMPLES_OF_A_MINUTE:] - curve[:-SAMPLES_OF_A_MINUTE]
    return int(rises.max()), 10 * int(rises.argmax())


def barred_twin(name: str) -> str:
    """The case that differs from this one in what the watermarks count alone."""
    few = "one memcg, one superblock, "
    return f"{few if name.startswith(few) else ''}barred pages subtracted, {name.removeprefix(few)}"


def pair_table(raw: Raw) -> list[str]:
    """What shrink as posted changes, under each condition that was run with it and without."""
    lines = ["| condition | tainted at the end, v1@30 minus shrink off | pairs |", "|---|---|---|"]
    for name in POLICIES:
        on = name.replace(OFF, ON)
        if OFF in name and of(raw, name) and of(raw, on):
            effect = change(raw, on, name)
            condition = name.removesuffix(OFF).rstrip(", ") or "as in the file"
            lines.append(f"| {condition} | {told(effect)} | {effect.pairs} |")
    return lines


def gigantic_table(raw: Raw) -> list[str]:
    """What asking for fifty gigantic pages gives, under each policy."""
    lines = [
        "| case | runs | tainted at 240 s | obtained of 50, by run | mean | small pages moved for each "
        "| ms each | why requests failed | stalls |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in GIGANTIC:
        if runs := of(raw, f"50 asked for: {name}"):
            got = [r["vm"]["contig_alloc_success"] for r in runs]
            moved = sum(r["vm"]["contig_pages_migrated"] for r in runs)
            spent = sum(r["vm"]["contig_alloc_ns"] for r in runs)
            cells = [
                str(len(runs)),
                spread([r["tainted"][24] for r in runs]),
                ", ".join(map(str, got)),
                mean_of(got),
                f"{moved / sum(got):,.0f}" if sum(got) else "-",
                f"{spent / sum(got) / 1e6:,.0f}" if sum(got) else "-",
                reasons(runs),
                spread([r["vm"]["allocstall_normal"] for r in runs]),
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def mean_of(values: Sequence[float]) -> str:
    """A mean with its 95 % bootstrap interval."""
    low, high = mean_interval(np.array(values, float))
    return f"{statistics.fmean(values):.1f} [{low:.1f}, {high:.1f}]"


def reasons(runs: Sequence[Mapping[str, Any]]) -> str:
    """Why requests for gigantic pages failed, in all runs of a case."""
    names = ("no_candidate", "no_room", "pinned", "busy")
    counts = {name: sum(r["vm"][f"contig_fail_{name}"] for r in runs) for name in names}
    return ", ".join(f"{name.replace('_', ' ')} {nr:,}" for name, nr in counts.items() if nr) or "none did"


def counter_table(raw: Raw) -> list[str]:
    """One row a counter, for the policies that were run and differ most."""
    names = [name for name in COUNTED if of(raw, name)]
    lines = ["| counter | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for counter in COUNTERS:
        columns = [[r["vm"][counter] for r in of(raw, name)] for name in names]
        if any(map(any, columns)):
            lines.append(f"| `{counter}` | " + " | ".join(map(spread, columns)) + " |")
    return lines


def tornado_table(raw: Raw) -> list[str]:
    """Inputs by how far they move the end's tainted count, widest first."""
    rows = []
    for name, sides in TORNADO.items():
        cells, widest = [], 0.0
        for side, given in zip(("low", "high"), sides, strict=True):
            runs = of(raw, f"{name}:{side}")
            if not runs:
                cells += ["as in the file" if not given else "not run", "", ""]
                continue
            effect = change(raw, f"{name}:{side}", ON)
            widest = max(widest, abs(effect.difference))
            setting = ", ".join(text.rpartition("=")[2] for text in runs[0]["overrides"])
            cells += [setting, f"{told(effect)}", jumps(runs)]
        rows.append((widest, f"| {name} | " + " | ".join(cells) + " |"))
    lines = [
        "| input | low is | low | jumps | high is | high | jumps |",
        "|---|---|---|---|---|---|---|",
    ]
    return lines + [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def sentence(raw: Raw) -> str:
    """8 -> 85 in words."""
    off = ends(of(raw, OFF))
    return (
        f"The changelog's {PUBLISHED_BOOT} -> {PUBLISHED_END} comes out here as {PUBLISHED_BOOT} -> "
        f"{spread(off)} in {len(off)} runs. {how_many_jump(raw)}"
    )


def how_many_jump(raw: Raw) -> str:
    """How many of all runs under superpageblocks jump, and how high."""
    runs = [run for key, run in raw.items() if "mainline" not in key]
    highest = max(run["tainted"][-1] for run in runs)
    nr = sum(map(is_jump, runs))
    jump = f"{nr or 'none'} {'jump' if nr > 1 else 'jumps'}"
    return (
        f"Of all {len(runs)} runs under superpageblock policies, inputs varied or not, {jump}; the highest "
        f"ends at {highest}."
    )


def page(raw: Raw, jump: Sequence[str] = ()) -> str:
    """The generated page; `jump` is what is said of a recorded one."""
    # Runs of the tornado were made beside other work.
    walls = [r["wall_s"] for name in POLICIES for r in of(raw, name)]
    lines = [
        "# The flagship study",
        "",
        "Generated by `scripts/study` from `configs/devvm-corrected.yaml`; not edited by hand.",
        "",
        sentence(raw),
        "",
        "480 simulated seconds of the burst on the 247 GB machine, with what a review against the kernel's",
        "sources corrected in its model; what each correction does stands under [V3c](validation.md).",
        "Nothing was tuned to the published figures. Replicate k meets the same demand in every case;",
        "every run ended with a clean `check_zone` and `check_slab`. Cells are medians with ranges,",
        "or the value of every run; changes are means over pairs with 95 % bootstrap intervals. A run",
        f"*jumps* when it taints at least {JUMP} superpageblocks within some minute.",
        "",
        "![Tainted superpageblocks over the burst, and what the last count hangs on](_static/flagship.svg)",
        "",
        "## By policy",
        "",
        *policy_table(raw),
        "",
        "## Runs that jump",
        "",
        *_ABOUT_JUMPS,
        "",
        *jump_table(raw),
        "",
        *jump,
        "## What slab shrink as posted changes",
        "",
        *pair_table(raw),
        "",
    ]
    if any(key.startswith("50 asked for") for key in raw):
        lines += ["## Fifty gigantic pages", "", *_ABOUT_GIGANTIC, "", *gigantic_table(raw), ""]
    if any(":low|" in key or ":high|" in key for key in raw):
        lines += ["## What the count at the end hangs on", "", *_ABOUT_TORNADO, "", *tornado_table(raw), ""]
    lines += ["## Counters at the end", "", *counter_table(raw), ""]
    lines.append(f"Wall time per run, two at a time on two cores: {spread(walls)} s.")
    return "\n".join(lines) + "\n"


_ABOUT_JUMPS = [
    "A jump ends on a plateau, as the published count does. Beside each stands the same replicate in",
    "which the watermarks do not count barred pages: free pages of tainted superpageblocks that the hard",
    "reserve keeps from movable requests. Counted as free they let kswapd sleep while requests reclaim for",
    "themselves: [the study of kswapd](studies/starve.md).",
]
_ABOUT_GIGANTIC = [
    f"From 240 s on {ASKED_FOR} pages of 1 GiB are asked for, one every 4 s, and kept. All memory is in use:",
    "guests, slab, and page cache down to the watermarks. Mainline is `alloc_contig_pages`, simplified.",
]
_ABOUT_TORNADO = [
    "One input varied at a time, `v1@30`: the change of the count at the end against the file's own value,",
    "replicate by replicate. The columns of jumps say of how many pairs; of a few an interval is too narrow.",
]


def bars(raw: Raw) -> list[tuple[str, float, float]]:
    """Inputs with the least and greatest median last count, both ends and the file's own; widest first."""
    base = statistics.median(ends(of(raw, ON)))
    out = []
    for name in TORNADO:
        runs = (of(raw, f"{name}:{side}") for side in ("low", "high"))
        found = [statistics.median(ends(of_side)) for of_side in runs if of_side]
        out.append((name, min([base, *found]), max([base, *found])))
    return sorted(out, key=lambda bar: (bar[1] - bar[2], bar[0]))


def finding(raw: Raw) -> list[str]:
    """What the study found, for the front page: published and ours, and what it hangs on."""
    off, on = of(raw, OFF), of(raw, ON)
    ran, freed, pages = (
        spread([run["vm"][f"spb_slab_shrink_{name}"] for run in on]) for name in ("ran", "freed", "pages")
    )
    *most, last = [f"{name} ({low:g} to {high:g})" for name, low, high in bars(raw)[:3]]
    return [
        f"| tainted superpageblocks, of 238 | after boot | after the burst of {480 // 60} minutes |",
        "|---|---|---|",
        f"| published, shrink off | {PUBLISHED_BOOT} | {PUBLISHED_END} |",
        "| published, shrink on | not given | not given |",
        *(
            f"| simulated, shrink {name}, {len(runs)} runs | {spread([r['tainted'][0] for r in runs])} "
            f"| {spread(ends(runs))} |"
            for name, runs in (("off", off), ("on", on))
        ),
        "",
        f"Shrink as posted changes the count by {told(change(raw, ON, OFF))} superpageblocks: the worker ran",
        f"{ran} times, freed {freed} objects and gave back {pages} pages of slab.",
        "",
        f"{how_many_jump(raw)} A run jumps when it taints at",
        f"least {JUMP} superpageblocks within a minute: [why](docs/flagship.md).",
        "",
        *_asked(raw),
        f"What the last count hangs on, one input varied at a time, medians of {_runs_an_end(raw)} runs:",
        f"{', '.join(most)}, and {last}; {_reached(raw)}",
        f"A run took {spread([run['wall_s'] for run in (*off, *on)])} s, two at a time on two cores.",
    ]


def _runs_an_end(raw: Raw) -> str:
    """How many runs stand behind an end of an input's range, least and most."""
    numbers = [
        len(runs) for name in TORNADO for side in ("low", "high") if (runs := of(raw, f"{name}:{side}"))
    ]
    few, many = min(numbers, default=0), max(numbers, default=0)
    return f"{few} to {many}" if few < many else f"{many}"


def _asked(raw: Raw) -> list[str]:
    """What asking for fifty gigantic pages gives, in a sentence."""
    got = {
        name: [r["vm"]["contig_alloc_success"] for r in of(raw, f"50 asked for: {name}")]
        for name in ("mainline", "v1@30", "v2", "v1@30, 1 % pinned one by one")
    }
    if not all(got.values()):
        return []
    *first, pinned = got.items()
    told_ = ", ".join(f"{name} {spread(values)}" for name, values in first)
    return [
        f"Of {ASKED_FOR} gigantic pages asked for during the burst each policy gets: {told_}. With 1 % of",
        f"movable pages pinned one by one `v1@30` gets {spread(pinned[1])}.",
        "",
    ]


def _reached(raw: Raw) -> str:
    """Whether any varied input comes to the published count."""
    most = max(high for _, _, high in bars(raw))
    return f"none reaches {PUBLISHED_END}." if most < PUBLISHED_END else f"the greatest is {most:g}."


def front(text: str, raw: Raw) -> str:
    """The front page with its finding brought up to date."""
    head, rest = text.split(BEGIN)
    body = "\n".join(finding(raw))
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{rest.split(END)[1]}"
