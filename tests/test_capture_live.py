"""Recording the kernel that runs here, where there are root and tracefs; small, and undone.

SPBFAST_REQUIRE=tracefs demands that these run.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spbfast.errors import LiveError
from spbfast.jit.decorators import INTERPRETED
from spbfast.live import CaptureRequest, capture
from spbfast.live.capture import event_names
from spbfast.live.command import ends_by_signal
from spbfast.live.machine_tables import read_machine, zone_spans
from spbfast.live.tracefs import PREFIX, own_instance, remove_stale_instances, start_time_of
from spbfast.observed import read_dump
from spbfast.observed.event_columns import read_batches
from tests.tracefs_tools import needed_tracefs

ROOT = Path(__file__).resolve().parents[1]
TOUCH = """
import mmap
for _ in range({turns}):
    m = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m[::4096] = b"1" * (len(m) // 4096)
    m.close()
"""


@pytest.fixture
def tracefs() -> Path:
    if INTERPRETED:
        pytest.skip("interpreted, decoding cannot keep up with the kernel")
    return needed_tracefs()


def instances(tracefs: Path) -> list[str]:
    """Instances of this process and its children; other tests may have theirs."""
    return [p.name for p in (tracefs / "instances").glob(f"{PREFIX}{os.getpid()}-*")]


def touching(turns: int) -> list[str]:
    return [sys.executable, "-c", TOUCH.format(turns=turns)]


def test_pages_that_a_command_touches_are_in_the_capture(tracefs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.spbcap"
    result = capture(CaptureRequest(path, command=touching(4), seconds=60))
    assert result.exit_code == 0
    assert instances(tracefs) == []
    seen = read_dump(path)
    (trace,) = seen.traces
    assert trace.events["mm_page_alloc"] > 4 * 8000
    assert trace.events["mm_page_free"] > 4 * 8000
    assert trace.events.total() == result.events
    assert {s.heading.split(":")[0] for s in seen.snapshots} == {"before", "after"}
    assert len(seen.of_kind("pagetypeinfo")) == len(seen.of_kind("zoneinfo")) == 2


def test_time_goes_on_and_pages_are_those_of_the_machine(tracefs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.spbcap"
    result = capture(CaptureRequest(path, command=touching(2), seconds=60))
    times, pfns = [], []
    for kinds, batch in read_batches(path):
        times.append(batch.time_ns)
        allocs = batch.kind == kinds.number("mm_page_alloc")
        pfns.append(batch.fields[allocs, kinds.fields[kinds.number("mm_page_alloc")].index("pfn")])
    steps = np.diff(np.concatenate(times))
    assert (steps < 0).sum() <= result.late
    spans = zone_spans(read_machine("now").texts["/proc/zoneinfo"])
    pages = np.concatenate(pfns)
    pages = pages[pages > 0]
    inside = sum(((pages >= s.start_pfn) & (pages < s.start_pfn + s.pages)).sum() for s in spans)
    assert inside == len(pages) > 0


def test_the_text_of_the_kernel_tells_the_same_events(tracefs: Path, tmp_path: Path) -> None:
    """Our reading of the binary pages against the kernel's own, one buffer each, of the same moments."""
    from spbfast.live.recorder import Recorder
    from spbfast.live.tracefs import enable_events, read_format, set_instance
    from spbfast.observed.event_columns import MAX_EVENT_FIELDS

    events = [read_format(tracefs, f"kmem:{n}", MAX_EVENT_FIELDS) for n in ("mm_page_alloc", "mm_page_free")]
    cpus = sorted(int(p.name[3:]) for p in (tracefs / "per_cpu").glob("cpu[0-9]*"))
    with own_instance(tracefs, 4096) as instance:
        enable_events(instance, [e for e in events if e is not None])
        set_instance(instance, "tracing_on", "1")
        subprocess.run(touching(1), check=True)
        set_instance(instance, "tracing_on", "0")
        text = (instance / "trace").read_text()
        recorder = Recorder(instance, cpus, [e for e in events if e is not None], 4096)
        try:
            batches = list(recorder.round(is_last=True))
        finally:
            recorder.close()
    (tmp_path / "trace.txt").write_text(text)
    from spbfast.observed import read_events

    theirs = [
        (e.name, e.cpu, e.fields["pfn"], e.fields["order"]) for e in read_events(tmp_path / "trace.txt")
    ]
    names = ("", "mm_page_alloc", "mm_page_free")
    ours = [
        (names[kind], cpu, values[0], values[1])
        for batch in batches
        for kind, cpu, values in zip(
            batch.kind.tolist(), batch.cpu.tolist(), batch.fields.tolist(), strict=True
        )
    ]
    assert len(ours) > 10_000
    assert sorted(ours) == sorted(theirs)


def test_no_names_of_tasks_and_no_command_are_in_the_file(tracefs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.spbcap"
    capture(CaptureRequest(path, command=[*touching(1), "secret-argument"], seconds=30))
    from spbfast.observed.capture_file import read_chunks

    for _, data in read_chunks(path):
        assert b"secret-argument" not in data
        assert b"python" not in data


def test_a_killed_recorder_leaves_nothing_for_long(tracefs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spbfast.cli", "capture", "--trace", "60s", "-o", str(tmp_path / "x")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        name = f"{PREFIX}{process.pid}-{start_time_of(process.pid)}"
        path = tracefs / "instances" / name
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert path.exists()
        assert name not in remove_stale_instances(tracefs)
        process.kill()
        process.wait()
        assert path.exists()
        assert name in remove_stale_instances(tracefs)
        assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(tracefs: Path, tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "spbfast.cli", "capture", "-o", str(tmp_path / "x"), "--", "sleep", "60"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        path = tracefs / "instances" / f"{PREFIX}{process.pid}-{start_time_of(process.pid)}"
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode not in (0, 1)
        assert not path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_signal_right_behind_mkdir_leaves_no_instance(
    tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler of a signal that arrives within mkdir raises as soon as mkdir is done."""
    make = Path.mkdir

    def make_and_end(path: Path) -> None:
        make(path)
        raise SystemExit(128 + signal.SIGHUP)

    monkeypatch.setattr(Path, "mkdir", make_and_end)
    with pytest.raises(SystemExit), own_instance(tracefs, 64):
        pass
    assert instances(tracefs) == []


def test_an_interrupt_ends_the_recording_and_keeps_it(tracefs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spbfast.cli", "capture", "-o", str(tmp_path / "x"), "--trace", "60s"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        path = tracefs / "instances" / f"{PREFIX}{process.pid}-{start_time_of(process.pid)}"
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert not path.exists()
    assert len(read_dump(tmp_path / "x").of_kind("zoneinfo")) == 2


@pytest.mark.compiled
def test_without_events_the_tables_are_recorded_by_anybody(tmp_path: Path) -> None:
    path = tmp_path / "x.spbcap"
    result = capture(CaptureRequest(path))
    assert result.events == 0
    seen = read_dump(path)
    assert seen.traces == []
    assert seen.of_kind("zoneinfo")
    assert any("pinned" in text for text in seen.receipt.missing)


def test_the_shell_script_is_read(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.txt"
    done = subprocess.run(["sh", str(ROOT / "scripts/snapshot.sh")], capture_output=True, check=True)
    assert done.stderr == b""
    path.write_bytes(done.stdout)
    assert {"zoneinfo", "buddyinfo", "vmstat", "meminfo"} <= {s.kind for s in read_dump(path).snapshots}


def test_names_of_events_are_checked() -> None:
    assert event_names(["request", "kmem:mm_page_free"]) == ["kmem:mm_page_alloc", "kmem:mm_page_free"]
    for wrong in ("pages", "kmem", "kmem:", "../x:y", "kmem:mm/../x"):
        with pytest.raises(LiveError, match="neither"):
            event_names([wrong])


def test_a_command_that_is_not_there_is_one_sentence(tracefs: Path, tmp_path: Path) -> None:
    with pytest.raises(LiveError, match="no-such-command can't be run"):
        capture(CaptureRequest(tmp_path / "x", command=["no-such-command"]))
    assert instances(tracefs) == []
    assert list(tmp_path.iterdir()) == []


def test_json_of_the_command_line(tracefs: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "spbfast.cli",
        "capture",
        "--json",
        "-o",
        str(tmp_path / "x"),
        "--",
        "false",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert json.loads(done.stdout)["exit_code"] == 1


def test_settings_of_memory_management_are_read() -> None:
    """A sysctl answers ENOMEM when it is read into too large a buffer."""
    path = Path("/proc/sys/vm/swappiness")
    if not path.is_file():
        pytest.skip("no /proc/sys/vm here")
    seen = read_machine("before")
    assert seen.settings[str(path)] == path.read_text()
    assert not [why for why in seen.refused.values() if why == os.strerror(errno.ENOMEM)]


def test_a_signal_waits_for_what_only_its_maker_could_take_away() -> None:
    made = []

    def make() -> None:
        with ends_by_signal() as asked:
            with asked.held():
                signal.raise_signal(signal.SIGTERM)
                made.append("in full")
            made.append("too late")

    with pytest.raises(SystemExit) as ended:
        make()
    assert ended.value.code == 128 + signal.SIGTERM
    assert made == ["in full"]


def test_a_signal_outside_of_it_ends_at_once() -> None:
    def make() -> None:
        with ends_by_signal() as asked:
            with asked.held():
                pass
            signal.raise_signal(signal.SIGHUP)
            pytest.fail("it went on")

    with pytest.raises(SystemExit):
        make()
