"""Presets: the matrix, differences, and presets that a configuration names itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import spbfast as sf
from spbfast.config import load_config, presets, series
from spbfast.config.showpresets import difference_data, difference_text, matrix_data, matrix_text
from spbfast.errors import ConfigError

pytestmark = pytest.mark.shell


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("everything", [False, True])
def test_matrix_fits_the_terminal(width: int, everything: bool) -> None:
    text = matrix_text(width, everything=everything)
    assert max(len(line) for line in text.splitlines()) <= width
    for name in presets.ladder():
        assert name in text.split()


def test_matrix_reads_back_as_the_presets() -> None:
    text = matrix_text(1000, everything=True)
    head, *rows = text.split("\n\n")[0].splitlines()
    names = head.split()
    assert names == presets.ladder()
    read: dict[str, dict[str, str]] = {name: {} for name in names}
    for row in rows:
        key, *cells = row.split()
        before = ""
        for name, cell in zip(names, cells, strict=True):
            before = before if cell == "." else cell
            read[name][key] = before
    for name in names:
        assert read[name] == {k: presets.text(v) for k, v in presets.flat_values(name).items()}


def test_matrix_leaves_out_what_never_changes() -> None:
    rows = presets.matrix()
    assert all(len({str(v) for v in row.values()}) > 1 for row in rows.values())
    assert set(presets.matrix(everything=True)) - set(rows)
    assert matrix_data()["aliases"] == {"v1": "v1@45"}


def test_difference_of_two_presets() -> None:
    assert presets.difference("v1@30", "v1@31") == {"borrow_nonmovable": (False, True)}
    assert difference_data("v1@31", "v1@30") == {"borrow_nonmovable": {"v1@31": True, "v1@30": False}}
    assert difference_text("v1", "v1@45") == "v1 and v1@45 are the same"
    assert difference_text("v1@31", "v1@30").splitlines()[1].split() == ["borrow_nonmovable", "on", "off"]
    with pytest.raises(ConfigError, match=r"the last step before that patch is 'v1@32'"):
        presets.difference("v1@30", "v1@33")


def test_own_preset_is_a_policy(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "duration: 1s\n"
        "presets:\n"
        "  gentle: {preset: v1, slab_shrink: false, slab_shrink_triggers: {would_taint: false}}\n"
        "  gentler: {preset: gentle, reserve_floor: 8}\n"
        "  plain: mainline\n"
        "sweep: {grid: {policy: [gentle, gentler, plain, {preset: gentle, contig: false}]}}\n",
    )
    job = load_config(path)
    gentle, gentler, plain, fourth = (
        job.with_values({"policy": value}).policy for value in job.sweep.grid["policy"]
    )
    assert (gentle.preset, gentle.slab_shrink, gentle.reserve_shift) == ("v1@45", False, 5)
    assert gentle.slab_shrink_triggers.below_reserve
    assert not gentle.slab_shrink_triggers.would_taint
    assert (gentler.slab_shrink, gentler.reserve_floor, gentler.reserve_shift) == (False, 8, 5)
    assert (
        plain.canonical()
        == load_config(path, ["policy=mainline"], one_point=True).scenario.policy.canonical()
    )
    assert not fourth.contig
    assert not fourth.slab_shrink


def test_own_preset_under_changes_and_from_the_command_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "duration: 1s\n"
        "presets: {gentle: {preset: v1, slab_shrink: false}}\n"
        "policy: {preset: gentle, contig: false}\n",
    )
    policy = load_config(path).scenario.policy
    assert (policy.slab_shrink, policy.contig, policy.preset) == (False, False, "v1@45")
    again = load_config(path, ["policy=gentle", "policy.evacuate=false"]).scenario.policy
    assert (again.contig, again.evacuate, again.slab_shrink) == (True, False, False)


def test_own_preset_equals_what_it_stands_for(tmp_path: Path) -> None:
    """A name is no part of a point's identity."""
    named = write(tmp_path, "duration: 1s\npresets: {mine: {preset: v1, contig: false}}\npolicy: mine\n")
    one = load_config(named).scenario.canonical()
    other = load_config(write(tmp_path, "duration: 1s\npolicy: {preset: v1, contig: false}\n"))
    assert one == other.scenario.canonical()


def test_presets_of_an_extended_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "duration: 1s\npresets: {mine: {preset: v1, contig: false}}\n", encoding="utf-8"
    )
    path = write(tmp_path, "extends: base.yaml\npolicy: mine\npresets: {mine: {evacuate: false}}\n")
    policy = load_config(path).scenario.policy
    assert (policy.contig, policy.evacuate) == (False, False)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{v1@30: mainline}", "2:11: error: presets.v1@30: 'v1@30' is a built-in preset"),
        ("{a: {preset: b}, b: {preset: a}}", "presets.a: builds on itself (a -> b -> a)"),
        (
            "{a: {preset: v1, slab_shrnk: false}}",
            "presets.a.slab_shrnk: unknown key 'slab_shrnk'; did you mean",
        ),
        ("{a: {preset: v1, contig: 3}}", "presets.a.contig: must be true or false"),
        ("{a: 7}", "presets.a: must be a preset's name, or a mapping"),
        ("{a: {preset: v1@33}}", "presets.a.preset: unknown preset 'v1@33'; the last step before that patch"),
        ("{'a b': v1}", "presets.a b: a preset's name may hold only letters, digits"),
        ("[a]", "presets: must be a mapping"),
    ],
)
def test_wrong_presets_are_located(tmp_path: Path, section: str, message: str) -> None:
    path = write(tmp_path, f"duration: 1s\npresets: {section}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)


def test_misspelt_own_preset_is_suggested(tmp_path: Path) -> None:
    path = write(tmp_path, "duration: 1s\npresets: {gentle: v1}\npolicy: gentel\n")
    with pytest.raises(ConfigError, match=r"job.yaml:3:9: error: policy.preset: .*did you mean 'gentle'"):
        load_config(path)


def test_presets_on_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spbfast import cli

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["presets", *args])
        return int(caught.value.code or 0), *capsys.readouterr()

    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = call()
    assert (code, out) == (0, matrix_text(120) + "\n")
    code, out, _ = call("--json", "--all")
    assert json.loads(out) == matrix_data(everything=True)
    code, out, _ = call("--diff", "v1@30", "v1@31")
    assert out.splitlines()[1].split() == ["borrow_nonmovable", "off", "on"]
    code, out, _ = call("--diff", "v1@30", "v1@31", "--json")
    assert json.loads(out) == {"borrow_nonmovable": {"v1@30": False, "v1@31": True}}
    code, out, _ = call("--steps")
    assert "v1@31     borrow_nonmovable on" in out.splitlines()
    code, _, err = call("--diff", "v1@30", "v3")
    assert code == 2
    assert "unknown preset 'v3'" in err


def test_a_full_preset_is_its_step_with_the_patches_left_off() -> None:
    """Patch 13 stands in v1@15-full, patch 41 in v1-full only; mainline and v2 have none."""
    assert set(presets.difference("v1@15", "v1@15-full")) == {"pcp_owned_pageblocks", "bulk_nofragment"}
    assert presets.difference("v1", "v1-full") == {s: (False, True) for s in presets.left_off().values()}
    assert presets.canonical_name("v1-full") == presets.canonical_name("v1_45-full") == "v1@45-full"
    assert list(presets.full_presets().values()) == [n for n in presets.ladder() if n > "v1@12"][:-1]
    for name in ("mainline-full", "v2-full", "v1@33-full"):
        with pytest.raises(ValueError, match="unknown preset"):
            presets.canonical_name(name)


def test_under_a_half_preset_patch_42_can_act() -> None:
    """The other reading of patch 42: claims of part of a pageblock want half of it free in the pool, too."""
    assert presets.difference("v1@42", "v1@42-half") == {"tainted_claim_needs_half": (False, True)}
    assert list(presets.half_presets()) == ["v1@42-half", "v1@43-half", "v1@45-half"]
    assert presets.canonical_name("v1-half") == "v1@45-half"
    assert presets.flat_values("v1-half")["borrow_movable"]
    for name in ("v1@32-half", "v2-half", "mainline-half", "v1-full-half"):
        with pytest.raises(ValueError, match="unknown preset"):
            presets.canonical_name(name)


def test_what_is_left_off_is_what_no_preset_turns_on() -> None:
    """But for patch 07, a stage that patch 16 ended."""
    off = {
        row.patch: [key for key in row.keys if key.startswith("policy.")]
        for row in series.patches()
        if row.behavioural and row.patch != 7
    }
    steps = [presets.flat_values(name) for name in presets.ladder()]
    never = {
        patch: keys[0].removeprefix("policy.")
        for patch, keys in off.items()
        if keys and not any(step[keys[0].removeprefix("policy.")] for step in steps)
    }
    assert presets.left_off() == never


def test_the_choice_and_its_reason_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(matrix_text(120).split())
    assert "13 (bulk_nofragment)" in text
    assert presets.WHY_LEFT_OFF in text
    assert matrix_data()["full"]["v1-full"] == "the same as v1@45-full"
    text = " ".join(sf.explain("policy.bulk_nofragment").split())
    assert "no step turns patch 13 on, but v1@15-full and later full presets do" in text
    assert presets.WHY_LEFT_OFF in text
    assert "left off" not in sf.explain("policy.slab_shrink")
    assert presets.patches_off(presets.flat_values("v1@30"), "v1@30") == [2, 13, 17, 22, 28]
    assert presets.patches_off(presets.flat_values("v1@30-full"), "v1@30-full") == []
    assert presets.patches_off(presets.flat_values("mainline"), "mainline") == []


def test_a_file_may_still_name_its_own_preset_so(tmp_path: Path) -> None:
    """Files did before these presets were built in."""
    path = write(
        tmp_path,
        "duration: 1s\npresets: {v1-full: {preset: v1, bulk_nofragment: true}}\n"
        "sweep: {grid: {policy: [v1, v1-full]}}\n",
    )
    job = load_config(path)
    own = job.with_values({"policy": job.sweep.grid["policy"][1]}).policy
    assert (own.bulk_nofragment, own.pcp_owned_pageblocks) == (True, False)


def test_presets_from_python() -> None:
    assert sf.presets.matrix()["slab_shrink"]["v1@30"] is True
    assert "patches: v1 30" in sf.explain("policy.slab_shrink")
