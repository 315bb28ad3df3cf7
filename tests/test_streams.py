"""Output that cannot be written: no command ends as a bug, and no sweep ends at all."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spbfast.cli import streams
from spbfast.cli.options import app
from spbfast.sweep import run_sweep
from tests.sweep_tools import ENGINE, ROOT, make_job

# Each command runs interpreted in a process of its own, in both passes alike.
pytestmark = pytest.mark.shell

DUMPS = ROOT / "tests" / "observed"
# Each verb in its cheapest form; "out" is a finished sweep of the fake engine.
SWEEP = ["sweep", "job.yaml", "-o", "out", "--set", "executor.kind=serial", "--no-report"]
VERBS: dict[str, list[str]] = {
    "sweep": SWEEP,
    "status": ["status", "out"],
    "watch": ["watch", "out"],
    "ls": ["ls", "."],
    "resume": ["resume", "out", "--set", "executor.kind=serial", "--no-report"],
    "consolidate": ["consolidate", "out"],
    "report": ["report", "out"],
    "plot": ["plot", "out", "-o", "/nowhere/x.png"],
    "map": ["map", "--help"],
    "compare": ["compare", "out", "--metric", "spb_tainted"],
    "knee": ["knee", "out"],
    "validate": ["validate", "job.yaml"],
    "schema": ["schema"],
    "presets": ["presets"],
    "explain": ["explain"],
    "version": ["version"],
    "init": ["init", "--list"],
    "doctor": ["doctor", "out"],
    "read": ["read", str(DUMPS / "buddyinfo-and-indices.txt")],
    "diagnose": ["diagnose", str(DUMPS / "failure-order3-dmesg.txt")],
    "run": ["run", "nowhere.yaml"],
    "rerun": ["rerun", "out", "nosuchpoint"],
    "export": ["export", "out", "--csv", "-o", "/nowhere/x.csv"],
    "sensitivity": ["sensitivity", "out"],
    "records": ["records", "out/results.nc"],
    "verify": ["verify", "nowhere.npz"],
    "bench": ["bench", "--help"],
    "capture": ["capture", "--help"],
    "replay": ["replay", "nowhere.spbcap"],
    "fit": ["fit", "nowhere.spbcap"],
    "warmup": ["warmup", "--help"],
}
IN_DIRECTORY = {"sweep", "resume"}  # their results are in a directory, whatever becomes of their words
SILENT_ERRORS = {"run", "export", "plot", "sensitivity", "knee", "records", "rerun", "replay", "fit"}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    environ = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sink_tool", json.dumps(VERBS)],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_table_has_every_verb() -> None:
    assert set(VERBS) == {command.name for command in app.registered_commands}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_ends_as_a_bug_when_it_cannot_write(outcomes: dict[str, Any], verb: str) -> None:
    found = outcomes[verb]
    usual, said = found.pop("sound")
    assert "Traceback" not in said
    assert usual != 1 or verb == "doctor", said
    for sink, (code, heard) in found.items():
        where = f"{verb}, {sink}: {heard}"
        assert "Traceback" not in heard, where
        assert "internal error" not in heard, where
        lost_output = not sink.endswith("err") and not sink.startswith("closed")
        if verb in IN_DIRECTORY or not lost_output or verb in SILENT_ERRORS:
            assert code == usual, where
        else:
            assert code == (141 if sink.startswith("broken") else 5), where
        if sink == "full out" and code == 5 != usual:
            assert "standard output cannot be written: No space left on device" in heard, where


def test_a_sweep_without_a_display_runs_to_its_end_and_keeps_its_log(tmp_path: Path) -> None:
    class Dead(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    for name, stream in (("dead", Dead()), ("closed", io.StringIO())):
        if name == "closed":
            stream.close()
            stream.isatty = lambda: False  # type: ignore[method-assign]
        job = make_job(tmp_path)
        outcome = run_sweep(job, tmp_path / name, engine=ENGINE, stream=stream)
        assert (outcome.exit_code, outcome.n_ok) == (0, 15)
        log = (tmp_path / name / "logs" / "sweep.log").read_text()
        assert "15 of 15 runs ok" in log
        assert "cannot be shown" in log


def test_text_goes_on_when_a_pipe_is_full_and_does_not_block() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    got: list[bytes] = []

    def drain() -> None:
        time.sleep(0.2)
        while piece := os.read(read, 1 << 16):
            got.append(piece)

    reader = threading.Thread(target=drain)
    reader.start()
    stream = streams._guarded(None, write)
    text = "x" * 1_000_000
    stream.write(text)
    stream.flush()
    os.close(write)
    reader.join()
    assert b"".join(got).decode() == text


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_file_names_are_printed_as_their_bytes(encoding: str) -> None:
    read, write = os.pipe()
    stream = streams._guarded(io.TextIOWrapper(io.BytesIO(), encoding=encoding), write)
    stream.write(os.fsdecode(b"r\xc3\xa9sultats/\xff") + " ≥")
    stream.flush()
    os.close(write)
    found = os.read(read, 100)
    os.close(read)
    assert found.endswith(b"\\u2265" if encoding == "latin-1" else " ≥".encode())
    assert b"/\xff" in found
