"""A folder in which the commands and the Python of a page can be carried out within seconds.

Owns the scale: the pages' own jobs keep their sweeps, and run on a machine of eight small superpageblocks, in
which a second lasts a millisecond. What must hold of a page is said by test_page_blocks.py.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from spbfast import cli
from tests.film_tools import made_capture
from tests.markdown_tools import ROOT

CONFIGS = ROOT / "configs"
# Files that a reader brings along, by the names that pages give them.
BROUGHT = {
    "report.txt": "failure-order3-dmesg.txt",
    "zoneinfo.txt": "zoneinfo-then-vmstat.txt",
    "buddyinfo.txt": "buddyinfo-and-indices.txt",
    "trace.txt": "trace-ftrace-mixed.txt",
    "pagetypeinfo.txt": "pagetypeinfo-highatomic.txt",
}
POINTS = "policy.slab_shrink_throttle,policy.slab_shrink_target_objs\n10ms,512\n100ms,2048\n"
# What needs a cluster, a new environment or the network, and what then holds of it instead.
# What records a running kernel needs root; test_capture_live.py and test_live_judge.py record and replay,
# test_fit.py fits.
FITTED = ("spbfast fit build.spbcap", "spbfast validate actors.yaml", "spbfast run actors.yaml")
RECORDINGS = ("sudo ", "spbfast read build.spbcap", "spbfast replay build.spbcap", *FITTED)
ELSEWHERE = ("scripts/", "python3 -m venv", "pip ", ". .venv", "sbatch ", "id=$(sbatch ", *RECORDINGS)
ASKS = "  - {kind: gigantic_pages, enabled: false}\n"  # as in configs/base/devvm-small.yaml
NEEDS_CLUSTER = "kind: slurm"
ONE_ANSWER = "nothing decides it"  # right, where all points of so small a machine end alike
UNITS = {"ms", "s", "min", "h", "B", "KiB", "MiB", "GiB"}


class Command(NamedTuple):
    """One command of a console block, and what the page shows below it."""

    line: str
    shown: str


def commands(text: str) -> list[Command]:
    """The commands of a console block; a backslash continues a line."""
    parts = re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.M)[1:]
    return [Command(line, shown.rstrip()) for line, _, shown in (part.partition("\n") for part in parts)]


def small(text: str) -> str:
    """A job or a command at the scale of the tests."""
    text = re.sub(r"(?<!max: )\b(\d+)s\b", r"\1ms", text)  # min and max stay in order
    text = re.sub(r"\b(\d+)min\b", r"\1ms", text)
    text = re.sub(r"^replicates: \d+", "replicates: 1", text, flags=re.M)
    text = re.sub(r"samples: \d+", "samples: 2", text)
    text = re.sub(r"machine\.memory=\w+", "machine.memory=128MiB", text)
    text = re.sub(r"daemons\.memory=\w+", "daemons.memory=4MiB", text)
    return re.sub(r"^machine:.*?(?=^output:)", _machine(), text, flags=re.M | re.S)


def _machine() -> str:
    """Machine and actors of configs/tiny.yaml."""
    text = (CONFIGS / "tiny.yaml").read_text(encoding="utf-8")
    return text[text.index("machine:") : text.index("sweep:")]


def make_folder(folder: Path) -> Path:
    """The folder of a reader: the ready-made jobs at the scale of the tests, and files brought along."""
    (folder / "configs" / "base").mkdir(parents=True)
    for path in CONFIGS.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        (folder / "configs" / path.name).write_text(text if path.stem == "tiny" else small(text))
    (folder / "configs" / "base" / "devvm.yaml").write_text(f"name: devvm\nduration: 480ms\n{_machine()}")
    (folder / "configs" / "base" / "devvm-small.yaml").write_text(
        f"duration: 60ms\n{_machine().rstrip()}\n{ASKS}"
    )
    shutil.copy(folder / "configs" / "quickstart.yaml", folder / "configs" / "night.yaml")
    for name, sample in BROUGHT.items():
        shutil.copy(ROOT / "tests" / "observed" / sample, folder / name)
    (folder / "points.csv").write_text(POINTS)
    made_capture(folder / "before.spbcap", "before")
    made_capture(folder / "after.spbcap", "before", "after")
    return folder


def spbfast(words: list[str]) -> tuple[int, str]:
    """Exit code and output of a command, in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cli.main(words)
        except SystemExit as end:
            return int(end.code or 0), out.getvalue()
    raise AssertionError("the command did not end")


def words_of(line: str) -> list[str]:
    """A command's words as the shell would give them, without comments and without what it is piped into."""
    words = shlex.split(line, comments=True)
    words = words[: words.index("|")] if "|" in words else words
    return [found for word in words for found in _expanded(word)]


def _expanded(word: str) -> list[str]:
    """A pattern becomes the two smallest files of the repository that it stands for."""
    if "*" not in word:
        return [word]
    found = sorted(ROOT.glob(word), key=lambda path: path.stat().st_size)
    assert found, f"{word} stands for nothing"
    return [str(path) for path in found[:2]]


def carry_out(line: str, shown: str = "") -> str:
    """What a command of a page prints in the current folder; it may fail where the page shows an error."""
    verb, *rest = words_of(small(line))
    assert verb == "spbfast", f"{line}: neither carried out here nor known to belong elsewhere"
    if NEEDS_CLUSTER in line:
        rest += ["--dry-run", "--no-measure"]
    code, output = spbfast(rest)
    assert code == 0 or "error: " in shown or ONE_ANSWER in output, f"$ {line}\n{output}"
    for path in Path().glob("*.yaml"):
        if rest[0] == "init":
            path.write_text(small(path.read_text()))
    return output


def check_elsewhere(line: str) -> None:
    """Of a command that is not carried out: its scripts are there and know their options."""
    words = [word for word in shlex.split(line.replace("$(", " ").replace(")", " "), comments=True)]
    for script in (word for word in words if word.startswith("scripts/")):
        text = (ROOT / script).read_text(encoding="utf-8")
        for option in (word for word in words if word.startswith("--") and line.startswith("scripts/")):
            assert option in text, f"{script} has no {option}"


def shows(output: str, shown: str, *, measured: bool) -> bool:
    """Whether an output holds what a page shows, `...` for anything; of measured ones words outside ()."""
    if measured:
        words = re.findall(r"\b[A-Za-z][\w-]*", re.sub(r"\([^)]*\)", "", shown))
        pieces = [word for word in words if word not in UNITS]
    else:
        pieces = re.split(r"\.\.\.\n?", shown)
    return re.search(".*?".join(map(re.escape, pieces)), output, flags=re.S) is not None


def open_jobs(text: str) -> list[str]:
    """Names of the results that a block of Python opens."""
    opened = re.findall(r"open_(?:results|together)\((.*?)\)", text)
    return re.findall(r'"results/([\w-]+)"', " ".join(opened))


def make_results(name: str) -> None:
    """Results that a page opens without having shown how they are made: by the job of that name."""
    if not Path("results", name).exists():
        code, output = spbfast(["sweep", f"configs/{name}.yaml", "--no-report", "--quiet"])
        assert code == 0, output


def execute(text: str, names: dict[str, Any]) -> None:
    """Run a block of Python with the names of the blocks before it on its page."""
    for name in open_jobs(text):
        make_results(name)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(small(text), "<page>", "exec"), names)
