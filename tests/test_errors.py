"""The exceptions are the tree that their module draws."""

from __future__ import annotations

import inspect
import re

from estudio_core import errors


def drawn_parents() -> dict[str, str | None]:
    """Return the parent of each exception in the drawing, by name."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^    ((?:[│ ] {3})*(?:[├└]── )?)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        path = [*path[: len(indent) // 4], name]
        parents[name] = path[-2] if len(path) > 1 else None
    return parents


def test_the_tree_that_is_drawn_is_the_tree() -> None:
    defined = {
        name: None if cls is errors.EstudioError else cls.__base__.__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.EstudioError)
    }
    assert drawn_parents() == defined
