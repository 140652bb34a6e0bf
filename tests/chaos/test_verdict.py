"""The verdict itself: what it must not let pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.journal import Journal, read_journal
from tests.chaos.shop import title
from tests.chaos.verdict import Stored, Violation, check_content, check_searches

VERSIONS = {1: "1", 2: "2"}
ITEMS = 3


def stored(item: int, version: int, copies: int = 1, parts: int = 1, similarity: float = 1.0) -> Stored:
    return Stored(str(item), copies, title(item, version), parts, similarity)


def operation(number: int, item: int, *, delete: bool = False, acknowledged: bool = True) -> list[dict[str, Any]]:
    version = None if delete else number
    op = "delete" if delete else "upsert"
    lines: list[dict[str, Any]] = [
        {"kind": "intent", "n": number, "op": op, "id": item, "version": version, "at": number}
    ]
    return [*lines, {"kind": "ack", "n": number, "at": number + 0.5}] if acknowledged else lines


def similarities(model: str, query: str, texts: Sequence[str]) -> list[float]:
    return [float(model) / 10 for _ in texts]


def answer(kind: str = "search", at: float = 10.0, **fields: Any) -> dict[str, Any]:
    hits = [["0", title(0, 0), 0.1], ["1", title(1, 0), 0.1]]
    told = {"query": "q", "limit": 2, "began": at, "ended": at + 1, "release": 1, "model": "1", "hits": hits}
    return {"kind": kind, **told, **fields}


def kinds(violations: list[Violation]) -> list[tuple[str, float | None]]:
    return [(violation.kind, violation.at) for violation in violations]


UNTOUCHED = [stored(1, 0), stored(2, 0)]


@pytest.mark.parametrize(
    ("journal", "content", "found"),
    [
        pytest.param([], [stored(0, 0), *UNTOUCHED], [], id="untouched"),
        pytest.param(operation(1, 0), [stored(0, 1), *UNTOUCHED], [], id="written"),
        pytest.param(operation(1, 0), [stored(0, 0), *UNTOUCHED], [("lost", 1.5)], id="lost update"),
        pytest.param(operation(1, 9), [stored(0, 0), *UNTOUCHED], [("lost", 1.5)], id="lost insert"),
        pytest.param(operation(1, 0, delete=True), UNTOUCHED, [], id="deleted"),
        pytest.param(operation(1, 0, delete=True), [stored(0, 0), *UNTOUCHED], [("lost", 1.5)], id="lost deletion"),
        pytest.param(
            [*operation(1, 0), *operation(2, 0)], [stored(0, 1), *UNTOUCHED], [("lost", 2.5)], id="older content"
        ),
        pytest.param([], UNTOUCHED, [("lost", None)], id="an item of the table is missing"),
        pytest.param([], [stored(0, 0), *UNTOUCHED, stored(7, 0)], [("lost", None)], id="nobody wrote it"),
        pytest.param(operation(1, 0, acknowledged=False), [stored(0, 0), *UNTOUCHED], [], id="not acknowledged: no"),
        pytest.param(operation(1, 0, acknowledged=False), [stored(0, 1), *UNTOUCHED], [], id="not acknowledged: yes"),
        pytest.param(
            [*operation(1, 0, acknowledged=False), *operation(2, 0)],
            [stored(0, 1), *UNTOUCHED],
            [("lost", 2.5)],
            id="acknowledged after one that was not",
        ),
        pytest.param(operation(1, 0), [stored(0, 1, copies=2), *UNTOUCHED], [("duplicated", 1.5)], id="twice"),
        pytest.param(operation(1, 0), [stored(0, 1, parts=2), *UNTOUCHED], [("duplicated", 1.5)], id="two vectors"),
        pytest.param(operation(1, 0), [stored(0, 1, parts=0), *UNTOUCHED], [("duplicated", 1.5)], id="no vector"),
        pytest.param(operation(1, 0), [stored(0, 1, similarity=0.6), *UNTOUCHED], [("lost", 1.5)], id="old vector"),
    ],
)
def test_content(journal: list[dict[str, Any]], content: list[Stored], found: list[tuple[str, float | None]]) -> None:
    assert kinds(check_content(journal, ITEMS, content)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param(answer(), [], id="right"),
        pytest.param(answer(release=2), [("mixed", 10.0)], id="release and model do not belong together"),
        pytest.param(answer(release=2, model="2"), [("mixed", 10.0)], id="similarities of another model"),
        pytest.param(answer(release=7), [("mixed", 10.0)], id="a release that there never was"),
        pytest.param(
            answer(hits=[["0", title(0, 0), 0.1], ["1", title(1, 0), 0.4]]), [("mixed", 10.0)], id="one hit of another"
        ),
        pytest.param(
            answer(hits=[["0", title(0, 0), 0.1], ["0", title(0, 0), 0.1]]), [("duplicated", 10.0)], id="found twice"
        ),
        pytest.param(answer(hits=[]), [("lost", 10.0)], id="found in an empty collection"),
        pytest.param(answer(hits=[["0", title(0, 0), 0.1]]), [("lost", 10.0)], id="found less than there is"),
        pytest.param(answer(error="InferenceUnavailableError: away"), [("failed", 10.0)], id="failed"),
        pytest.param(answer(at=19.5, error="DatabaseUnavailableError: away"), [], id="failed into an outage"),
        pytest.param(answer(at=21.0, error="DatabaseUnavailableError: away"), [], id="failed out of an outage"),
        pytest.param(answer(at=22.5, error="DatabaseUnavailableError: away"), [("failed", 22.5)], id="failed after it"),
        pytest.param(answer("probe", id=0, expected=0, hits=[["0", title(0, 0), 0.1]]), [], id="found at once"),
        pytest.param(answer("probe", id=0, expected=3, hits=[["0", title(0, 0), 0.1]]), [("lost", 10.0)], id="stale"),
        pytest.param(answer("probe", id=0, expected=3, hits=[]), [("lost", 10.0)], id="not found"),
        pytest.param(answer("probe", id=0, expected=None, hits=[]), [], id="gone at once"),
        pytest.param(
            answer("probe", id=0, expected=None, hits=[["0", title(0, 0), 0.1]]), [("lost", 10.0)], id="still there"
        ),
    ],
)
def test_searches(line: dict[str, Any], found: list[tuple[str, float | None]]) -> None:
    assert kinds(check_searches([line], [(20.0, 22.0)], VERSIONS, similarities)) == found


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.add("ack", durable=True, n=1, at=1.0)
    with (tmp_path / "j").open("a") as file:
        file.write('{"kind": "ack", "n"')
    assert [line["n"] for line in read_journal(tmp_path / "j")] == [1]
