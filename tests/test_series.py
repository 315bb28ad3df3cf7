"""The table of the 45 patches: complete, and true to the switches that exist."""

from __future__ import annotations

import pytest

from spbfast.config import presets, series
from spbfast.config.explained import explain
from spbfast.config.schema import key_docs

PATHS = {doc.path for doc in key_docs()}
SWITCHES = {f"policy.{key}" for key in presets.flat_values("v1")}


def _key_exists(path: str) -> bool:
    """Whether a configuration may write the path; elements of lists are named by their kind."""
    head, _, rest = path.partition(".")
    return path in PATHS or f"{head}.{rest}" in PATHS


def test_every_patch_is_there_once_in_order() -> None:
    assert [row.patch for row in series.patches()] == list(range(1, series.NR_PATCHES + 1))


@pytest.mark.parametrize("row", series.patches() + series.v2_only(), ids=lambda r: f"{r.known_by}-{r.patch}")
def test_a_row_keeps_its_promise(row: series.Patch) -> None:
    assert row.status in series.STATUSES
    assert [key for key in row.keys if not _key_exists(key)] == []
    if row.status == series.MODELLED:
        assert row.behavioural or row.sim == "emit the same records"
        assert row.keys, "a modelled patch names its switch"
    if row.status == series.OUT_OF_SCOPE:
        assert row.sim.startswith("X")
        assert not row.keys
    assert row.behaviour
    assert row.how


def test_every_behavioural_patch_is_modelled() -> None:
    wrong = [row.patch for row in series.patches() if row.behavioural and row.status == series.OUT_OF_SCOPE]
    assert wrong == []


def test_every_switch_names_its_patch_or_why_it_has_none() -> None:
    orphans = [
        key for key in sorted(SWITCHES) if not series.patches_of(key) and key not in series.keys_of_no_patch()
    ]
    assert orphans == [], "give each a row in spbfast/config/series.json: a patch's keys, or no_patch"
    assert [key for key in series.keys_of_no_patch() if series.patches_of(key)] == []


def test_every_switch_has_a_certainty() -> None:
    assert {f"policy.{key}" for key in series.certain_keys()} == SWITCHES, (
        "spbfast/config/series.json: certainty must name every policy key and no other"
    )
    assert series.certainty("policy.slab_shrink") == ("patch", "the patch itself, whole")
    assert series.certainty("pcp.batch") is None


def test_uncertain_points_name_keys_or_what_is_open() -> None:
    for point in series.uncertain_points():
        assert point.keys or point.open
        assert [key for key in point.keys if not _key_exists(key)] == []


def test_steps_of_a_key() -> None:
    assert series.steps_of("policy.slab_shrink") == [("v1@30", "on")]
    assert series.steps_of("policy.slab_shrink_throttle") == [("v1@32", "0s")]
    assert series.steps_of("policy.sticky_content") == []
    assert series.steps_of("workers.defrag_cooldown") == []


@pytest.mark.parametrize("key", sorted(SWITCHES))
def test_explain_tells_meaning_source_certainty_and_presets(key: str) -> None:
    text = explain(key)
    for word in ("  value:", "  source:", "  patches:", "  certainty:", "  by preset:"):
        assert word in text, text
