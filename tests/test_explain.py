"""`spbfast explain`: every word that results, configurations and errors use has a meaning, and one place."""

from __future__ import annotations

import re

import pytest

from spbfast.config.explained import LISTS, explain, listing
from spbfast.constants import Err, Outcome
from spbfast.errors import EXIT_CODES, ConfigError, SpbfastError
from spbfast.model.state.vmstat import VM_NAMES
from spbfast.outputs.counters import counter_docs, rung_docs
from spbfast.outputs.variables import VARIABLES
from spbfast.results.report.metrics import COUNTER_WORDS
from tests.markdown_tools import ROOT
from tests.page_tools import spbfast

pytestmark = pytest.mark.shell


def test_every_counter_has_a_row_and_every_row_a_counter() -> None:
    assert set(counter_docs()) == set(VM_NAMES)
    assert all(doc.meaning and doc.units for doc in counter_docs().values())

    assert sorted(rung_docs()) == sorted(outcome.name.lower() for outcome in Outcome)


def test_the_report_and_the_table_agree_on_what_is_better() -> None:
    assert {n: d for n, (_, d) in COUNTER_WORDS.items()} == {
        n: counter_docs()[n].direction for n in COUNTER_WORDS
    }


def test_every_word_of_every_list_is_explained() -> None:
    for kind in LISTS:
        rows = listing(kind)
        assert rows
        for word, meaning in rows:
            text = explain(word)
            assert text.startswith(word), (kind, word)
            assert meaning.splitlines()[0] in text if meaning else True, (kind, word)
    assert {str(code) for code in EXIT_CODES} | {code.name for code in Err if code} <= set(
        dict(LISTS["errors"]())
    )
    ours = {c.__name__ for c in SpbfastError.__subclasses__() if c.__module__ == SpbfastError.__module__}
    assert ours <= set(dict(LISTS["errors"]()))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("spb_tainted", ["metric, by time", "lower is better", "cannot become a gigantic page"]),
        ("contig_pages_per_1g", ["metric"]),
        ("pgmigrate_success", ["counter", "pages", "the kernel's own, in /proc/vmstat"]),
        ("spb_slab_shrink_ran", ["counter", "runs", "the series'"]),
        ("taints_take_empty_superpageblock", ["lower is better", "an empty superpageblock"]),
        ("claim_fallback_empty", ["__rmqueue_claim()", "spb_visited_claim_fallback_empty"]),
        ("claim_partial_pageblock", ["PASS_2B", "docs/spec/exact.md", "certainty"]),
        ("4", ["exit code", "ResultsError", "belongs to another job"]),
        ("SimulationError", ["exit: 3"]),
        ("OBJECTS_FULL", ["raise slab.objects_max"]),
        ("slab_shrink", ["policy.slab_shrink", "by preset"]),
    ],
)
def test_what_is_said(word: str, said: list[str]) -> None:
    text = explain(word)
    assert [part for part in said if part not in text] == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("spb_tantied", "did you mean 'spb_tainted'"),
        ("taints_take_prefered", "did you mean 'taints_take_preferred'"),
        ("SimulatonError", "did you mean 'SimulationError'"),
        ("policy.slab_shrnk", "did you mean 'policy.slab_shrink'"),
        ("memory", "may be "),
        ("99", "lists keys, metrics, counters, rungs, errors"),
        ("", "nothing is called ''"),
    ],
)
def test_unknown_words(word: str, said: str) -> None:
    code, output = spbfast(["explain", word])
    assert code == ConfigError.exit_code
    assert said in output


def test_the_command_lists_kinds() -> None:
    code, output = spbfast(["explain", "metrics"])
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == list(VARIABLES)
    assert spbfast(["explain"]) == spbfast(["explain", "keys"])


def test_the_manual_has_every_exit_code() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \| (.*) \|$", text[text.index("## Exit codes") :], re.M)
    shown = {int(code): meaning.replace("`", "") for codes, meaning in rows for code in codes.split(",")}
    assert set(shown) == set(EXIT_CODES)
    for code, meaning in EXIT_CODES.items():
        assert shown[code].split(";")[0].split(" by ")[0] == meaning.split(";")[0].split(" by ")[0]


def glossary() -> dict[str, list[list[str]]]:
    """Rows of each table of the glossary, by its heading."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    rows = {head: re.findall(r"^\|(.*)\|$", body, re.M)[2:] for head, _, body in parts}
    return {
        head: [[cell.strip() for cell in row.split("|")] for row in found] for head, found in rows.items()
    }


@pytest.mark.parametrize("part", ["Memory", "Superpageblocks", "This program"])
def test_the_glossary_is_in_order_and_explain_knows_its_words(part: str) -> None:
    rows = glossary()[part]
    words = [word.lower() for word, _, _ in rows]
    assert words == sorted(words)
    for _, meaning, word in rows:
        assert meaning
        assert not word or explain(word.strip("`"))
