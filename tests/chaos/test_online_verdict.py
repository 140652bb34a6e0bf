"""The verdict on the service: what it must not let pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from estudio_core.comparing.teams import draft, seed_of
from tests.chaos.online_verdict import check_clicks, check_logged, check_visits, check_writes
from tests.chaos.verdict import Violation

VERSIONS, SIDES = {1: "1", 2: "2"}, ("1", "2")
NEARNESS = {"1": [1.0 - item / 6 for item in range(12)], "2": [item / 6 for item in range(12)]}
"""By model and item: the second finds the last item first."""
RANKINGS = {version: [str(item) for item in sorted(range(12), key=lambda i: -NEARNESS[version][i])] for version in "12"}


def similarities(model: str, query: str, texts: Sequence[str]) -> list[float]:
    return [NEARNESS[model][int(text)] for text in texts]


def hits(ids: Sequence[str], model: str = "1") -> list[tuple[str, str, float]]:
    return [(each, each, NEARNESS[model][int(each)]) for each in ids]


def visit(query_id: str = "q", **fields: Any) -> dict[str, Any]:
    drafted = draft(RANKINGS["1"], RANKINGS["2"], seed_of("x", query_id))
    told = {
        "kind": "visit", "query_id": query_id, "query": "lamp", "mode": "vector", "start": 0, "tries": 1,
        "began": 10.0, "ended": 10.1, "release": 1, "model": "1", "experiment": "x",
        "teams": drafted.teams, "hits": hits(drafted.order[:10]),
    }  # fmt: skip
    return {**told, **fields}


def judged(line: dict[str, Any], outages: Sequence[tuple[float, float]] = ()) -> list[Violation]:
    return check_visits([line], outages, VERSIONS, similarities, SIDES, 12)


@pytest.mark.parametrize("number", range(8))
def test_a_list_that_is_drafted_as_the_coins_say_passes(number: int) -> None:
    assert judged(visit(f"q{number}")) == []


def test_pairs_in_the_other_order_are_found() -> None:
    line = visit()
    other = [line["hits"][place ^ 1] for place in range(10)]
    assert {violation.kind for violation in judged({**line, "hits": other})} == {"mixed"}


def test_teams_of_the_other_side_are_found() -> None:
    swapped = {"champion": "challenger", "challenger": "champion", "both": "both"}
    line = visit()
    found = judged({**line, "teams": {each: swapped[team] for each, team in line["teams"].items()}})
    assert any("nearer" in violation.text for violation in found)


def test_a_list_of_two_releases_outside_an_experiment_is_found() -> None:
    alone: dict[str, Any] = {"experiment": None, "teams": {}}
    assert judged(visit(**alone, hits=hits(RANKINGS["1"][:10]))) == []
    mixed = hits(RANKINGS["1"][:5]) + hits(RANKINGS["2"][:5], "2")
    assert [violation.kind for violation in judged(visit(**alone, hits=mixed))] == ["mixed"]


def test_a_search_may_fail_within_an_outage_only() -> None:
    line = visit(error="503")
    assert judged(line, [(9.0, 10.05)]) == []
    assert [violation.kind for violation in judged(line, [(8.0, 9.0)])] == ["failed"]


def click(**fields: Any) -> dict[str, Any]:
    told = {"kind": "click", "query_id": "q", "events": [("e", "3", 1)], "acknowledged": True, "began": 11, "ended": 12}
    return {**told, **fields}


@pytest.mark.parametrize(
    ("stored", "kinds"),
    [
        ([("e", "q", "3", 1)], []),
        ([], ["lost"]),
        ([("e", "q", "3", 1), ("e", "q", "3", 1)], ["duplicated"]),
        ([("e", "q", "4", 1)], ["lost"]),
        ([("e", "q", "3", 1), ("f", "q", "3", 1)], ["lost"]),
    ],
)
def test_clicks_are_there_once_as_they_were_sent(stored: list[tuple[str, str, str, int]], kinds: list[str]) -> None:
    assert [violation.kind for violation in check_clicks([click()], [], stored)] == kinds


def test_a_click_that_nobody_acknowledged_may_be_missing_and_fails_in_an_outage_only() -> None:
    line = click(acknowledged=False, error="refused")
    assert check_clicks([line], [(11.5, 13.0)], []) == []
    assert [violation.kind for violation in check_clicks([line], [], [])] == ["failed"]


def test_searches_are_logged_as_they_were_answered() -> None:
    line = visit()
    shown = [hit[0] for hit in line["hits"]]
    line["teams"] = {each: line["teams"][each] for each in shown}
    teams: dict[str, dict[str, float]] = {"champion": {}, "challenger": {}}
    for object_id, side in line["teams"].items():
        if side != "both":
            teams[side][object_id] = 1.0
    right = {"experiment": {"teams": teams}}
    assert check_logged([line, click()], [], {"q": (shown, right)}) == []
    other = {"experiment": {"teams": {"champion": teams["challenger"], "challenger": teams["champion"]}}}
    assert [each.kind for each in check_logged([line], [], {"q": (shown, other)})] == ["mixed"]
    assert [each.kind for each in check_logged([line], [], {"q": (shown[::-1], right)})] == ["mixed"]
    assert [each.kind for each in check_logged([line, click()], [], {})] == ["lost"]
    assert check_logged([line], [], {}) == []


def test_a_write_may_fail_within_an_outage_only() -> None:
    line = {"kind": "error", "n": 1, "error": "503", "began": 5.0, "at": 6.0}
    assert check_writes([line], [(5.5, 5.6)]) == []
    assert [each.kind for each in check_writes([line], [])] == ["failed"]
