"""Tables for people and for programs: the same rows as a terminal has room for them, in a pipe, or as JSON.

On a terminal nothing is cut: what does not fit is folded, put below its row, or laid out as a record. In a pipe a row
is one line of aligned columns, whole and without colours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, object]
"""One row: values by the names of the columns, and what only JSON shows."""

LEAST_PROSE_COLUMNS = 24
"""Characters below which folded text is a pillar of words: it goes below its row instead."""
_GAPS = (2, 1)
"""Spaces between columns; the second where the first leaves too little room."""
_INDENT = 4
_NOTHING = "-"
_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
"""What a terminal would obey: texts come from outside."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading, and the key of its value in a row.
        form: Format of a number, as `format` takes it.
        right: Whether it is flush right, as numbers are.
        prose: Whether it may be folded, or put below its row.
        styles: How some values look on a terminal.
    """

    name: str
    form: str = ""
    right: bool = False
    prose: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)

    def cell(self, row: Row, *, whole: bool) -> Text:
        """Return the value of a row as text; `whole` writes times as ISO 8601, else to the minute, as clocks here show.

        >>> Column("recall", form=".3f").cell({"recall": 0.97512}, whole=True).plain
        '0.975'
        """
        value = row.get(self.name)
        if isinstance(value, datetime):
            text = value.isoformat(timespec="seconds") if whole else f"{value.astimezone():%Y-%m-%d %H:%M}"
        elif isinstance(value, Mapping):
            text = ", ".join(f"{name} {format(number, self.form)}" for name, number in value.items())
        else:
            text = "" if value is None else format(value, self.form)
        text = " ".join(text.split()).translate(_CONTROL)
        return Text(text or _NOTHING, style=self.styles.get(text, ""))


def show_json(rows: Iterable[Row]) -> None:
    """Print rows as a list of objects on standard output; times are ISO 8601."""
    print(json.dumps(list(rows), default=_as_json, indent=2))


def _as_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def show_rows(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print rows under their headings, whole, in the first of these forms that fits.

    One line each; with folded prose; with the prose below the row; one line for each value. A pipe takes the first.
    """
    whole = not console.is_terminal
    grid = [[column.cell(row, whole=whole) for column in columns] for row in rows]
    widths = [max([len(column.name), *(line[at].cell_len for line in grid)]) for at, column in enumerate(columns)]
    prose = [at for at, column in enumerate(columns) if column.prose]
    if whole:
        _print_lines(console, columns, grid, widths, _GAPS[0])
        return
    for gap in _GAPS:
        room = console.width - gap * (len(columns) - 1) - sum(widths)
        if room >= 0:
            _print_lines(console, columns, grid, widths, gap)
            return
        folded = _folded(widths, prose, room)
        if folded is not None:
            _print_lines(console, columns, grid, folded, gap)
            return
    for gap in _GAPS:
        if gap * (len(columns) - len(prose) - 1) + sum(w for at, w in enumerate(widths) if at not in prose) <= (
            console.width
        ):
            _print_lines(console, columns, grid, widths, gap, below=prose)
            return
    _print_records(console, columns, grid)


def _folded(widths: Sequence[int], prose: Sequence[int], room: int) -> list[int] | None:
    """Return widths that are `-room` smaller in all, taken from the widest prose; None where too little would be left.

    >>> _folded([10, 50, 30], [1, 2], -30)
    [10, 25, 25]
    >>> _folded([10, 30], [1], -30) is None
    True
    """
    folded = list(widths)
    for _ in range(-room):
        widest = max(prose, key=lambda at: folded[at], default=None)
        if widest is None or folded[widest] <= LEAST_PROSE_COLUMNS:
            return None
        folded[widest] -= 1
    return folded


def _print_lines(
    console: Console,
    columns: Sequence[Column],
    grid: Sequence[Sequence[Text]],
    widths: Sequence[int],
    gap: int,
    *,
    below: Sequence[int] = (),
) -> None:
    """Print headings and rows; the columns `below` follow each row, indented, where they hold something."""
    across = [at for at in range(len(columns)) if at not in below]
    name_width = max((len(columns[at].name) for at in below), default=0)
    headings = [Text(column.name, style="bold") for column in columns]
    for cells in (headings, *grid):
        parts = [cells[at].wrap(console, widths[at]) for at in across]
        for line in zip_longest(*parts, fillvalue=Text("")):
            joined = Text()
            for at, part in zip(across, line, strict=True):
                padding = " " * (widths[at] - part.cell_len)
                joined.append_text(Text.assemble(padding, part) if columns[at].right else Text.assemble(part, padding))
                joined.append(" " * gap)
            _print(console, joined)
        for at in below if cells is not headings else ():
            if cells[at].plain != _NOTHING:
                _print_named(console, columns[at].name, name_width, cells[at], indent=_INDENT)


def _print_records(console: Console, columns: Sequence[Column], grid: Sequence[Sequence[Text]]) -> None:
    name_width = max(len(column.name) for column in columns)
    for index, cells in enumerate(grid):
        if index:
            console.print()
        for column, cell in zip(columns, cells, strict=True):
            _print_named(console, column.name, name_width, cell)


def _print_named(console: Console, name: str, name_width: int, cell: Text, *, indent: int = 0) -> None:
    start = indent + name_width + _GAPS[0]
    for index, part in enumerate(cell.wrap(console, max(1, console.width - start))):
        heading = Text(" " * indent + name.ljust(name_width + _GAPS[0]), style="bold") if not index else " " * start
        _print(console, Text.assemble(heading, part))


def _print(console: Console, line: Text) -> None:
    # The line fits already, or goes into a pipe: nobody else may break it.
    line.rstrip()
    console.print(line, soft_wrap=True, highlight=False)
