"""What visits say: whose results were clicked, whose clicks count, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

from estudio_core.clickstream.sessions import SearchResult, SessionEvent, SessionWithEvents
from estudio_core.comparing.credit import MOST_VISITS, Visit, Visits, visits_of
from estudio_core.comparing.settings import ExperimentSettings
from estudio_core.comparing.standing import standing_of
from estudio_core.errors import ConfigurationError

SETTINGS = ExperimentSettings()
TEAMS = {"champion": {"a": 0.5, "c": 0.2}, "challenger": {"b": 0.5, "d": 0.2}}
RESULTS = ("both", "a", "b", "c", "d")


def session(
    number: int, *clicks: str | tuple[str, str, int], client: str | None = "?", at: int = 0, **said: Any
) -> Any:
    """A search; a click is an id, or an id with what was done and how many seconds later."""
    events = []
    for place, click in enumerate(clicks):
        object_id, what, later = (click, "click", 1) if isinstance(click, str) else click
        importance = 3.0 if what == "purchase" else 1.0
        events.append(
            SessionEvent(
                event_id=f"{number}/{place}", object_id=object_id, event_type=what, created_at=at + later,
                importance=importance,
            )
        )  # fmt: skip
    part = {"id": "first", "form": "interleaving", "teams": TEAMS} | said
    return SessionWithEvents(
        session_id=f"q{number}",
        query=f"lamp {number}",
        created_at=at,
        search_results=[SearchResult(object_id=each) for each in RESULTS],
        search_meta={"experiment": part},
        client_id=f"client {number}" if client == "?" else client,
        events=events,
    )


def values(*sessions: SessionWithEvents, settings: ExperimentSettings = SETTINGS) -> list[float | None]:
    return [visit.value for visit in visits_of(sessions, "first", settings).visits]


def test_a_search_brings_what_its_clicks_count_for_the_challenger_less_those_for_the_champion() -> None:
    found = values(
        session(0, "a"), session(1, "b"), session(2, "b", "c"), session(3, "both"), session(4), session(5, "a", "b")
    )
    assert found == [-0.5, 0.5, pytest.approx(0.3), None, None, 0.0]


def test_clicks_count_by_importance_and_the_plugin_s_weights_and_one_search_brings_one_at_most() -> None:
    bought = session(0, ("d", "purchase", 1))
    assert values(bought) == [pytest.approx(0.6)]
    assert values(bought, settings=ExperimentSettings(event_weights={"purchase": 0.5})) == [pytest.approx(0.3)]
    assert values(bought, settings=ExperimentSettings(event_weights={"purchase": 0})) == [None]
    assert values(session(1, ("b", "purchase", 1), ("d", "purchase", 1))) == [1.0]


def test_a_click_that_comes_later_than_clicks_settle_and_searches_of_others_do_not_count() -> None:
    assert values(session(0, ("a", "click", 1700)), session(1, ("a", "click", 1900))) == [-0.5, None]
    assert values(session(2, "a", id="second")) == []
    assert values(session(3, "a", teams="none"), session(4, "a", teams={"champion": {"a": "much"}})) == [None, None]


def test_what_a_client_does_in_a_while_is_one_visit_and_only_some_visits_count() -> None:
    soon = [session(number, "a" if number else "b", client="x", at=600 * number) for number in range(3)]
    assert values(*soon) == [pytest.approx(-0.5 / 3)]
    often = [session(number, "a", client="x", at=4_000 * number) for number in range(MOST_VISITS + 5)]
    found = visits_of(often, "first", SETTINGS)
    assert (len(found.visits), found.beyond) == (MOST_VISITS, 5)
    unknown = [session(number, "b", client=None) for number in range(3)]
    assert values(*unknown) == [0.5] * 3


def test_machines_are_left_out_as_in_training() -> None:
    people = [session(number, "b", at=97 * number) for number in range(40)]
    machine = [session(1000 + number, "a", client="robot", at=2 * number) for number in range(400)]
    found = visits_of([*people, *machine], "first", SETTINGS)
    assert len(found.visits) == 40
    assert found.implausible == {"more searches than a person makes": 1}


def test_each_side_of_an_ab_test_brings_its_success_over_what_is_usual() -> None:
    settings = ExperimentSettings(usual_success=0.4)
    sides = [session(n, *clicks, arm=arm, teams=None) for n, (arm, clicks) in enumerate(
        [("champion", ("a",)), ("champion", ()), ("challenger", ("a", "b")), ("challenger", ())]
    )]  # fmt: skip
    assert values(*sides, settings=settings) == [pytest.approx(each) for each in (-0.6, 0.4, 0.6, -0.4)]


def stand(
    numbers: dict[float, int], settings: ExperimentSettings = SETTINGS, *, days: float = 1, open_ones: int = 0
) -> Any:
    """Where an experiment stands with so many settled visits of each value, and unsettled ones of -1."""
    visits = [Visit(0, value, 1, True) for value, number in numbers.items() for _ in range(number)]
    visits += [Visit(int(days * 86_400) - 10, -1.0, 1, True) for _ in range(open_ones)]
    return standing_of(Visits(tuple(visits), len(visits), {}, 0), settings, days * 86_400, 0)


def test_the_verdict_is_what_the_band_says() -> None:
    better = stand({0.5: 70, -0.5: 30})
    assert (better.finding, better.wins, better.losses, better.sessions_needed) == ("better", 70, 30, None)
    assert better.low > 0
    assert stand({0.5: 49, -0.5: 51}).finding is None
    worse = stand({0.3: 600, -0.3: 800})
    assert worse.finding == "worse"
    assert worse.high < 0
    assert stand({1.0: 20}).finding is None  # too few, however sure
    assert stand({0.2: 40_000, -0.2: 40_000}).finding == "no difference"
    ended = stand({0.5: 10, -0.5: 10}, days=29)
    assert (ended.finding, "28 days" in ended.reason) == ("no difference", True)


def test_harm_ends_it_by_clicks_that_have_not_settled_too() -> None:
    assert stand({}, open_ones=4).finding is None
    harm = stand({}, open_ones=12)
    assert (harm.finding, harm.visits, harm.wins, harm.losses) == ("harm", 0, 0, 0)
    assert stand({}, ExperimentSettings(harm_bound=0.99), open_ones=12).finding is None


def test_how_many_searches_are_still_needed_falls_as_they_come() -> None:
    first, later = stand({0.5: 30, -0.5: 20}), stand({0.5: 45, -0.5: 30})
    assert first.finding is later.finding is None
    assert first.sessions_needed > later.sessions_needed > 0
    enough = first.sessions_needed + 50
    assert stand({0.5: round(enough * 0.6), -0.5: round(enough * 0.4)}).low == pytest.approx(0, abs=0.01)
    assert stand({}).sessions_needed is None


@pytest.mark.parametrize(
    "wrong", [{"confidence": 1.0}, {"harm_bound": 0}, {"share": 0}, {"share": 1.1}, {"settle_minutes": 0}, {"most": 1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        ExperimentSettings(**wrong)  # type: ignore[arg-type]
