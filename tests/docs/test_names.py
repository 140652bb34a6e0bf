"""What the documentation for developers names exists: files, and the functions, classes and tests in them."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
NAMED = sorted({name for page in PAGES for name in re.findall(r"`([\w./-]+\.py::[\w.]+)`", page.read_text("utf-8"))})
PATHS = sorted(
    {
        path
        for page in PAGES
        for path in re.findall(
            r"`((?:estudio_core|lightning_modules|tests|scripts|docs|benchmarks)/[\w./-]*)`",
            page.read_text("utf-8"),
        )
    }
)


@lru_cache
def definitions(file: Path) -> set[str]:
    """Return the names of functions, classes and their members, and of what is assigned, in `file`."""
    found: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.AnnAssign | ast.Assign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    visit(ast.parse(file.read_text("utf-8")), "")
    return found


@pytest.mark.parametrize("name", NAMED)
def test_every_function_class_and_test_that_is_named_exists(name: str) -> None:
    path, _, inside = name.partition("::")
    assert inside in definitions(PROJECT / path)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_that_is_named_exists(path: str) -> None:
    assert (PROJECT / path).exists()


def test_the_glossary_is_in_order_and_has_each_word_once() -> None:
    page = (PROJECT / "docs" / "glossary.md").read_text("utf-8")
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", page, re.MULTILINE)
    assert len(words) > 40
    assert words == sorted(set(words), key=lambda word: word.replace("_", " "))
