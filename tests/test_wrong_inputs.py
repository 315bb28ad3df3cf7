"""Wrong directories and flags, and the exact text that users get for each: tests/wrong_inputs.txt.

`python -m tests.test_wrong_inputs` writes the texts anew; read the difference before committing it. Wrong
YAML and CSV files are in test_config_errors.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spbfast import cli
from spbfast.config import load_config
from spbfast.sweep import run_sweep
from tests import fake_engine

GOLDEN = Path(__file__).with_name("wrong_inputs.txt")
COMMANDS = """\
sweep nowhere.yaml
sweep job.yaml -o job.yaml
sweep job.yaml -o thesis
sweep job.yaml -o out --set seed=8
sweep job.yaml -o out --set duration=9s
sweep job.yaml --set policy.slab_shrink
sweep job.yaml --set policy.slab_shrnk=true
sweep job.yaml --grid policy.slab_shrink_throttle
sweep job.yaml --grid policy.slab_shrink_throttle=10,20
sweep job.yaml --grid replicates=1,2
sweep job.yaml --dry-run -o out --set output.level=summary
run job.yaml -o nowhere/one.nc
status nowhere
status thesis
watch thesis
watch out --metric spb_tanted
watch out --metric free_pages
watch out --interval 5x
ls nowhere
resume thesis
rerun out xyz
rerun out 0000000000000001
rerun out aa:7
consolidate nowhere
export out
export out --csv --zarr
export out --csv -o job.yaml
export out --csv --variable spb_tinted -o new.csv
export out --csv -o nowhere/new.csv
sensitivity out
doctor nowhere
doctor --repair
report thesis
knee out
knee out --within 0
compare out --metric spb_tinted
compare out --by policy.nothing
compare out --at noon
init job.yaml
init new.yaml --template swep
explain policy.slab_shrnk
statsu out
""".splitlines()
JOB = """\
name: job
duration: 4s
seed: 7
replicates: 2
executor: {kind: serial}
sweep:
  baseline: {policy.slab_shrink: false}
  grid: {policy.slab_shrink_target_objs: [512, 2048]}
"""


@contextlib.contextmanager
def playground() -> Iterator[Path]:
    """A directory with a job, its results and a directory of somebody else's, as working directory."""
    before = Path.cwd()
    real = sys.modules.get("spbfast.model.engine")
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        sys.modules["spbfast.model.engine"] = fake_engine
        try:
            Path("job.yaml").write_text(JOB, encoding="utf-8")
            Path("thesis").mkdir()
            Path("thesis", "chapter1.tex").write_text("precious")
            run_sweep(load_config("job.yaml"), "out", engine="tests.fake_engine", quiet=True)
            yield Path(name)
        finally:
            os.chdir(before)
            sys.modules.pop("spbfast.model.engine")
            if real is not None:
                sys.modules["spbfast.model.engine"] = real


def answer_to(command: str) -> str:
    """Exit code and words of one command."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(shlex.split(command))
        except SystemExit as stop:
            code = stop.code or 0
    # Identities change whenever the configuration gets a key.
    words = re.sub(r"\b[0-9a-f]{16}(?=[,\n])", "<id>", out.getvalue() + err.getvalue())
    return f"$ spbfast {command}\n{words}(exit {code})\n"


def without_braces(answer: str) -> str:
    """The answer without what some versions of Typer put around and behind arguments in a usage line."""
    usage = re.compile(r"^Usage: .*", re.M)
    bare = {ord("{"): "", ord("}"): ""}
    return usage.sub(lambda m: m.group().translate(bare).replace("...", ""), answer)


def golden() -> dict[str, str]:
    """The recorded answers by command."""
    blocks = GOLDEN.read_text(encoding="utf-8").split("$ spbfast ")[1:]
    return {b.partition("\n")[0]: f"$ spbfast {b}".rstrip("\n") + "\n" for b in blocks}


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    with playground() as home:
        before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
        found = {c: answer_to(c) for c in COMMANDS}
        after = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
        assert after == before, "a wrong input left something behind"
    return found


@pytest.mark.compiled
@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_input_gets_its_message(command: str, answers: dict[str, str]) -> None:
    answer = answers[command]
    assert without_braces(answer) == without_braces(golden()[command])
    assert "(exit 0)" not in answer
    assert "(exit 1)" not in answer
    assert "Traceback" not in answer


def test_the_recorded_answers_are_those_of_the_commands() -> None:
    assert list(golden()) == COMMANDS


if __name__ == "__main__":
    with playground():
        texts = [answer_to(c) for c in COMMANDS]
    GOLDEN.write_text("\n".join(texts), encoding="utf-8")
