"""Numbers, quantities and tables as text."""

from __future__ import annotations

import pytest

from spbfast.text import (
    format_bytes,
    format_change,
    format_number,
    format_ranges,
    format_seconds,
    format_share,
    format_value,
    quote_value,
    suggest_or_list,
    text_table,
)

pytestmark = pytest.mark.shell


@pytest.mark.parametrize(
    ("value", "units", "shown"),
    [
        (0.05, "s", "50 ms"),
        (2.0, "s", "2 s"),
        (480.0, "s", "8 min"),
        (0.0, "s", "0 s"),
        (247 * 2**30, "byte", "247 GiB"),
        (300e6, "byte s-1", "286.1 MiB/s"),
        (True, "", "on"),
        ("v1@30", "", "v1@30"),
        (2048, "", "2048"),
    ],
)
def test_values_for_people(value: object, units: str, shown: str) -> None:
    assert format_value(value, units) == shown


def test_numbers_for_people() -> None:
    assert [format_number(x) for x in (85, -54.0, 0.123456, 12345.6, float("nan"))] == [
        *("85", "-54", "0.123", "12,346", "none")
    ]
    assert [format_number(x, 1) for x in (-0.04, -3.25, 1e6)] == ["0.0", "-3.2", "1,000,000.0"]
    assert [format_change(x) for x in (3, -3, 0, 0.25)] == ["+3", "-3", "0", "+0.25"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.4 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_amounts_and_shares_for_people() -> None:
    assert [format_bytes(n) for n in (812, 3.41e6, 1.234e12)] == ["812 B", "3.25 MiB", "1.12 TiB"]
    assert [format_share(n, 1000) for n in (0, 999, 1000)] == ["0 %", "99 %", "100 %"]
    assert format_share(0, 0) == "0 %"


def test_ranges() -> None:
    assert [format_ranges(n) for n in ([], [3], [0, 1, 2, 5, 7, 8])] == ["", "3", "0 to 2, 5, 7 to 8"]


def test_what_a_user_gave() -> None:
    given = [None, True, {"a": 1}, [1], "x", "y" * 80]
    assert [quote_value(v) for v in given[:5]] == ["nothing", "true", "a mapping", "a list", "'x'"]
    assert len(quote_value(given[5])) == 60
    assert suggest_or_list("tainted", ["spb_tainted", "spb_clean"]) == "; did you mean 'spb_tainted'?"
    assert suggest_or_list("zzz", ["a", "b"]) == "; there are a, b"


def test_tables_line_up_and_take_markup_for_text() -> None:
    table = text_table(["", "value"], [["a [red]b[/]", 3], ["c", 12345]])
    assert table.splitlines() == ["             value", "a [red]b[/]      3", "c            12345"]
    assert text_table((), [("x", "y"), ("long", "z")], left=(0, 1), gap=1) == "x    y\nlong z"
    wrapped = text_table((), [("key", "one two three four five")], left=(0, 1), width=15)
    assert wrapped.splitlines() == ["key  one two", "     three four", "     five"]
    assert text_table(("wide",), [["x" * 500]]).splitlines()[1] == "x" * 500
