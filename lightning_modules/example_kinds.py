"""Kinds of training pairs, of which a curriculum trains on one after another."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Literal

Difficulty = Literal["hard", "medium", "soft"]
Order = Literal["right", "wrong"]


class ExampleKind(IntEnum):
    """Pairs by d = s+ - s- against the margin, under the tutorial's numbers.

    hard: |d| < margin; medium: margin <= |d| < 2*margin; soft: the others. Of the right order: d >= 0.
    """

    difficulty: Difficulty | None
    """None: of all three."""
    order: Order | None
    """None: of both."""

    def __new__(cls, number: int, difficulty: Difficulty | None = None, order: Order | None = None) -> ExampleKind:
        """Make the kind with this number."""
        kind = int.__new__(cls, number)
        kind._value_ = number
        kind.difficulty, kind.order = difficulty, order
        return kind

    MEDIUM_ALL = 1, "medium"
    HARD_ALL = 2, "hard"
    SOFT_ALL = 3, "soft"
    MEDIUM_POSITIVE = 4, "medium", "right"
    HARD_POSITIVE = 5, "hard", "right"
    SOFT_POSITIVE = 6, "soft", "right"
    MEDIUM_NEGATIVE = 7, "medium", "wrong"
    HARD_NEGATIVE = 8, "hard", "wrong"
    SOFT_NEGATIVE = 9, "soft", "wrong"
    NEGATIVE_ONLY = 10, None, "wrong"
    ALL = 11


def example_kind(written: Any) -> Any:
    """Return the kind that a number or a name stands for; what is neither is returned as it is.

    >>> example_kind("3"), example_kind("hard_all"), example_kind("ExamplesType.all_examples")
    (<ExampleKind.SOFT_ALL: 3>, <ExampleKind.HARD_ALL: 2>, <ExampleKind.ALL: 11>)
    """
    if isinstance(written, str):
        name = written.strip().removeprefix("ExamplesType.").removeprefix("ExampleKind.").upper()
        name = "ALL" if name == "ALL_EXAMPLES" else name  # the tutorial's name
        if name in ExampleKind.__members__:
            return ExampleKind[name]
        return ExampleKind(int(name)) if name.isdigit() and int(name) in set(ExampleKind) else written
    return written
