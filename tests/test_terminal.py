"""Tables on terminals of any width and in pipes: nothing of them is lost."""

from __future__ import annotations

import io
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from estudio_core.demo.last_screen import _show_side_by_side
from estudio_core.evaluation.report_data import QueryChange, ResultLine
from estudio_core.terminal import Column, show_json, show_rows

COLUMNS = [
    Column("plugin"),
    Column("release", right=True),
    Column("recall", ".3f", right=True),
    Column("reason", prose=True),
    Column("where", prose=True),
]
LONG = "a reason [/x] with [bold]brackets[/bold] and many words, which goes on and on until no terminal holds it"
ROWS = [
    {"plugin": "demo_catalog", "release": 7, "recall": 0.97512, "reason": LONG, "where": None},
    {"plugin": "漢字の店", "release": 12, "recall": None, "reason": "", "where": "https://example.org/" + "long/" * 12},
]


def printed(width: int, *, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show_rows(console, COLUMNS, ROWS)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 25])
def test_every_value_stands_whole_on_a_terminal_of_any_width(width: int) -> None:
    lines = printed(width)
    assert max(map(cell_len, lines)) <= width
    text = "".join(lines)
    assert "…" not in text
    values = [*ROWS[0].values(), *ROWS[1].values()]
    whole = "".join(f"{value:.3f}" if isinstance(value, float) else str(value or "") for value in values)
    assert Counter(text) >= Counter("".join(whole.split()))  # lines of texts that are folded side by side alternate


def test_prose_is_folded_where_there_is_room_goes_below_where_not_and_records_come_last() -> None:
    assert len(printed(300)) == 3
    heading, first, *_ = printed(100)
    assert heading.split() == [column.name for column in COLUMNS]
    assert "a reason" in first
    heading, first, below, *_ = printed(60)
    assert heading.split() == ["plugin", "release", "recall"]
    assert first.split() == ["demo_catalog", "7", "0.975"]
    assert below.startswith("    reason  a reason")
    assert not any(line.strip().startswith("where   -") for line in printed(60))  # nothing to say
    assert printed(25)[:2] == ["plugin   demo_catalog", "release  7"]


def test_a_pipe_gets_one_line_for_a_row_however_narrow_a_terminal_would_be() -> None:
    heading, first, second = printed(20, terminal=False)
    assert LONG in first
    assert str(ROWS[1]["where"]) in second
    assert cell_len(heading[: heading.index("release")]) == cell_len("demo_catalog  ")


def test_what_a_terminal_would_obey_is_not_printed_and_times_are_iso_in_a_pipe_and_in_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
    row = {"title": "two\nlines\x1b[31m\x07", "at": at, "folder": Path("/tmp")}
    console = Console(file=io.StringIO(), force_terminal=False)
    show_rows(console, [Column("title"), Column("at")], [row])
    line = console.file.getvalue().splitlines()[1]  # type: ignore[attr-defined]
    assert line == "two lines[31m  2026-03-01T12:30:15+00:00"
    show_json([row])
    assert json.loads(capsys.readouterr().out) == [row | {"at": at.isoformat(), "folder": "/tmp"}]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_demo_shows_titles_before_and_after_in_full(terminal: bool) -> None:
    title = "USB-C [charger] with a name that says everything about what it can do, and for which devices"
    lines = (ResultLine(object_id="1", title=title, grade=3.0), ResultLine(object_id="2", title="short"))
    query = QueryChange(
        query="usb [c]", group="seen", before=0.4, after=0.9, results_before=lines, results_after=lines[::-1]
    )
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    _show_side_by_side(console, "gained most", query)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "“usb [c]” gained most: nDCG@10 full 0.40 → 0.90" in text
    assert "? short" in text
    assert "…" not in text
    assert text.count("[charger]") == 2
    assert (f"3 {title}" in text) != terminal  # folded on the terminal, in one line in the pipe
