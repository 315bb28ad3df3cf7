"""The report: one safe, self-contained page, also for broken and partial sweeps."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spbfast.results.open import open_results
from spbfast.results.plots import point_labels, short_names
from spbfast.results.report import build_report
from spbfast.results.report.page import choose_points
from spbfast.results.report.tables import number
from spbfast.sweep import run_sweep
from tests.sweep_tools import ENGINE, GRID, make_job

pytestmark = pytest.mark.shell

EVIL = "</pre><script>alert(1)</script><img src=http://evil.example/x.png>"


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on"), f"{tag} has the handler {name}"


def report_of(directory: Path, sweep: str | None = None, **settings: object) -> str:
    directory.mkdir(exist_ok=True)
    options = {"sweep": sweep} if sweep is not None else {}
    job = make_job(directory, **options, **settings)
    outcome = run_sweep(job, directory / "out", engine=ENGINE, quiet=True)
    path = build_report(outcome.directory)
    assert path == outcome.directory / "report.html"
    assert path.stat().st_size < 5_000_000
    return path.read_text(encoding="utf-8")


def check_safe(text: str) -> Page:
    page = Page(text)
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert page.tags.count("script") == len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text, "only the page's own script may run"
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert all(a.startswith("#") for a in page.addresses), page.addresses
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert {a[1:] for a in page.addresses} <= set(page.ids)
    return page


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_of(tmp_path_factory.mktemp("report"))


def test_gigantic_pages_are_as_large_as_the_superpageblocks_of_these_results(tmp_path: Path) -> None:
    machine = "machine: {memory: 4GiB, spb_size: 256MiB}\n"
    text = report_of(tmp_path, sweep=machine + GRID)
    assert "A gigantic page is as large as a superpageblock, here 256 MiB." in text
    words = re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<pre>.*?</pre>", "", text, flags=re.DOTALL))
    assert "1 GiB" not in words
    sizes = "sweep: {grid: {machine.spb_size: [16MiB, 64MiB]}}\n"
    assert "here 16 MiB, 64 MiB." in report_of(tmp_path / "two", sweep="machine: {memory: 4GiB}\n" + sizes)


def test_page_is_self_contained(text: str) -> None:
    page = check_safe(text)
    assert page.tags.count("figure") == 4
    hosts = set(re.findall(r"https?://([^/\"'\s>]+)", text))
    assert hosts <= {"www.w3.org"}, "only the names of XML languages may look like addresses"


def test_page_tells_the_finding(text: str) -> None:
    plain = re.sub(r"<[^>]+>", " ", text)
    for words in (
        "15 ok, 0 failed, 0 not done",
        "throttle 50 ms, target objs 4096",
        "baseline: slab shrink off",
        "95 % interval",
        "lower is better",
        "higher is better",
        "spb_slab_shrink_ran",
        "digest of the results",
        "root seed",
        "spbfast sweep",
    ):
        assert words in plain, words
    assert "failed runs" not in plain
    order = [
        text.index(f">{h}</h2>")
        for h in (
            "Tainted superpageblocks at the end",
            *("Superpageblocks over time", "Counters at the end", "Provenance"),
        )
    ]
    assert order == sorted(order)


def test_failures_come_first_and_everything_is_escaped(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 666]}}\n"
    text = report_of(tmp_path, sweep, comment=EVIL)
    page = check_safe(text)
    assert "img" not in page.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "no page left for &lt;kernel&gt; &amp; co" in text
    assert text.index('id="failures"') < text.index("Superpageblocks over time")
    assert "3 failed runs" in text
    assert "0 to 2" in text
    assert text.count('<summary class="soft">traceback') == 1
    assert "no baseline" in text


def test_baseline_alone_and_all_failed(tmp_path: Path) -> None:
    text = report_of(tmp_path, "sweep: {grid: {policy.slab_shrink_target_objs: [666]}}\n")
    check_safe(text)
    assert "3 failed runs" in text


def test_single_point_without_a_sweep(tmp_path: Path) -> None:
    text = report_of(tmp_path, "", replicates=1)
    check_safe(text)
    assert "1 ok, 0 failed" in text


def test_summary_level_has_no_figures_over_time(tmp_path: Path) -> None:
    job = make_job(tmp_path, "output.level=summary")
    outcome = run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    text = build_report(outcome.directory).read_text()
    check_safe(text)
    assert "No series were recorded" in text


def test_many_points_draw_a_choice(tmp_path: Path) -> None:
    targets = ", ".join(str(500 + 50 * k) for k in range(12))
    sweep = (
        "sweep:\n  baseline: {policy.slab_shrink: false}\n"
        f"  grid: {{policy.slab_shrink_target_objs: [{targets}]}}\n"
    )
    text = report_of(tmp_path, sweep, replicates=1)
    check_safe(text)
    assert "5 more points are in the tables only" in text
    ds = open_results(tmp_path / "out")
    chosen = choose_points(ds)
    assert len(chosen) == 8
    assert chosen[0] == 0


def test_labels(tmp_path: Path) -> None:
    outcome = run_sweep(make_job(tmp_path), tmp_path / "out", engine=ENGINE, quiet=True)
    assert point_labels(open_results(outcome.directory)) == [
        "baseline: slab shrink off",
        "throttle 50 ms, target objs 512",
        "throttle 50 ms, target objs 4096",
        "throttle 500 ms, target objs 512",
        "throttle 500 ms, target objs 4096",
    ]


def test_numbers_for_people() -> None:
    minus = "\N{MINUS SIGN}"
    shown = [number(x) for x in (85, -54.0, 0.123456, 12345.6, float("nan"))]
    assert shown == ["85", f"{minus}54", "0.123", "12,346", "none"]
    assert [number(x, 1) for x in (-0.04, -3.25, 1e6)] == ["0.0", f"{minus}3.2", "1,000,000.0"]


def test_short_names_stay_unique() -> None:
    paths = ["policy.throttle", "slab.throttle", "policy.target"]
    assert list(short_names(paths, paths).values()) == ["policy.throttle", "slab.throttle", "target"]


def test_a_page_of_two_sweeps_and_a_page_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = make_job(tmp_path)
    for name in ("one", f"two{EVIL[6:31].replace('/', '')}"):
        run_sweep(job, tmp_path / name, engine=ENGINE, quiet=True)
    paths = [Path("one"), Path(f"two{EVIL[6:31].replace('/', '')}")]
    made = build_report(paths)
    assert made == Path("report.html")
    text = made.read_text(encoding="utf-8")
    check_safe(text)
    assert text.count("digest of the results") == 2
    assert "<h3>one</h3>" in text
    assert "sf.open_together([" in text
    alone = build_report([p / "results.nc" for p in paths], tmp_path / "files.html").read_text(
        encoding="utf-8"
    )
    check_safe(alone)
    assert "digest of the results" not in alone
    assert alone.count("spbfast sweep") >= 2
