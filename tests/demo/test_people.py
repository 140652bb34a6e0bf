"""Simulated people at a real service: what they are shown and click is what a training reads."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from estudio_core.clickstream.replay import ClickModel
from estudio_core.demo.people import SHOWN, SimulatedPeople, Visit, plan_visits, still_to_make
from estudio_core.demo.traffic import key_of, let_them_search, page_key, visits_made
from estudio_core.errors import DataError, UnavailableError
from tests.service.conftest import Service, service, small_entry, small_model_folder

__all__ = ["service", "small_entry", "small_model_folder"]

GRADES = {f"{word} {kind}": {str(n): 3.0 for n in range(start, 60, 6)} for start, (word, kind) in enumerate(
    [("red", "lamp"), ("old", "chair"), ("small", "kettle")]
)}  # fmt: skip


def test_what_people_see_and_click_is_in_the_clickstream_and_all_of_it_is_called_simulated(service: Service) -> None:
    visits = plan_visits(GRADES, 30, "first")
    people = SimulatedPeople(service.address, service.key("search", "events"), "shop", GRADES)
    made = people.search(visits)
    sessions = service.sessions()
    assert set(sessions) >= {visit.query_id for visit in visits}
    clicks = 0
    for visit in visits:
        session = sessions[visit.query_id]
        assert (session.query, session.client_id) == (visit.query, visit.client_id)
        assert session.search_meta is not None
        assert session.search_meta["simulated"] is True
        assert session.release == "1"
        assert [result.position for result in session.search_results] == list(range(SHOWN))
        shown = [result.object_id for result in session.search_results]
        assert len(shown) == SHOWN
        expected = {shown[place] for place in people.clicks_on(visit, shown)}
        assert {event.object_id for event in session.events} == expected
        clicks += len(expected)
    assert clicks > 0
    assert (made.searches, made.clicks) == (30, clicks)
    assert made.requests == 30 + made.clicked
    assert made.requests_per_s == pytest.approx(made.requests / made.seconds)


def test_visits_that_were_made_before_are_not_made_again(service: Service) -> None:
    people = SimulatedPeople(service.address, service.key("search", "events"), "shop", GRADES)
    people.search([*plan_visits(GRADES, 4, "broken"), *plan_visits(GRADES, 2, "broken_other")])
    made = visits_made("shop", "broken")
    assert len(made) == 4
    rest = still_to_make(plan_visits(GRADES, 6, "broken"), made)
    assert [visit.query_id for visit in rest] == ["broken-000004", "broken-000005"]


def test_people_have_a_key_that_may_search_and_log_and_is_over_with_the_demo(service: Service) -> None:
    with key_of("people", "shop") as key:
        [row] = service.sql("SELECT scopes, plugins, revoked_at FROM estudio.service_keys WHERE key_id = %s", key[4:16])
        assert row == (["search", "events"], ["shop"], None)
    [(revoked_at,)] = service.sql("SELECT revoked_at FROM estudio.service_keys WHERE key_id = %s", key[4:16])
    assert revoked_at is not None


def test_the_page_has_one_key_at_a_time_and_what_is_done_there_is_logged(service: Service) -> None:
    first, second = page_key("shop"), page_key("shop")
    rows = service.sql("SELECT key_id, revoked_at IS NULL FROM estudio.service_keys WHERE name LIKE '%%search page'")
    assert dict(rows) == {first[4:16]: False, second[4:16]: True}
    SimulatedPeople(service.address, second, "shop", GRADES).search(plan_visits(GRADES, 1, "page"))
    assert visits_made("shop", "page") == {"page-000000"}


def test_how_far_people_are_is_told_where_nobody_sees_a_bar(service: Service) -> None:
    console = Console(file=io.StringIO(), width=120)
    people = SimulatedPeople(service.address, service.key("search", "events"), "shop", GRADES)
    made = let_them_search(console, "Simulated people search", people, plan_visits(GRADES, 12, "shown"))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Simulated people search" in said
    assert f"12 searches, {made.clicked} with clicks ({made.clicks} in all)" in said
    assert f"{made.requests} requests, {made.requests_per_s:.0f} a second" in said


def test_a_service_that_refuses_is_named_with_its_reason(service: Service) -> None:
    people = SimulatedPeople(service.address, service.key("events"), "shop", GRADES)
    with pytest.raises(UnavailableError, match=rf"{service.address}.*_search: 403"):
        people.search(plan_visits(GRADES, 3, "refused"))


def test_a_plan_is_the_same_each_time_and_goes_on_where_it_ended() -> None:
    plan = plan_visits(GRADES, 200, "plan")
    assert plan == plan_visits(GRADES, 200, "plan")
    assert plan_visits(GRADES, 50, "plan", first=200)[0].query_id == "plan-000200"
    assert [v.query for v in plan[:50]] != [v.query for v in plan_visits(GRADES, 50, "other")]
    asked = Counter(visit.query for visit in plan)
    assert set(asked) == set(GRADES)
    by_rank = [count for _, count in asked.most_common()]
    assert by_rank[0] / by_rank[2] == pytest.approx(3**0.5, rel=0.35)
    with pytest.raises(DataError, match="no ratings"):
        plan_visits({}, 1, "plan")


def test_nobody_of_them_is_taken_for_a_machine_or_counts_too_often() -> None:
    judgments = {f"query {n}": {"1": 1.0} for n in range(100)}
    of_client = Counter(visit.client_id for visit in plan_visits(judgments, 3_000, "people"))
    assert len(of_client) > 900
    assert max(of_client.values()) < 12


def test_clicks_follow_the_click_model() -> None:
    people = SimulatedPeople("http://nowhere", "key", "shop", {"lamp": {"good": 3.0, "fair": 1.0}})
    shown = ["good", "never rated", "fair"]
    clicked = np.zeros(3)
    for seed in range(4_000):
        clicked[people.clicks_on(Visit("id", "lamp", "client", "session", seed), shown)] += 1
    model = ClickModel()
    expected = model.examination([0, 1, 2]) * model.attraction([3, 0, 1])
    assert clicked / 4_000 == pytest.approx(expected, abs=0.02)
