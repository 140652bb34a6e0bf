"""What the search page asks beside searches: grades that people give, and two rankings side by side."""

from __future__ import annotations

import csv
import io
from random import Random
from typing import Any

import httpx
import pytest

from estudio_core.evaluation.judgment_store import MOST_KEY_BYTES, judged_on_page
from estudio_core.searching import search
from estudio_core.service import metrics
from tests.service.conftest import Service


@pytest.fixture
def admin(make_client: Any) -> httpx.Client:
    found: httpx.Client = make_client("admin", plugins=("shop", "library"))
    return found


def test_all_grades_are_exported_however_many_pages_they_are(
    admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("estudio_core.service.people.PAGE_OF_GRADES", 3)
    given = [("lamp", str(n), str(n % 4), judge) for n in range(4) for judge in ("Ann", "Bob")]
    for query, object_id, grade, judge in [*given, ('lamp, "red"\n', "1", "2.5", "Ann")]:
        body = {"query": query, "object_id": object_id, "grade": float(grade), "judge": judge}
        assert admin.put("/library/_judgments", json=body).json() == {"result": "updated"}
    answer = admin.get("/library/_judgments", params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["query", "object_id", "grade", "judge"]
    assert sorted(map(tuple, rows[1:-1])) == sorted(given)
    assert rows[-1] == ['lamp, "red"\n', "1", "2.5", "Ann"]
    first = admin.get("/library/_judgments").json()
    assert (len(first["judgments"]), first["complete"]) == (3, False)
    anns = admin.get("/library/_judgments", params={"judge": "Bob", "query": "lamp"}).json()
    assert ([each["object_id"] for each in anns["judgments"]], anns["complete"]) == (["0", "1", "2"], False)
    body = {"query": "lamp", "object_id": "0", "grade": None, "judge": "Ann"}
    assert admin.put("/library/_judgments", json=body).json() == {"result": "deleted"}
    assert dict(judged_on_page("library")["lamp"]) == {"0": 0, "1": 1, "2": 2, "3": 3}


def test_a_grade_s_texts_are_measured_by_the_bytes_of_the_index_that_holds_them(admin: httpx.Client) -> None:
    random = Random(1)
    query = "".join(chr(random.randrange(0x4E00, 0x9FFF)) for _ in range(862))  # 3 bytes a letter, no pattern
    body = {"query": query, "object_id": "1", "grade": 3, "judge": "Eva"}
    assert len(query.encode()) + 4 == MOST_KEY_BYTES - 10
    assert admin.put("/library/_judgments", json=body).json() == {"result": "updated"}
    assert dict(judged_on_page("library")[query]) == {"1": 3}
    answer = admin.put("/library/_judgments", json={**body, "query": query + "燈燈燈燈"})
    assert (answer.status_code, "2,600 bytes together at most; given 2,602" in answer.text) == (400, True), answer.text


def test_two_ways_of_ranking_are_shown_side_by_side(admin: httpx.Client) -> None:
    body = {"query": "red lamp", "size": 5, "filter": {"term": {"brand": "acme"}}, "sides": [{}, {"mode": "words"}]}
    first, second = admin.post("/shop/_compare", json=body).json()["sides"]
    for side, mode in ((first, "hybrid"), (second, "words")):
        hits = search("shop", "red lamp", limit=5, filter=body["filter"], mode=mode).hits
        assert [hit["_id"] for hit in side["hits"]] == [hit.object_id for hit in hits]
        assert [hit["_score"] for hit in side["hits"]] == pytest.approx([hit.score for hit in hits])
    assert "similarity" in first["hits"][0]["ext"]["estudio"]
    assert "similarity" not in second["hits"][0]["ext"]["estudio"]


def test_counts_of_rows_say_what_became_of_them(service: Service, make_client: Any) -> None:
    collector = make_client("events")

    def counted(outcome: str) -> float:
        labels = {"kind": "event", "outcome": outcome}
        return metrics._registry.get_sample_value("estudio_collected_rows_total", labels) or 0

    before = {outcome: counted(outcome) for outcome in ("stored", "refused", "known")}
    row = {"action_name": "click", "query_id": "counted", "event_id": "c1", "timestamp": "2026-11-01T10:00:00Z"}
    assert collector.post("/ubi_events", json=[row, {"nothing": 1}, {"user_query": "lamp"}]).json()["stored"] == 1
    assert collector.post("/ubi_events", json=row).json()["stored"] == 1
    after = {outcome: counted(outcome) - times for outcome, times in before.items()}
    assert after == {"stored": 1, "refused": 2, "known": 1}
